"""Korean after English: text rows carried over, against rows by number as in KoBEiT3, and random ones.

    python bench/carried_rows.py [--quick] [--seeds 3] [--folder DIR]

For every seed a small BEiT-3 first learns English questions about drawn scenes. Then it learns Korean
ones about other scenes with a Korean tokenizer, everything else as it was; only the rows differ:

    carried    a token takes its own row, or the mean of the rows it is spelled with (our default)
    original   id k keeps row k, whatever the token (model.text_rows=original)
    random     all rows drawn from the old table's mean and standard deviation

Mixed Korean names shapes and colours in Latin script in half of the questions ("star는 무슨 색인가요?");
pure Korean shares nothing with English but marks. Pooler and head are kept (both data sets have one
answer list, so the very first loss shows what is understood) or fresh, as KoBEiT3 must have them.
Everything runs through the one loop of `kovqa train` on one thread; every number printed is of a run
just made, and follows from the seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from kovqa_core.data.answers import write_answers
from kovqa_core.demo.questions import NO_ANSWER, YES_ANSWER, KoreanNoun
from kovqa_core.demo.scenes import SHAPE_COLOURS, SHAPE_NAMES, Scene, make_scene, paint_scene
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.index.build import build_index
from kovqa_core.models.beit3.pretrained_weights import TEXT_TABLE_NAME, read_pretrained_weights
from kovqa_core.runs.events import EvaluationEvent, TrainStepEvent
from kovqa_core.runs.summary import read_logged_events
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run
from kovqa_core.tokenizer.train import train_tokenizer
from kovqa_core.train.loop import run_training

LATIN_FRACTION = 0.5  # of the mixed questions name things in Latin script
FIRST_STEPS = 20  # steps whose mean loss is "at first"
ROW_CHOICES = ("carried", "original", "random")
LANGUAGES = ("mixed", "pure")
HEADS = {"kept": "[]", "fresh": "[pooler, head]"}
Setting = tuple[str, str, str]  # language, head, rows

SHAPE = dict(zip(SHAPE_NAMES, ("circle", "triangle", "square", "star", "heart"), strict=True))
COLOUR = dict(zip(SHAPE_COLOURS, ("pink", "blue", "green", "yellow", "purple", "white"), strict=True))
CLASSES = (*SHAPE_NAMES, *SHAPE_COLOURS, YES_ANSWER, NO_ANSWER)
# {a} is a shape, {c} a colour, {n} the word for any shape.
ENGLISH = {
    "colour": (
        "What colour is the {a}?", "Which colour does the {a} have?", "Please tell me the colour of the {a}.",
        "In what colour was the {a} painted?", "The {a} in this picture, what is its colour?",
    ),
    "shape": (
        "What shape is {c}?", "Which {n} is painted {c}?", "What do we call the {c} {n}?",
        "Please name the {c} {n} for me.", "Look at the {c} {n}: which is it?",
    ),
    "exists": (
        "Is there a {c} {a}?", "Can you see any {c} {a} here?", "Does this picture show a {c} {a}?",
        "Would you find a {c} {a} somewhere?",
    ),
}  # fmt: skip
# Said before half of the English questions: they make its vocabulary as large as the Korean one, which by
# number could not take its rows otherwise.
OPENINGS = (
    "In this drawing, ", "Looking closely at everything, ", "My dear friend, ", "Just answer briefly: ",
    "Before we go on, ", "Without guessing, ", "I always wonder: ", "If nobody minds, ", "Once again, ",
    "Think about it slowly. ", "They asked me yesterday: ", "Here comes another question. ",
)  # fmt: skip
KOREAN = {
    "colour": ("{a:은/는} 무슨 색인가요?", "{a}의 색깔은 무엇인가요?", "{a:은/는} 어떤 색으로 칠해져 있나요?"),
    "shape": ("{c} {n:은/는} 무슨 모양인가요?", "{c:으로/로} 칠해진 것은 무엇인가요?", "{c} {n}의 이름은 무엇인가요?"),
    "exists": ("{c} {a:이/가} 있나요?", "그림에 {c} {a:이/가} 보이나요?", "{c} {a:을/를} 찾을 수 있나요?"),
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is learned: images, and optimizer steps of English and of Korean."""

    images: int
    heldout: int
    english: int
    korean: dict[str, int]  # a fresh head needs longer
    every: int  # steps between evaluations
    target: float  # held-out accuracy to be reached


FULL = Sizes(2500, 150, 800, {"kept": 320, "fresh": 800}, 20, 0.8)
QUICK = Sizes(200, 50, 60, {"kept": 40, "fresh": 40}, 20, 0.3)
# A narrow model is enough for two things, and learns them in a minute or two.
NARROW = ("model.size=custom", "model.custom=[64, 4, 3, 192]")


