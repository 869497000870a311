"""torch beside onnxruntime on this machine's CPU, with the same weights, images and questions; both in fp32.

    python bench/onnx_speed.py [--batches 1 8] [--tiny]

BEiT-3 base at 224 pixels as a classifier and as a captioner, and a fusion model of ResNet-50 and XLM-RoBERTa base, with
random weights. A model is exported by `export_onnx`, which compares the logits; then each batch is answered by torch and by
onnxruntime in turns, and the median of the times counts. Of the captioner a caption of so many words is written by kovqa's
own beam search and by the program in the exported folder, which has no cache of the text.

On a machine with other work set OMP_WAIT_POLICY=PASSIVE: else threads of torch that wait for one another take CPU time.
"""

from __future__ import annotations

import argparse
import os
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.export.onnx_export import export_onnx
from kovqa_core.models import family
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, run_beam_search
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.tokenizer.train import train_tokenizer

WORDS = 12  # of the question, or of the caption
ROUNDS = 5
TINY = ("model.size=tiny", "model.image_size=64")
BASE = ("model.size=base", "model.image_size=224", "model.weights=null")
MODELS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "BEiT-3 base, 224, 3129 answers": ("kobeit3", "vqa", BASE),
    "fusion, ResNet-50 and XLM-R base": ("nia", "vqa", ("model.random_init=true",)),
    "BEiT-3 base, 224, captions": ("coco-caption", "caption", BASE),
}


class Seconds(NamedTuple):
    """Medians of one call: by the clock, and of all cores' CPU time, which other work on the machine changes less."""

    clock: float
    cpu: float


def median_seconds(first: Callable[[], object], second: Callable[[], object]) -> tuple[Seconds, Seconds]:
    """Of two functions in turns, after one call of each."""
    took: tuple[list[Seconds], list[Seconds]] = ([], [])
    for number in range(ROUNDS + 1):
        for function, seconds in zip((first, second), took, strict=True):
            began, used = time.perf_counter(), time.process_time()
            function()
            if number:
                seconds.append(Seconds(time.perf_counter() - began, time.process_time() - used))
    medians = [Seconds(*map(statistics.median, zip(*seconds, strict=True))) for seconds in took]
    return medians[0], medians[1]


def open_session(file: Path) -> Any:
    """The network in a file, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait would count as CPU time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def compare_answers(model: Any, folder: Path, batch: int) -> tuple[Seconds, Seconds]:
    """Seconds of a batch of questions, of torch and of onnxruntime."""
    session, net = open_session(folder / "model.onnx"), model.net.eval()
    side = model.side
    pixels = torch.rand(batch, 3, side, side)
    tokens, padding = torch.randint(4, 400, (batch, WORDS)), torch.zeros(batch, WORDS, dtype=torch.bool)
    feeds = {"pixels": pixels.numpy(), "tokens": tokens.numpy(), "padding": padding.numpy()}
    with torch.inference_mode():
        return median_seconds(lambda: net(pixels, tokens, padding), lambda: session.run(None, feeds))


def compare_captions(model: Any, folder: Path, image: Path) -> tuple[Seconds, Seconds]:
    """Seconds of one caption of `WORDS` words with three beams, of kovqa's search and of the exported program."""
    program = runpy.run_path(str(folder / "run_onnx.py"))
    program["ABOUT"].update(max_text=WORDS + 2, length_penalty=9.0)  # the longest wins: all words are written
    sessions = {name: open_session(folder / name) for name in ("image.onnx", "text.onnx")}
    program["caption"].__globals__["open_network"] = sessions.__getitem__
    pixels, search = torch.from_numpy(program["load_pixels"](image)), BeamSearchSettings(3, WORDS + 2, 9.0)
    mask_id = program["ABOUT"]["special_ids"]["<mask>"]
    with torch.inference_mode():
        return median_seconds(
            lambda: run_beam_search(model.net.eval(), pixels, search, mask_id),
            lambda: program["caption"](image),
        )


def main() -> None:
    """Export each model, compare, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tiny", action="store_true", help="small networks, to see that it runs")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        write_demo_dataset(home / "raw", 8, 4, 3)
        train_tokenizer([home / "raw" / "text.txt"], home / "tokenizer.model", 450)
        image = next((home / "raw" / "images").glob("*.png"))
        for name, (recipe_name, task, sets) in MODELS.items():
            if options.only not in name:
                continue
            flags = {"model.tokenizer": str(home / "tokenizer.model")}
            small = TINY if options.tiny and "BEiT" in name else ()
            recipe = resolve_settings(recipe_name, "cpu", [*sets, *small], flags).recipe
            answers = [f"answer {number}" for number in range(3129)] if task == "vqa" else []
            model, processor, _ = family.create_model(recipe, answers)
            step = home / recipe_name
            step.mkdir()
            family.write_model_folder(model, processor, step, CheckpointInfo(recipe.family, task))
            began = time.perf_counter()
            report = export_onnx(step, home / f"{recipe_name}-onnx")
            print(
                f"{name}: exported in {time.perf_counter() - began:.0f} s, largest difference {report.onnx_difference:.1e}"
            )
            any_model: Any = model
            any_model.side = processor.config.image_size  # type: ignore[attr-defined]
            if task == "caption":
                rows = {f"{WORDS} words, 3 beams": compare_captions(model, report.folder, image)}
            else:
                rows = {
                    f"batch {batch}": compare_answers(model, report.folder, batch)
                    for batch in options.batches
                }
            for row, (ours, other) in rows.items():
                times = " ".join(
                    f"{kind} {1e3 * one:.0f} / {1e3 * two:.0f} ms (ratio {one / two:.2f})"
                    for kind, one, two in zip(Seconds._fields, ours, other, strict=True)
                )
                print(f"  {row}, torch / onnxruntime: {times}", flush=True)


if __name__ == "__main__":
    main()
