"""A model -> a folder that onnxruntime runs, without torch and without kovqa."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import torch

from kovqa_core.data.answers import write_answers
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.export.export_model import ExportReport, has_our_card, write_export_folder
from kovqa_core.export.model_card import CardScore, licence_of_bases, model_card, score_predictions
from kovqa_core.export.model_origin import find_model_origin
from kovqa_core.export.onnx_graphs import OnnxModel, require_onnx_libraries, run_graphs, write_graph
from kovqa_core.files import read_text, write_json, write_text
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.closed_folder import require_closed_folder
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_found_step
from kovqa_core.whole_folder import require_new_folder

# Family -> module and function that describe its networks.
ONNX_MODELS = {
    "beit3": ("kovqa_core.export.onnx_beit3", "beit3_onnx_model"),
    "fusion": ("kovqa_core.export.onnx_fusion", "fusion_onnx_model"),
}
# Between logits of torch and of onnxruntime, both in fp32.
LARGEST_DIFFERENCE = 1e-4
_EXAMPLE_FILE = "run_onnx.py"
_LOADING_CODE = """\
# pip install onnxruntime numpy pillow {library}
from run_onnx import {function}

print({function}({arguments}))
"""
_EXAMPLE_CALLS = {"vqa": ("answer", '"image.png", "무엇이 보이나요?"'), "caption": ("caption", '"image.png"')}


def export_onnx(
    model: Path,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    licence: str = "",
    scored: tuple[Path, Path] | None = None,
) -> ExportReport:
    """Write a model for onnxruntime, checked, whole or not at all.

    The folder holds the networks (`model.onnx`; of a captioner `image.onnx` and `text.onnx`), the tokenizer, the answers,
    `preprocessing.json`, and `run_onnx.py`, which answers with them.

    Args:
        model: run folder (its best step) or step folder.
        folder: what to write; see `write_new_folder`.
        on_progress: called with notes.
        licence, scored: as of `export_checkpoint`.

    Raises:
        MachineError: the libraries are not installed.
        SettingsError: a folder that holds something else, or that another process writes; a vision language model.
        ModelError: no model, or a broken one; torch cannot write it; onnxruntime gives other logits.
    """
    require_new_folder(folder, has_our_card)
    require_onnx_libraries()
    with hold_found_step(partial(find_model_folder, model, "")) as step:
        scores = (score_predictions(step, *scored),) if scored else ()
        return _export_step(step, folder, licence, scores, on_progress)


def _export_step(
    step: Path, folder: Path, licence: str, scores: tuple[CardScore, ...], on_progress: OnProgress
) -> ExportReport:
    require_closed_folder(step)
    info = read_checkpoint_info(step)
    if info.family not in ONNX_MODELS:
        raise SettingsError(
            message(
                "export.no-onnx-form",
                "{step} is of family {family}, which is not exported to ONNX",
                step=step,
                family=info.family,
            ),
            message("export.no-onnx-form.hint", "leave out --onnx: its folder is one of transformers'"),
        )
    onnx_model = _read_onnx_model(step, info.family, info.task)
    differences: list[float] = []
    origin = find_model_origin(step, info)

    def fill(unfinished: Path) -> None:
        for graph in onnx_model.graphs:
            on_progress(Progress(message("export.writing-graph", "writing {name}.onnx", name=graph.name)))
            write_graph(graph, unfinished)
        with torch.inference_mode():
            differences.append(onnx_model.compare(run_graphs(unfinished)))
        _require_same_logits(differences[0])
        write_files_beside(onnx_model, info.task, unfinished)
        library = "tokenizers" if onnx_model.tokenizer[0].endswith(".json") else "sentencepiece"
        function, arguments = _EXAMPLE_CALLS[info.task]
        loading = _LOADING_CODE.format(library=library, function=function, arguments=arguments)
        card = model_card(step, info, origin, loading, licence, scores, opens_here=False)
        write_text(unfinished / "README.md", card)

    files = write_export_folder(folder, fill, on_progress)
    return ExportReport(
        step,
        folder,
        files,
        onnx_difference=differences[0],
        origin=origin,
        licence=licence or licence_of_bases(origin),
    )


def _read_onnx_model(step: Path, family_name: str, task: str) -> OnnxModel:
    model, processor = family.read_model_folder(step, task)
    module, function = ONNX_MODELS[family_name]
    describe = getattr(importlib.import_module(module), function)
    onnx_model: OnnxModel = describe(model.float().eval(), processor)
    return onnx_model


def write_files_beside(onnx_model: OnnxModel, task: str, folder: Path) -> None:
    """Write what a folder holds beside the networks: tokenizer, answers, settings, and the program."""
    name, content = onnx_model.tokenizer
    (folder / name).write_bytes(content)
    if onnx_model.answers is not None:
        write_answers(folder / "answers.txt", onnx_model.answers)
    write_json(folder / "preprocessing.json", {"task": task, **onnx_model.settings})
    write_text(folder / _EXAMPLE_FILE, read_text(Path(__file__).with_name("onnx_runtime_example.py")))


def _require_same_logits(difference: float) -> None:
    if difference > LARGEST_DIFFERENCE:
        raise ModelError(
            message(
                "export.onnx-other-logits",
                "onnxruntime gives other logits than torch: they differ by up to {difference:.1e}, allowed is {allowed:.0e}",
                difference=difference,
                allowed=LARGEST_DIFFERENCE,
            ),
            message(
                "export.onnx-other-logits.hint",
                "nothing was written; try other versions of torch, onnxscript, onnxruntime",
            ),
        )
