"""A contest of questions with a context, three choices, one of them "unknown": train, abstain, submit.

    python bench/choice_contest.py WORK [--by text|letter] [--steps 350] [--images 4000]

In the form of the Korean contests on bias after BBQ: columns ID, image, context, question, choices (a Python list) and
answer. Each row is about a drawn scene of the demo: "what colour is the star?", with the star's colour, another colour and
"cannot be known". Ambiguous rows show the scene in shades of grey, which no colour can be read from. They are few in
training and half of all in validation and test, so that a model answers too often. Real commands do the rest:
index, train (`tiny-vlm-scratch`), predict the validation rows, evaluate (which proposes `--unknown-below`), predict
the test rows with and without it, submit in the form of a sample of letters. The truth is in a table of its own.

As it stands (7 minutes of training on a busy core), balanced accuracy on the test by whole texts: 70.6 %, with the
validation's P 82.0 %; calibrated 77.8 % and 83.3 %. With 3 % of ambiguous training rows the model says "unknown" by itself:
88.5 % and 86.6 %, calibrated 80.1 % and 85.6 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kovqa_core.data.decoding import CHOICE_LETTERS
from kovqa_core.demo.questions import attach_particle
from kovqa_core.demo.scenes import SHAPE_COLOURS, SHAPE_NAMES, Scene, make_scene, paint_scene

UNKNOWN = ("알 수 없음", "판단할 수 없음", "모름")  # one row says it in this way, another in that
HELDOUT_AMBIGUOUS = 0.5  # of validation and test rows
MOST_THINGS = 2
SIDE = 64  # pixels of an image
TEXT_WAYS = ("--set", "model.choices=false")
LETTER_WAYS = (
    "--set", "model.choices=true", "--set", "model.shuffle_choices=true", "--set", "model.loss=letters",
)  # fmt: skip


def kovqa(*words: object) -> str:
    """What a command prints on stdout."""
    print("$ kovqa", *words, flush=True)
    command = [sys.executable, "-P", "-m", "kovqa_cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def draw_scene(rng: random.Random) -> Scene:
    """A scene of few things, one of which at least has a shape of its own."""
    while True:
        scene = make_scene(rng)
        shapes = [thing.shape for thing in scene.things]
        if len(shapes) <= MOST_THINGS and any(shapes.count(shape) == 1 for shape in shapes):
            return scene


def ask(scene: Scene, rng: random.Random, *, ambiguous: bool) -> dict[str, object]:
    """A question about the colour of one thing, which an ambiguous row's image does not show."""
    shapes = [thing.shape for thing in scene.things]
    unique = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    asked = rng.choice(unique)
    other_shape = rng.choice([name for name in SHAPE_NAMES if name != asked.shape])
    other_colour = rng.choice([colour for colour in SHAPE_COLOURS if colour != asked.colour])
    unknown = rng.choice(UNKNOWN)
    choices = [asked.colour, other_colour, unknown]
    rng.shuffle(choices)
    pair = [asked.shape, other_shape]
    rng.shuffle(pair)
    return {
        "context": f"{attach_particle(pair[0], '와/과')} {attach_particle(pair[1], '이/가')} 있다고 들었습니다.",
        "question": f"{attach_particle(asked.shape, '은/는')} 무슨 색인가요?",
        "choices": str(choices),
        "answer": unknown if ambiguous else asked.colour,
    }


def contest_rows(
    folder: Path, split: str, images: int, ambiguous_share: float
) -> Iterator[dict[str, object]]:
    """Two questions about each image of a split, which is painted below the folder."""
    for number in range(images):
        rng = random.Random(f"{split}/{number}")
        scene, ambiguous = draw_scene(rng), rng.random() < ambiguous_share
        name = f"images/{split}_{number:05}.png"
        image = paint_scene(scene, SIDE)
        (image.convert("L") if ambiguous else image).save(folder / name)
        for turn in range(2):
            row = ask(scene, rng, ambiguous=ambiguous)
            yield {"ID": f"{split.upper()}_{number:05}_{turn}", "image": name, **row, "split": split}


