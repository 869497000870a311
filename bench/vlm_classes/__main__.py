"""`python -m bench.vlm_classes`: every class tried, and the table of what came of it.

    python -m bench.vlm_classes -o docs/vlm_classes.md       # all: some minutes on one core
    python -m bench.vlm_classes llava qwen3_vl               # some, printed
    python -m bench.vlm_classes llava -o docs/vlm_classes.md # these anew; other rows of the file stay

A package that a class wants and kovqa does not (num2words, scipy) is in the table's reason where it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.files import write_text
from kovqa_core.index.build import build_index

from bench.vlm_classes.tiny_model import CLASS_NAMES
from bench.vlm_classes.trial import STEPS, Trial, try_class

# Classes of the list that were made for something else.
NOT_FOR_QUESTIONS: dict[str, str] = {
    "evolla": "describes proteins, not images",
    "instructblipvideo": "takes videos only",
    "mistral4": "has no vision tower, although it is in the list",
    "pi0": "moves a robot: it writes actions, no text",
    "shieldgemma2": "says whether an image breaks a policy: it writes two scores, no text",
    "vision-encoder-decoder": "puts any two encoders together; it has no processor of its own",
}
_AS_WRITTEN = -1  # of a trial that was read: its reason has its final form
_LIBRARIES = ("transformers", "peft", "torch", "torchvision")


def make_index(folder: Path) -> Path:
    """An index of drawn scenes: 8 to learn from, 2 held out."""
    write_demo_dataset(folder / "raw", 8, 2, 3)
    build_index("aihub", folder / "raw", None, folder / "index")
    return folder / "index"


def try_classes(model_types: Sequence[str], folder: Path) -> Iterator[Trial]:
    """One after the other, each in a folder of its own below `folder`."""
    index = make_index(folder)
    for model_type in model_types:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            trial = try_class(model_type, index, folder / model_type)
        yield trial


def table(trials: Sequence[Trial], day: str) -> str:
    """docs/vlm_classes.md."""
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in _LIBRARIES)
    whole = sum(not trial.reason for trial in trials)
    counts = ", ".join(f"{step} {sum(step in trial.held for trial in trials)}" for step in STEPS)
    lines = [
        "# Image-text-to-text classes",
        "",
        "Made by `python -m bench.vlm_classes -o docs/vlm_classes.md`; not edited by hand.",
        "",
        f"{day}, {versions}. Of the {len(trials)} classes of `AutoModelForImageTextToText`, {whole} hold every step "
        f"({counts}).",
        "",
        "A tiny random model of each class, with its own processor, goes through kovqa's own code, on a CPU:",
        "",
        "* **answers**: its first token depends on the image and on the question, in 32 bits; in 16 bits it answers;",
        "* **batch = alone**: four questions about images of four shapes get the same answers and scores together as one by "
        "one;",
        "* **trains** (LoRA, three steps): the loss of a batch is that of its rows one by one, and of the logits of all "
        "positions; no logit depends on a later token; what was saved is what is loaded;",
        "* **resumes**: stopped after a step and taken up again, it ends with the same bits;",
        "* **merges**: exported, and opened by transformers alone, it has the same logits, and not the base's.",
        "",
        "Random weights say nothing about a model's answers. A reason in *italics* is what kovqa says in one line before "
        "it answers or trains.",
        "",
        "| model_type | class | " + " | ".join(STEPS) + " | why not |",
        "|---|---|" + "---|" * len(STEPS) + "---|",
    ]
    for trial in sorted(trials, key=lambda trial: (trial.reason != "", trial.model_type)):
        marks = ["yes" if step in trial.held else "–" for step in STEPS]
        lines.append(f"| {trial.model_type} | {trial.class_name} | {' | '.join(marks)} | {_reason(trial)} |")
    return "\n".join(lines) + "\n"


def read_table(path: Path) -> dict[str, Trial]:
    """What `table` wrote: model_type -> what came of it."""
    trials = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == len(STEPS) + 3 and cells[0] in CLASS_NAMES:
            held = [step for step, cell in zip(STEPS, cells[2:], strict=False) if cell == "yes"]
            trials[cells[0]] = Trial(cells[0], cells[1], held, cells[-1], parameters=_AS_WRITTEN)
    return trials


def _reason(trial: Trial) -> str:
    if trial.parameters == _AS_WRITTEN:
        return trial.reason
    reason = " ".join(trial.reason.replace("|", "\\|").replace("<", "&lt;").split())
    said = f"*{reason}*" if trial.refused else reason
    return "; ".join(filter(None, [NOT_FOR_QUESTIONS.get(trial.model_type, "") if reason else "", said]))


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_types", nargs="*", metavar="TYPE", help="as in config.json; none: all")
    parser.add_argument("-o", "--output", type=Path, help="write the table there")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    known = read_table(arguments.output) if arguments.output and arguments.model_types else {}
    with tempfile.TemporaryDirectory() as folder:
        for trial in try_classes(arguments.model_types or list(CLASS_NAMES), Path(folder)):
            known[trial.model_type] = trial
            print(f"{trial.model_type}: {trial.reason or 'whole'}", file=sys.stderr, flush=True)
    text = table(list(known.values()), datetime.datetime.now(datetime.UTC).date().isoformat())
    if arguments.output:
        write_text(arguments.output, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
