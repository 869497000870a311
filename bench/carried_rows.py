"""What carried-over text rows are worth: an English BEiT-3 learns Korean, with them and without.

    python bench/carried_rows.py [--quick] [--folder DIR]

A tiny BEiT-3 learns to answer English questions about drawn scenes. Then it learns Korean answers to
Korean questions about other scenes, with a Korean tokenizer, in two ways: rows carried over from the
English pieces (`model.text_rows: carried`), and the original's way, row k for id k (`kept`). Two
kinds of Korean are tried: mixed, where half of the questions name shapes and colours in Latin letters
("red circle은 몇 개인가요?"), as loan words, signs and brands come in real questions; and pure, which
shares nothing with English but a question mark.

Everything goes through the commands a user has. Shown, for every seed: the mean training loss of
the first steps, and the optimizer steps until the held-out accuracy reaches the target.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.demo.scenes import COLOURS, Scene, Thing, make_scene, paint

SHAPES = {"원": "circle", "삼각형": "triangle", "사각형": "square", "별": "star", "하트": "heart"}
TINTS = dict(zip(COLOURS, ("pink", "blue", "green", "yellow", "purple", "white"), strict=True))
COUNTS = ("하나", "둘", "셋", "넷", "다섯")
SIDES = ("왼쪽", "가운데", "오른쪽"), ("left", "middle", "right")
MIXED_SHARE = 0.5  # of the questions of the mixed kind that name things in Latin letters


@dataclass(frozen=True)
class Words:
    """Questions of one language: its names of things, and a question of each kind."""

    shape: Callable[[Thing], str]
    colour: Callable[[Thing], str]
    ask_colour: str
    ask_shape: str
    ask_side: str
    ask_exists: str
    ask_count: str


LATIN = (lambda t: SHAPES[t.shape], lambda t: TINTS[t.colour])
ENGLISH = Words(
    *LATIN, "What colour is the {shape}?", "Which shape is {colour}?", "Where is the {shape}?",
    "Is there a {colour} {shape}?", "How many {shape} shapes are there?",
)  # fmt: skip
KOREAN = (
    "{shape}의 색깔은 무엇인가요?", "{colour} 도형의 모양은 무엇인가요?", "{shape}은 어디에 있나요?",
    "{colour} {shape}이 보이나요?", "{shape}은 모두 몇 개인가요?",
)  # fmt: skip
PURE = Words(lambda t: t.shape, lambda t: t.colour, *KOREAN)
LOANS = Words(*LATIN, *KOREAN)


def ask(scene: Scene, words: Words, korean: bool, rng: random.Random) -> tuple[str, str]:
    """One question with a clear answer."""
    things = scene.things
    one = rng.choice(things)
    other = Thing(**{**vars(rng.choice(things)), "colour": rng.choice(list(TINTS))})
    alike = [t for t in things if t.shape == one.shape]
    tinted = [t for t in things if t.colour == one.colour]
    names = {"shape": words.shape(one), "colour": words.colour(one)}
    options = [(words.ask_count, COUNTS[len(alike) - 1] if korean else str(len(alike)))]
    if len(alike) == 1:
        options += [
            (words.ask_colour, one.colour if korean else TINTS[one.colour]),
            (words.ask_side, SIDES[0 if korean else 1][one.column]),
        ]
    if len(tinted) == 1:
        options.append((words.ask_shape, one.shape if korean else SHAPES[one.shape]))
    if rng.random() < 0.25:
        asked = one if rng.random() < 0.5 else other
        there = any((t.shape, t.colour) == (asked.shape, asked.colour) for t in things)
        text = words.ask_exists.format(shape=words.shape(asked), colour=words.colour(asked))
        return text, (("예", "아니요") if korean else ("yes", "no"))[not there]
    form, answer = rng.choice(options)
    return form.format(**names), answer


def write(folder: Path, kind: str, pictures: int, seed: int) -> Path:
    """Pictures and a table of questions, indexed; the index folder."""
    (folder / "images").mkdir(parents=True)
    lines, sentences = [], dict[str, None]()
    for number in range(pictures):
        rng = random.Random(f"{kind}/{seed}/{number}")
        scene = make_scene(rng)
        paint(scene, 96).save(folder / "images" / f"{number}.png")
        held_out = number % 10 == 0
        for turn in range(3):
            latin = kind == "mixed" and rng.random() < MIXED_SHARE
            words = ENGLISH if kind == "english" else LOANS if latin else PURE
            question, answer = ask(scene, words, kind != "english", rng)
            if not held_out:
                sentences[question] = sentences[answer] = None
            lines.append({"id": f"{number}-{turn}", "image": f"{number}.png", "question": question,
                          "answer": answer, "split": "val" if held_out else "train"})  # fmt: skip
    table = folder / "questions.jsonl"
    table.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    words_ = list(dict.fromkeys(word.strip("?") for text in sentences for word in text.split()))
    (folder / "text.txt").write_text("\n".join([*sentences, ", ".join(words_) + ","]), "utf-8")
    index = folder / "index"
    kovqa("index", "table", "--root", table, "--images", folder / "images", "-o", index)
    kovqa("tokenizer", "train", folder / "text.txt", "-o", folder / "tokenizer.model", "--vocab-size", 500)
    return index


def kovqa(*words: object) -> None:
    """Run a command as a user would."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kovqa_cli", *map(str, words), "-q"], stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONSAFEPATH": "1"}, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"kovqa {words[0]} ended with {done.returncode}")