def write_csv(path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str]) -> Path:
    """Some columns of rows."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_contest(folder: Path, images: int, ambiguous: float) -> None:
    """Tables of the contest: what is given, the test's questions, the sample, and the truth."""
    (folder / "images").mkdir(parents=True)
    sizes = {"train": images, "val": images // 12, "test": images // 12}
    shares = {"train": ambiguous, "val": HELDOUT_AMBIGUOUS, "test": HELDOUT_AMBIGUOUS}
    rows = {split: list(contest_rows(folder, split, sizes[split], shares[split])) for split in sizes}
    asked = ["ID", "image", "context", "question", "choices"]
    write_csv(folder / "train.csv", [*rows["train"], *rows["val"]], [*asked, "answer", "split"])
    write_csv(folder / "test.csv", rows["test"], asked)
    write_csv(folder / "truth.csv", rows["test"], [*asked, "answer", "split"])
    write_csv(
        folder / "sample_submission.csv", [{**row, "label": "A"} for row in rows["test"]], ["ID", "label"]
    )


def score_submission(folder: Path, submission: Path) -> float:
    """Balanced accuracy of a submission's letters, counted here without kovqa."""
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as stream:
        truth = {row["ID"]: row for row in csv.DictReader(stream)}
    right: dict[bool, list[bool]] = {False: [], True: []}
    with submission.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            true = truth[row["ID"]]
            choices = json.loads(true["choices"].replace("'", '"'))
            letter = CHOICE_LETTERS[choices.index(true["answer"])]
            right[true["answer"] in UNKNOWN].append(row["label"] == letter)
    return sum(sum(part) / len(part) for part in right.values()) / 2


def main() -> None:
    """Run the contest, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--by", choices=("text", "letter"), default="text")
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--ambiguous", type=float, default=0.005, help="of the training rows")
    words = parser.parse_args()
    work: Path = words.work
    if not (work / "truth.csv").exists():
        write_contest(work, words.images, words.ambiguous)
        kovqa("index", "table", "--root", work / "train.csv", "-o", work / "index", "--min-count", 1)
        kovqa("index", "table", "--root", work / "truth.csv", "-o", work / "truth", "--min-count", 1)
    run, started = work / f"run-{words.by}", time.monotonic()
    if not run.exists():
        ways = LETTER_WAYS if words.by == "letter" else TEXT_WAYS
        kovqa(
            "train", "--recipe", "tiny-vlm-scratch", "--profile", "cpu", "--data", work / "index", "-o", run, *ways,
            "--set", f"optim.steps={words.steps}", "--set", f"eval.every_steps={words.steps}",
        )  # fmt: skip
        print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")
    choose = ("--choices", "--choices-by", words.by)
    rows = []
    for calibrated in (False, True):
        ways = (*choose, *(["--calibrate"] if calibrated else []))
        name = f"{words.by}{'-calibrated' if calibrated else ''}"
        val, test = work / f"val-{name}.jsonl", work / f"test-{name}.jsonl"
        kovqa("predict", "--model", run, "--input", work / "index/val.jsonl", "-o", val, *ways, "--force")
        chosen = json.loads(kovqa("evaluate", val, "--index", work / "index/val.jsonl", "--json"))[
            "abstention"
        ]
        below, scores = chosen["best"]["below"], {}
        for limit in (None, below):
            abstain = () if limit is None else ("--unknown-below", limit)
            kovqa("predict", "--model", run, "--input", work / "test.csv", "-o", test, *ways, *abstain)
            found = json.loads(kovqa("evaluate", test, "--index", work / "truth/test.jsonl", "--json"))[
                "abstention"
            ]
            submission = work / f"submission-{name}.csv"
            kovqa(
                "submit",
                "csv",
                "--predictions",
                test,
                "--sample",
                work / "sample_submission.csv",
                "-o",
                submission,
            )
            counted = score_submission(work, submission)
            assert abs(counted - found["balanced_accuracy"]) < 1e-9, (counted, found)
            scores[limit] = found
        rows.append((name, chosen, below, scores[None], scores[below]))
    print(
        "\n| answers | unknown below (by validation) | val balanced | test without | test with | test clear, ambiguous |"
    )
    print("|---|---|---|---|---|---|")
    for name, chosen, below, without, abstaining in rows:
        print(
            f"| {name} | {below:.3f} | {chosen['balanced_accuracy']:.1%} -> {chosen['best']['balanced']:.1%} "
            f"| {without['balanced_accuracy']:.1%} | {abstaining['balanced_accuracy']:.1%} "
            f"| {abstaining['clear_score']:.1%}, {abstaining['ambiguous_score']:.1%} |"
        )
    print("always 'unknown': 50.0 %; never: 50.0 % at most")


if __name__ == "__main__":
    main()
