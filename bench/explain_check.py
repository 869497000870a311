"""Do the maps of `kovqa explain` mean something? On drawn scenes, where the places of things are known.

    python bench/explain_check.py RUN [--task caption] [--method rollout] [--questions 200] [--seed 0]

RUN was trained on the demo's scenes; the scenes here are others, and the questions are in the wordings that no training
question has. Of every question that is about one thing (of a caption: about all things) and that the model answers
rightly, the tenth of the image that matters most is marked. It is asked:

a. how often the middle of the thing (of a caption: of any thing) lies in the marked tenth; beside it how often in 20
   others of its shape (chance) and in the fixed tenth at the image's centre (docs/sources/explain.md, X5), and how often
   the middle of another thing of the scene lies in the marked one;
b. how often a blur on the marked tenth takes more of the answer's log-odds than the median of a blur on those 20; it was
   searched with another cover, the mean colour (X2 and X6);
c. the same of a model whose weights are shuffled, each tensor by itself, and of the same questions and answers (X7).

A map that kovqa itself doubts claims nothing: it counts as a miss in a and b. Each comparison is by question, and counts as
held where its mean is more than 2.33 standard errors above none (1 %).
The exit code is 1 where a or b does not hold, or where the shuffled model passes both.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import LoadedModel, load_model
from kovqa_core.demo.captions import scene_captions
from kovqa_core.demo.questions import ask_questions
from kovqa_core.demo.scenes import IMAGE_SIDE, SceneObject, make_scene, paint_scene
from kovqa_core.explain import covers
from kovqa_core.explain.explanation import ask_image, rollout_heat
from kovqa_core.explain.occlusion import (
    AskedImage,
    find_disagreement,
    find_flatness,
    mark_hottest,
    occlusion_heat,
)

CONTROLS = 20
SURE = 2.33  # standard errors


@dataclass(frozen=True)
class SceneQuestion:
    """A question about a drawn scene, and the things that it is about."""

    image: bytes
    question: str
    answers: Sequence[str]
    asked: Sequence[SceneObject]
    others: Sequence[SceneObject]


@dataclass(frozen=True)
class MapCheck:
    """What became of one map."""

    hit: bool
    hit_by_chance: float
    hit_by_centre: bool
    hit_other: float  # nan: there is no other thing
    above: bool
    drop: float
    drop_elsewhere: float
    doubted: bool


def draw_questions(task: str, seed: int) -> Iterator[SceneQuestion]:
    """One question a scene, without end."""
    number = 0
    while True:
        number += 1
        rng = random.Random(f"explain {seed}/{number}")
        scene = make_scene(rng)
        buffer = io.BytesIO()
        paint_scene(scene).save(buffer, "PNG")
        if task == "caption":
            yield SceneQuestion(buffer.getvalue(), "", scene_captions(scene), scene.things, ())
            continue
        questions = [each for each in ask_questions(scene, rng, heldout=True) if len(each.asked) == 1]
        if questions:
            chosen = rng.choice(questions)
            others = [thing for thing in scene.things if thing not in chosen.asked]
            yield SceneQuestion(buffer.getvalue(), chosen.question, [chosen.answer], chosen.asked, others)


def answered_rightly(
    loaded: LoadedModel, task: str, count: int, seed: int
) -> tuple[list[tuple[SceneQuestion, str]], int]:
    """So many questions with the answers that the model gives, and how many it answered wrongly meanwhile."""
    right, wrong = list[tuple[SceneQuestion, str]](), 0
    for question in draw_questions(task, seed):
        given, _ = ask_image(loaded, question.image, question.question, method="occlusion")
        if given.text in question.answers:
            right.append((question, given.text))
        else:
            wrong += 1
        if len(right) == count or wrong > 20 * count:
            return right, wrong
    raise AssertionError("scenes have no end")


def check_map(asked: AskedImage, question: SceneQuestion, method: str, rng: np.random.Generator) -> MapCheck:
    """A map, and what blurring its marked tenth does."""
    doubt = None
    if method == "rollout":
        heat = rollout_heat(asked)
    else:
        heat, largest = occlusion_heat(asked)
        doubt = find_flatness(largest)
    doubt = doubt or find_disagreement(asked, heat)
    marked, side = mark_hottest(heat), covers.GRID_SIDE
    elsewhere = [np.roll(marked, rng.integers(0, side, 2), (0, 1)) for _ in range(CONTROLS)]
    centre = np.zeros((side, side), bool)
    centre[6:11, 6:11] = True
    cells, other_cells = (
        [(int(thing.y * side / IMAGE_SIDE), int(thing.x * side / IMAGE_SIDE)) for thing in things]
        for things in (question.asked, question.others)
    )
    hits = [any(place[cell] for cell in cells) for place in (marked, centre, *elsewhere)]
    drops = asked.covered_drops(covers.blur_cover(asked.pixels), [marked, *elsewhere])
    claims = doubt is None
    return MapCheck(
        hit=claims and hits[0],
        hit_by_chance=float(np.mean(hits[2:])),
        hit_by_centre=hits[1],
        hit_other=float(np.mean([claims and marked[cell] for cell in other_cells]))
        if other_cells
        else float("nan"),
        above=claims and bool(drops[0] > np.median(drops[1:])),
        drop=float(drops[0]),
        drop_elsewhere=float(np.median(drops[1:])),
        doubted=not claims,
    )


def check_maps(
    loaded: LoadedModel, questions: Sequence[tuple[SceneQuestion, str]], method: str, seed: int
) -> list[MapCheck]:
    """Of every question."""
    rng = np.random.default_rng(seed)
    checks = []
    for question, answer in questions:
        _, asked = ask_image(loaded, question.image, question.question, method=method, answer=answer)
        checks.append(check_map(asked, question, method, rng))
    return checks


def shuffle_weights(model: torch.nn.Module, seed: int) -> None:
    """Every tensor keeps its numbers, and loses their places."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = parameter.data.flatten()
        parameter.data.copy_(values[torch.randperm(len(values), generator=generator)].view_as(parameter))


