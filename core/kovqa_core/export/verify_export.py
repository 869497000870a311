"""An export is read by the library it was made for, alone, and held against the model it was made of.

The library runs in a process of its own in which kovqa cannot be imported. Both compute in fp32, from the same image
and the same text: tokenizer, image processing and network are all part of what is compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kovqa_core.data.example import AskedExample
from kovqa_core.errors import ModelError
from kovqa_core.export import other_library
from kovqa_core.export.check_examples import CheckExamples, find_check_examples
from kovqa_core.files import write_text
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.export_check import ExportCheck
from kovqa_core.models.precision import prepare_answering
from kovqa_core.output_lock import scratch_folder
from kovqa_core.progress import OnProgress, Progress, ignore_progress

# Of the largest logit: fp32 on both sides, whose sums run in another order.
TOLERANCE = 1e-4
# Where an update was merged into 16-bit weights: each is rounded by up to 2^-9 of itself, all of them at random.
ROUNDED_TOLERANCE = 0.05


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and how far apart the largest two numbers were.

    Attributes:
        library: that read the export.
        inputs: what was asked.
        difference: the largest between its logits and those of kovqa, which reads the same files.
        own_difference: the largest between its logits and those of the model before it was exported.
        largest: logit, by size.
        tolerance, own_tolerance: what both may be.
    """

    library: str
    inputs: str
    difference: float
    own_difference: float
    largest: float
    tolerance: float
    own_tolerance: float


def verify_export(
    step: Path,
    exported: Path,
    options: family.LoadOptions = family.DEFAULT_LOADING,
    on_progress: OnProgress = ignore_progress,
    *,
    is_rounded: bool = False,
) -> VerifyReport:
    """Hold an export against its model.

    Args:
        step: the checkpoint folder.
        exported: what was written of it.
        options: how the checkpoint is read.
        on_progress: called before each side computes.
        is_rounded: were weights rounded on the way?

    Raises:
        ModelError: the library cannot read the folder, or comes to other numbers.
        SettingsError: the family has no such check.
    """
    check = family.load_family(read_checkpoint_info(step).family).export_check
    assert check is not None  # of every family of ours
    exact = family.LoadOptions(options.data, options.trust_remote_code, fp32=True)
    on_progress(Progress(message("export.own-logits", "logits by kovqa")))
    examples, rows, before = _own_side(check, step, exact, None)
    _, _, after = _own_side(check, exported, exact, examples)
    on_progress(Progress(message("export.other-logits", "logits by {library} alone", library=check.library)))
    other = _other_side(check, exported, examples, rows, trust_remote_code=options.trust_remote_code)
    largest = max(float(logits.abs().max()) for logits in before)
    report = VerifyReport(
        check.library,
        examples.source,
        _largest_difference(after, other),
        _largest_difference(before, other),
        largest,
        TOLERANCE * max(1.0, largest),
        (ROUNDED_TOLERANCE if is_rounded else TOLERANCE) * max(1.0, largest),
    )
    _require_close(report)
    return report


def _require_close(report: VerifyReport) -> None:
    for difference, tolerance in (
        (report.difference, report.tolerance),
        (report.own_difference, report.own_tolerance),
    ):
        if not difference <= tolerance:  # not a number: as far apart as can be
            raise ModelError(
                message(
                    "export.other-numbers",
                    "{library} alone comes to other numbers: logits differ by up to {difference:.2g} on {inputs}, "
                    "{tolerance:.2g} is allowed",
                    library=report.library,
                    difference=difference,
                    inputs=report.inputs,
                    tolerance=tolerance,
                ),
                message(
                    "export.other-numbers.hint",
                    "nothing was written; without --verify the folder is, but do not publish it: please report this",
                ),
            )


def _own_side(
    check: ExportCheck[family.FamilyModel, ExampleProcessor],
    folder: Path,
    options: family.LoadOptions,
    examples: CheckExamples | None,
) -> tuple[CheckExamples, list[dict[str, object]], list[Tensor]]:
    """Examples, what the other side is told of each, and their logits; the model is gone afterwards."""
    info = read_checkpoint_info(folder)
    of_family = family.load_family(info.family)
    model, processor = family.read_model_folder(folder, info.task, options)
    device = torch.device(other_library.device())
    prepare_answering(model, "fp32", device)
    model.eval().to(device)
    if examples is None:
        as_stored = of_family.explain is not None and of_family.explain.as_stored(processor)
        examples = find_check_examples(folder, as_stored=as_stored)
    rows = [dict(check.example_row(processor, example)) for example in examples.examples]
    return (
        examples,
        rows,
        [check.own_logits(model, processor, example).float().cpu() for example in examples.examples],
    )


def _other_side(
    check: ExportCheck[family.FamilyModel, ExampleProcessor],
    exported: Path,
    examples: CheckExamples,
    rows: list[dict[str, object]],
    *,
    trust_remote_code: bool,
) -> list[Tensor]:
    with scratch_folder() as folder:
        for number, (example, row) in enumerate(zip(examples.examples, rows, strict=True)):
            image = folder / f"{number}.png"
            assert isinstance(example, AskedExample) and isinstance(example.source, bytes)
            image.write_bytes(example.source)
            row["image"] = str(image)
        write_text(folder / "rows.json", json.dumps(rows))
        write_text(folder / "logits.py", check.code)
        problem = other_library.run_logits_code(exported, folder, trust_remote_code=trust_remote_code)
        try:
            logits = {} if problem else load_file(folder / "logits.safetensors")
        except (SafetensorError, OSError) as error:
            problem = str(error)
    if problem:
        raise ModelError(
            message(
                "export.not-readable-alone",
                "{library} alone cannot read what was exported ({problem})",
                library=check.library,
                problem=problem,
            ),
            message("export.not-readable-alone.hint", "nothing was written; without --verify the folder is"),
        )
    return [logits[str(number)] for number in range(len(rows))]


def _largest_difference(ours: list[Tensor], others: list[Tensor]) -> float:
    """Infinite where shapes differ, or a number is none."""
    differences = [
        float((one - other).abs().max()) if one.shape == other.shape else float("inf")
        for one, other in zip(ours, others, strict=True)
    ]
    return max(float("inf") if value != value else value for value in differences)
