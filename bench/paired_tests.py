"""How often the paired tests of `kovqa evaluate --against` find a difference between two models that are equally good.

At the 5 % level it should be 5 in 100. Beside the two tests that kovqa has stand three that it might have: studentised
draws for the bootstrap, McNemar's test over rows where images are asked about more than once, and the mid-p value.

    python bench/paired_tests.py --pairs 10000 --draws 1000
    python bench/paired_tests.py --pairs 10000 --draws 10000 --shape "1 question"

`evaluate` makes 10,000 draws. With 1,000 it is half an hour on one core, and differs only for one question an image,
where few p values are possible and more draws tell apart those about 5 %. Each pair has draws of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from kovqa_core.evaluate import confidence_intervals, paired_tests
from kovqa_core.evaluate.confidence_intervals import bootstrap_sums
from kovqa_core.evaluate.paired_tests import binomial_p, mcnemar_test, paired_bootstrap

LEVEL = 0.05
METHODS = ("bootstrap", "studentised", "McNemar", "over rows", "mid-p")
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores of A, scores of B, image numbers; each [rows]


def _one_question(images: int, rng: np.random.Generator) -> Pair:
    """Both models find the same questions hard."""
    ease = rng.beta(2, 1, images)
    a, b = (rng.random((2, images)) < ease).astype(float)
    return a, b, np.arange(images)


def _rarely_different(images: int, rng: np.random.Generator) -> Pair:
    """One question an image, of which one in twenty is answered otherwise."""
    base, flips = rng.random(images) < 0.7, rng.random((2, images)) < 0.025
    a, b = (base ^ flips).astype(float)
    return a, b, np.arange(images)


def _several_questions(images: int, rng: np.random.Generator, *, correlated: bool, even: bool) -> Pair:
    """Six questions an image, or 1 to 11; correlated: each model finds some images hard as a whole."""
    questions = np.full(images, 6) if even else rng.integers(1, 12, images)
    numbers = np.repeat(np.arange(images), questions)
    if correlated:
        ease = rng.beta(2, 1, images) + rng.normal(0, 0.3, (2, images))
        a, b = (rng.random((2, len(numbers))) < np.clip(ease, 0, 1)[:, numbers]).astype(float)
    else:
        a, b = (rng.random((2, len(numbers))) < rng.beta(2, 1, len(numbers))).astype(float)
    return a, b, numbers


def _soft_scores(images: int, rng: np.random.Generator) -> Pair:
    """Ten annotators: min(1, 0.3 k) for the k who agree."""
    ease = rng.beta(2, 1, images)
    a, b = np.minimum(1, 0.3 * rng.binomial(10, 0.6 * ease, (2, images))) * (rng.random((2, images)) < 0.8)
    return a, b, np.arange(images)


SHAPES: dict[str, Callable[[int, np.random.Generator], Pair]] = {
    "1 question an image": _one_question,
    "1 question, 5 % differ": _rarely_different,
    "6 questions": partial(_several_questions, correlated=False, even=True),
    "6 questions, correlated": partial(_several_questions, correlated=True, even=True),
    "1-11 questions, correlated": partial(_several_questions, correlated=True, even=False),
    "soft scores": _soft_scores,
}


def p_values(pair: Pair, draws: int) -> Iterator[float]:
    """The p value of each of `METHODS`."""
    a, b, numbers = pair
    test = mcnemar_test(a >= 0.5, b >= 0.5, numbers)
    yield paired_bootstrap(a, b, numbers).p
    yield _studentised_p(a, b, numbers, draws)
    yield test.p
    yield binomial_p(test.a_only, test.b_only)
    # The mid-p value counts what was seen by half: the mean of two neighbours among the exact ones.
    fewer, more = sorted((test.a_better, test.b_better))
    seen, beyond = binomial_p(fewer, more), binomial_p(fewer - 1, more + 1) if fewer else 0.0
    yield (seen + beyond) / 2


def _studentised_p(a: np.ndarray, b: np.ndarray, numbers: np.ndarray, draws: int) -> float:
    """The two-sided p value of a symmetric studentised bootstrap over images."""
    sums, rows = np.bincount(numbers, weights=np.round(a - b, 9)).round(9), np.bincount(numbers)
    table = np.stack([sums, rows, sums * sums, sums * rows, rows * rows], axis=1)

    def mean_and_error(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = totals[..., 0] / totals[..., 1]
        square = totals[..., 2] - 2 * mean * totals[..., 3] + mean * mean * totals[..., 4]
        return mean, np.sqrt(square.clip(0) * len(rows) / (len(rows) - 1)) / totals[..., 1]

    mean, error = mean_and_error(table.sum(axis=0))
    if error == 0:
        return 1.0
    means, errors = mean_and_error(bootstrap_sums(table, draws))
    # Without an error of its own a draw says nothing against equality.
    far = np.abs(means - mean) * error >= abs(mean) * errors - 1e-12
    return float(1 + far.sum()) / (1 + draws)


def false_positives(shape: str, images: int, pairs: int, draws: int, seed: int = 0) -> dict[str, float]:
    """By method: the share of equal pairs whose difference it takes for real."""
    rng = np.random.default_rng(seed)
    found = np.zeros(len(METHODS))
    for number in range(pairs):
        confidence_intervals.BOOTSTRAP_SEED = number
        found += np.array(list(p_values(SHAPES[shape](images, rng), draws))) <= LEVEL
    return dict(zip(METHODS, found / pairs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=1000, help="of a bootstrap; evaluate has 10,000")
    parser.add_argument("--shape", default="", help="only shapes whose names have this")
    arguments = parser.parse_args()
    paired_tests.PAIRED_DRAWS = arguments.draws
    print(f"{'':28} images " + "".join(f"{name:>13}" for name in METHODS))
    for shape in (name for name in SHAPES if arguments.shape in name):
        for images in (100, 2000):
            began = time.perf_counter()
            shares = false_positives(shape, images, arguments.pairs, arguments.draws)
            cells = "".join(f"{share:13.2%}" for share in shares.values())
            print(f"{shape:28} {images:6,} {cells}   {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