def is_surely_positive(differences: Sequence[float]) -> bool:
    """Is the mean so many standard errors above 0?"""
    mean, deviation = np.mean(differences), np.std(differences, ddof=1)
    return bool(mean > SURE * deviation / np.sqrt(len(differences)))


def holds(checks: Sequence[MapCheck]) -> tuple[bool, bool]:
    """Do a and b hold?"""
    beside = (
        [c.hit_by_chance for c in checks],
        [c.hit_by_centre for c in checks],
        [c.hit_other for c in checks],
    )
    differences = [
        [
            float(check.hit) - other
            for check, other in zip(checks, others, strict=True)
            if not math.isnan(other)
        ]
        for others in beside
    ]
    points = all(is_surely_positive(each) for each in differences if each)
    return points, is_surely_positive([c.above - 0.5 for c in checks])


COLUMNS = (("hit", "a. hits"), ("hit_by_chance", "chance"), ("hit_by_centre", "centre"), ("hit_other", "other"),
           ("above", "b. above"), ("drop", "lost"), ("drop_elsewhere", "median"), ("doubted", "doubted"))  # fmt: skip
LOG_ODDS = ("drop", "drop_elsewhere")


def print_checks(name: str, checks: Sequence[MapCheck]) -> None:
    """One line of the table."""
    cells = []
    for field, _ in COLUMNS:
        values = [value for c in checks if not math.isnan(value := float(getattr(c, field)))]
        mean = float(np.mean(values)) if values else math.nan
        cells.append(f"{mean:10.2f}" if field in LOG_ODDS else f"{mean:10.1%}" if values else f"{'':10}")
    points, lowers = (("fails", "holds")[held] for held in holds(checks))
    print(f"{name:10}{''.join(cells)}   a {points}, b {lowers}", flush=True)


def main() -> int:
    """Check a run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", default="vqa", choices=("vqa", "caption"))
    parser.add_argument("--method", default="occlusion", choices=("occlusion", "rollout"))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = AnswerOptions(arguments.run, arguments.task)
    loaded = load_model(options)
    questions, wrong = answered_rightly(loaded, arguments.task, arguments.questions, arguments.seed)
    print(
        f"{arguments.run}, {arguments.method}: {len(questions)} questions answered rightly, {wrong} wrongly and left out"
    )
    if len(questions) < arguments.questions:
        print("too weak a model to be checked")
        return 1
    print(" " * 10 + "".join(f"{heading:>10}" for _, heading in COLUMNS))
    began = time.perf_counter()
    trained = check_maps(loaded, questions, arguments.method, arguments.seed)
    seconds = (time.perf_counter() - began) / len(questions)
    print_checks("trained", trained)
    shuffled = load_model(options)
    shuffle_weights(shuffled.model, arguments.seed)
    random_checks = check_maps(shuffled, questions, arguments.method, arguments.seed)
    print_checks("shuffled", random_checks)
    print(f"{seconds:.2f} s a map and its check")
    return 0 if all(holds(trained)) and not all(holds(random_checks)) else 1


if __name__ == "__main__":
    sys.exit(main())