# ------------------------------------------------------------------------------------ questions


def two_thing_scene(rng: random.Random) -> Scene:
    """A scene of two things: a model that does not read which one is meant is right half of the time."""
    while len((scene := make_scene(rng)).things) != 2:
        pass
    return scene


def question_facts(scene: Scene, rng: random.Random) -> list[tuple[str, dict[str, str], str]]:
    """(question type, words, answer) of every question a scene allows, in Korean words."""
    shapes, colours = (Counter(getattr(t, of) for t in scene.things) for of in ("shape", "colour"))
    facts: list[tuple[str, dict[str, str], str]] = []
    if single := [t for t in scene.things if shapes[t.shape] == 1]:
        thing = rng.choice(single)
        facts.append(("colour", {"a": thing.shape}, thing.colour))
    if single := [t for t in scene.things if colours[t.colour] == 1]:
        thing = rng.choice(single)
        facts.append(("shape", {"c": thing.colour}, thing.shape))
    present = sorted({(t.shape, t.colour) for t in scene.things})
    missing = [(s, c) for s in SHAPE_NAMES for c in SHAPE_COLOURS if (s, c) not in present]
    answer = rng.choice((YES_ANSWER, NO_ANSWER))
    shape, colour = rng.choice(present if answer == YES_ANSWER else missing)
    return [*facts, ("exists", {"a": shape, "c": colour}, answer)]


def write_question(language: str, question_type: str, words: dict[str, str], rng: random.Random) -> str:
    """A question in English, in mixed or in pure Korean."""
    latin = {name: {**SHAPE, **COLOUR}[word] for name, word in words.items()} | {"n": "shapes"}
    if language == "english":
        opening = rng.choice(OPENINGS) if rng.random() < 0.5 else ""
        return opening + rng.choice(ENGLISH[question_type]).format(**latin)
    chosen = latin if language == "mixed" and rng.random() < LATIN_FRACTION else {**words, "n": "도형"}
    return rng.choice(KOREAN[question_type]).format(
        **{name: KoreanNoun(word) for name, word in chosen.items()}
    )


def write_language(folder: Path, language: str, scenes: str, sizes: Sizes) -> None:
    """Images, their questions as a table, its index, and a tokenizer of the training sentences."""
    (folder / "images").mkdir(parents=True)
    rows, sentences = [], []
    for number in range(sizes.images + sizes.heldout):
        rng = random.Random(f"{scenes}/{number}")
        scene = two_thing_scene(rng)
        paint_scene(scene, 96).save(folder / "images" / f"{number}.png")
        split = "train" if number < sizes.images else "val"
        for question_type, words, answer in question_facts(scene, rng):
            question = write_question(language, question_type, words, rng)
            row = {"id": f"{number}-{question_type}", "image": f"images/{number}.png", "split": split}
            rows.append({**row, "question": question, "answer": answer})
            sentences += [question] if split == "train" else []
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index("table", folder / "table.jsonl", None, folder / "index", min_count=1)
    write_answers(folder / "index" / "answers.txt", CLASSES)  # in one order, so that a head can be kept
    words = dict.fromkeys(word.strip(".,?:") for text in sentences for word in text.split())
    # In a list every word has a neighbour it also stands without: the trainer makes tokens of them.
    lines = [*dict.fromkeys(sentences), ", ".join(words) + ","]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    train_tokenizer([folder / "text.txt"], folder / "spm.model", 520 if language == "english" else 370)


# ----------------------------------------------------------------------------------------- runs