def train(folder: Path, data: Path, run: str, steps: int, seed: int, *sets: str) -> Path:
    """Train the tiny recipe; the run folder."""
    options = [
        f"optim.steps={steps}", f"optim.warmup_steps={steps // 20}", "eval.every_steps=50", "save.keep=1", "log_every=10",
        f"seed={seed}", "data.augment=none", *sets,
    ]  # fmt: skip
    words = [word for option in options for word in ("--set", option)]
    kovqa("train", "-r", "tiny", "-p", "cpu", "--data", data, "--tokenizer", data.parent / "tokenizer.model",
          "-o", folder / run, *words)  # fmt: skip
    return folder / run


def curve(run: Path) -> tuple[float, dict[int, float]]:
    """(mean loss of the first 20 steps, step -> held-out accuracy)."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    first = [event["loss"] for event in events if event["kind"] == "train" and event["step"] <= 20]
    return statistics.mean(first), {e["step"]: e["score"] for e in events if e["kind"] == "eval"}


def main() -> None:
    """Train, compare, print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few steps: shows that it runs, not what is better"
    )
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.7, help="held-out accuracy to be reached")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp())
    pictures, english_steps, steps = (200, 60, 60) if asked.quick else (4000, 4000, 1500)
    english = write(folder / "english", "english", pictures, 0)
    base = train(folder, english, "run-english", english_steps, 0, "model.vocab=600")
    print(f"English: accuracy {max(curve(base)[1].values()):.1%} after {english_steps} steps", flush=True)
    print("| Korean | seed | rows | loss of the first 20 steps | "
          f"steps to {asked.target:.0%} | accuracy after {steps} steps |\n|---|---|---|---|---|---|")  # fmt: skip
    for kind in ("mixed", "pure"):
        index = write(folder / kind, kind, pictures, 1)
        for seed in range(1, asked.seeds + 1):
            for rows in ("carried", "kept"):
                sets = [f"model.weights={base}", "model.fresh=[pooler, head]", f"model.text_rows={rows}"]
                loss, scores = curve(train(folder, index, f"{kind}-{seed}-{rows}", steps, seed, *sets))
                reached = min((step for step, score in scores.items() if score >= asked.target), default=None)
                print(f"| {kind} | {seed} | {rows} | {loss:.3f} | {reached or 'never'} | "
                      f"{scores[max(scores)]:.1%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