def train_language(data: Path, folder: Path, steps: int, sizes: Sizes, seed: int, *sets: str) -> Path:
    """Train the tiny recipe on a language; the run folder."""
    options = [
        f"optim.steps={steps}", f"eval.every_steps={sizes.every}", f"log_every={FIRST_STEPS}", f"seed={seed}",
        *NARROW, "optim.warmup_steps=20", "save.keep=1", "profile.threads=1", *sets,
    ]  # fmt: skip
    flags = {"data.index": str(data / "index"), "model.tokenizer": str(data / "spm.model")}
    resolved = resolve_settings("tiny", "cpu", options, flags)
    folder.mkdir()
    run = make_run(resolved.recipe, resolved.profile, folder, [])
    with (folder / "stderr.txt").open("w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        run_training(run, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
    return folder


@dataclass(frozen=True)
class RunOutcome:
    """How a Korean training began and went on."""

    first: float  # mean loss of the first FIRST_STEPS steps
    hundred: float  # ... of the first 100
    reached: int | None  # step of the first evaluation at or above the target
    best: float


def read_outcome(folder: Path, target: float) -> RunOutcome:
    """How a run went, from its log."""
    events = read_logged_events(folder)
    losses = [event.loss for event in events if isinstance(event, TrainStepEvent)]
    scores = [(event.step, event.score) for event in events if isinstance(event, EvaluationEvent)]
    reached = next((step for step, score in scores if score >= target), None)
    return RunOutcome(
        losses[0], statistics.mean(losses[: 100 // FIRST_STEPS]), reached, max(score for _, score in scores)
    )


def write_random_rows(english: Path, output: Path, seed: int) -> None:
    """The weights of a run, with a text table of which only mean and standard deviation are left."""
    weights = read_pretrained_weights(english).tensors
    deviation, mean = torch.std_mean(weights[TEXT_TABLE_NAME], 0)
    noise = torch.randn(weights[TEXT_TABLE_NAME].shape, generator=torch.Generator().manual_seed(seed))
    torch.save({"model": {**weights, TEXT_TABLE_NAME: mean + deviation * noise}}, output)


def run_seed(folder: Path, seed: int, sizes: Sizes) -> dict[Setting, RunOutcome]:
    """English, then every way into Korean."""
    write_language(folder / "english", "english", f"english {seed}", sizes)
    run = train_language(folder / "english", folder / "run", sizes.english, sizes, seed, "optim.lr=2e-3")
    step = run / (run / "best").read_text().strip()
    write_random_rows(step, folder / "random.pth", seed)
    print(f"seed {seed}: English held-out accuracy {read_outcome(run, 0).best:.1%}", flush=True)
    outcomes = {}
    for language in LANGUAGES:
        write_language(folder / language, language, f"korean {seed}", sizes)
    for language, head, rows_from in itertools.product(LANGUAGES, HEADS, ROW_CHOICES):
        weights = folder / "random.pth" if rows_from == "random" else step
        rows = "carried" if rows_from == "carried" else "original"
        sets = (f"model.weights={weights}", f"model.reinit={HEADS[head]}", f"model.text_rows={rows}")
        run_folder = folder / f"{language}-{head}-{rows_from}"
        trained = train_language(folder / language, run_folder, sizes.korean[head], sizes, seed, *sets)
        outcomes[language, head, rows_from] = read_outcome(trained, sizes.target)
        table = (trained / "stderr.txt").read_text("utf-8").split("text table: ")[1].splitlines()[0]
        print(f"  {language} Korean, head {head}, {rows_from} (text table: {table})", flush=True)
    return outcomes


def print_table(results: list[dict[Setting, RunOutcome]], sizes: Sizes) -> None:
    """The table: every seed, then the mean. A target never reached counts as the last step, marked >."""
    names = (f"loss, first {FIRST_STEPS}", "loss, first 100", f"steps to {sizes.target:.0%}", "best")
    print(f"\n{'Korean':7}{'head':6}{'rows':9}" + "".join(f"{name:>27}" for name in names))
    for setting in itertools.product(LANGUAGES, HEADS, ROW_CHOICES):
        runs = [result[setting] for result in results]
        steps = sizes.korean[setting[1]]
        columns = [
            seeds_and_mean([run.first for run in runs], ".2f"),
            seeds_and_mean([run.hundred for run in runs], ".2f"),
            seeds_and_mean([run.reached or steps for run in runs], ".0f", [not r.reached for r in runs]),
            seeds_and_mean([run.best for run in runs], ".1%"),
        ]
        print("{:7}{:6}{:9}".format(*setting) + "".join(f"{column:>27}" for column in columns))


def seeds_and_mean(values: Sequence[float], form: str, beyond: Sequence[bool] = ()) -> str:
    """`1.20 1.40 | 1.30`; values that stand for "more than" are marked."""
    marks = [">" if more else "" for more in beyond] or [""] * len(values)
    each = " ".join(f"{mark}{value:{form}}" for mark, value in zip(marks, values, strict=True))
    return f"{each} | {max(marks)}{statistics.mean(values):{form}}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a minute, to see that it works; its numbers mean nothing"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep everything here; must be new")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else FULL
    root = options.folder or Path(tempfile.mkdtemp(prefix="carried-rows-"))
    root.mkdir(exist_ok=options.folder is None)
    try:
        seeds = range(1, 1 + (1 if options.quick else options.seeds))
        print_table([run_seed(root / str(seed), seed, sizes) for seed in seeds], sizes)
    finally:
        if options.folder is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
