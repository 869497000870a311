"""Scores of captions: BLEU-1 to 4, ROUGE-L and CIDEr-D, to the last digit those of pycocoevalcap.

METEOR and SPICE are not here: the official programs are Java, and what Python packages offer under
METEOR's name is another version of it, some points away (docs/sources/beit3.md, B48).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kovqa_core.errors import DataError
from kovqa_core.evaluate import MAIN_CAPTION_METRIC
from kovqa_core.evaluate.caption_tokens import CAPTION_TOKENISERS, choose_tokeniser
from kovqa_core.evaluate.confidence_intervals import bootstrap_sums, percentile_interval
from kovqa_core.messages import message

MAX_NGRAM_ORDER = 4  # n-grams of 1 to 4 tokens
METRICS_LEFT_OUT = message(
    "evaluate.metrics-left-out",
    "METEOR and SPICE are left out: only the official Java programs compute them",
)

TokenList = list[str]
NgramCounts = Counter[tuple[str, ...]]


@dataclass(frozen=True)
class CaptionMetric:
    """One metric: its value for the whole set, the 95 % interval (bootstrap over images), and each image's."""

    name: str
    score: float
    low: float
    high: float
    each: np.ndarray


@dataclass(frozen=True)
class CaptionScores:
    """What `score_captions` returns: the rule that made tokens (`caption_tokens`), and the metrics by name."""

    tokens: str
    rows: int
    metrics: dict[str, CaptionMetric]

    @property
    def main(self) -> CaptionMetric:
        """The one number that stands for all, where only one is shown."""
        return self.metrics[MAIN_CAPTION_METRIC]


def score_captions(
    ids: Sequence[str], references: Sequence[Sequence[str]], captions: Sequence[str], tokens: str = "auto"
) -> CaptionScores:
    """Scores of one caption an image against the captions people wrote.

    Args:
        ids: one an image, for messages.
        references: at least one text an image.
        captions: of the model; may be empty texts.
        tokens: rule of `caption_tokens`: auto, english, korean or words.

    Returns:
        The metrics CIDEr, BLEU-1 to BLEU-4, ROUGE-L, and exact, the fraction of captions that are one of
        the references, token by token; CIDEr goes to 10, the others to 1.

    Raises:
        DataError: an image without references, or one that has no token; it names the id.
        SettingsError: an unknown rule for tokens.
    """
    rule = choose_tokeniser(tokens, (text for texts in references for text in texts))
    tokenise = CAPTION_TOKENISERS[rule]
    reference_tokens = [[tokenise(text) for text in texts] for texts in references]
    for id, texts in zip(ids, reference_tokens, strict=True):
        if not texts or not all(texts):
            raise DataError(
                message("evaluate.empty-reference", "id {id}: a reference caption is empty", id=id),
                message("evaluate.empty-reference.hint", "remove it from the index"),
            )
    hypotheses = [tokenise(text) for text in captions]
    pairs = list(zip(hypotheses, reference_tokens, strict=True))
    metrics = [_mean_metric("CIDEr", cider_d_scores(hypotheses, reference_tokens))]
    # BLEU is not a mean over images: its counts are summed over a sample first, then divided.
    counts = np.array([bleu_counts(hypothesis, texts) for hypothesis, texts in pairs])  # [images, 2 + 2 · 4]
    drawn = bleu_scores(bootstrap_sums(counts))
    overall, each = bleu_scores(counts.sum(axis=0)), bleu_scores(counts)
    for n in range(MAX_NGRAM_ORDER):
        low, high = percentile_interval(drawn[:, n])
        metrics.append(CaptionMetric(f"BLEU-{n + 1}", float(overall[n]), low, high, each[:, n]))
    metrics.append(_mean_metric("ROUGE-L", np.array([rouge_l(*pair) for pair in pairs])))
    exact = [hypothesis in texts for hypothesis, texts in pairs]
    metrics.append(_mean_metric("exact", np.array(exact, float)))
    return CaptionScores(rule, len(hypotheses), {metric.name: metric for metric in metrics})


def _mean_metric(name: str, each: np.ndarray) -> CaptionMetric:
    """A metric that is the mean over images."""
    # A column of one: the draws are of images, and their number is the same in each.
    means = bootstrap_sums(each[:, None])[:, 0] / len(each)
    return CaptionMetric(name, float(each.mean()), *percentile_interval(means), each)


def count_ngrams(tokens: TokenList) -> NgramCounts:
    """How often each n-gram of 1 to 4 tokens occurs."""
    return Counter(
        tuple(tokens[i : i + n]) for n in range(1, MAX_NGRAM_ORDER + 1) for i in range(len(tokens) - n + 1)
    )


# ------------------------------------------------------------------------------------ BLEU


def bleu_counts(hypothesis: TokenList, references: Sequence[TokenList]) -> list[int]:
    """What BLEU adds up over images: length, length of the closest reference, then for every n the
    n-grams that a reference has too (not more often than it has them), then for every n all n-grams."""
    most: NgramCounts = Counter()
    for reference in references:
        # `|` takes the larger count: an n-gram may match as often as the reference that has it most.
        most |= count_ngrams(reference)
    matches = Counter(len(ngram) for ngram in (count_ngrams(hypothesis) & most).elements())
    length = len(hypothesis)
    # Of two references equally far off, the shorter one, as in the toolkit.
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    orders = range(1, MAX_NGRAM_ORDER + 1)
    return [length, closest, *(matches[n] for n in orders), *(max(0, length - n + 1) for n in orders)]


def bleu_scores(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to 4 (last axis) from sums of `bleu_counts` (last axis), with the toolkit's tiny numbers."""
    length, closest = counts[..., :1], counts[..., 1:2]
    right, all_of_them = counts[..., 2 : 2 + MAX_NGRAM_ORDER], counts[..., 2 + MAX_NGRAM_ORDER :]
    # pycocoevalcap's own tiny numbers (docs/sources/beit3.md, B48): a caption of fewer than n tokens would divide by 0.
    precision = np.cumprod((right + 1e-15) / (all_of_them + 1e-9), axis=-1)
    ratio = (length + 1e-15) / (closest + 1e-9)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return precision ** (1 / np.arange(1, MAX_NGRAM_ORDER + 1)) * brevity


# ---------------------------------------------------------------------------------- ROUGE-L


def rouge_l(hypothesis: TokenList, references: Sequence[TokenList]) -> float:
    """F-measure (beta 1.2) of the best precision and the best recall of the longest common subsequence."""
    common = [lcs_length(hypothesis, reference) for reference in references]
    if not any(common):
        return 0.0
    # Best precision and best recall may come from two references: so does the toolkit.
    precision = max(common) / len(hypothesis)
    recall = max(n / len(reference) for n, reference in zip(common, references, strict=True))
    weight = 1.2**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def lcs_length(a: TokenList, b: TokenList) -> int:
    """Length of the longest common subsequence.

    A row of the usual table, L[j] for the prefixes of `a`, grows by 0 or 1 from j to j + 1. So the whole row is
    one integer: bit j is 0 where it grows (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"). The
    addition carries through a run of ones up to the next growth, which moves that growth down to the first match:
    a column of the table in three operations, whatever the length of `a`.
    """
    positions: dict[str, int] = defaultdict(int)
    for i, token in enumerate(a):
        positions[token] |= 1 << i
    all_ones = (1 << len(a)) - 1
    row = all_ones
    for token in b:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & all_ones
    return len(a) - row.bit_count()


# ----------------------------------------------------------------------------------- CIDEr


def cider_d_scores(hypotheses: Sequence[TokenList], references: Sequence[Sequence[TokenList]]) -> np.ndarray:
    """CIDEr-D of every image (Vedantam 2015), 0…10: cosine of n-gram weights, rare ones counting more.

    How rare an n-gram is, is learned from the references of all images; so the score of one image alone
    is 0.
    """
    document_counts: NgramCounts = Counter()  # in how many images' references an n-gram stands
    counted = [[count_ngrams(reference) for reference in texts] for texts in references]
    for texts in counted:
        document_counts.update(set().union(*texts))
    # An n-gram that no reference has counts as one that a single image has: the toolkit's max(1, df).
    log_images = math.log(len(references))
    idf = defaultdict(lambda: log_images, {n: log_images - math.log(k) for n, k in document_counts.items()})
    return np.array([
        _cider_d_score(_tfidf_vector(count_ngrams(tokens), idf), [_tfidf_vector(text, idf) for text in texts])
        for tokens, texts in zip(hypotheses, counted, strict=True)
    ])  # fmt: skip


@dataclass(frozen=True)
class _TfidfVector:
    """tf-idf of a text's n-grams; by n: their Euclidean norm; the number of its bigrams."""

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    bigrams: int


def _tfidf_vector(counts: NgramCounts, idf: dict[tuple[str, ...], float]) -> _TfidfVector:
    weights = {ngram: n * idf[ngram] for ngram, n in counts.items()}
    squares = [0.0] * MAX_NGRAM_ORDER
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight * weight
    bigrams = sum(n for ngram, n in counts.items() if len(ngram) == 2)
    return _TfidfVector(weights, [math.sqrt(square) for square in squares], bigrams)


def _cider_d_score(hypothesis: _TfidfVector, references: Sequence[_TfidfVector]) -> float:
    total = 0.0
    for reference in references:
        common = [0.0] * MAX_NGRAM_ORDER
        for ngram, weight in hypothesis.weights.items():
            if other := reference.weights.get(ngram, 0.0):
                # Clipped at the reference's weight: repeating a rare word does not raise the score (the D of CIDEr-D).
                common[len(ngram) - 1] += min(weight, other) * other
        # The toolkit takes the number of bigrams for the length; sigma is 6.
        damped = math.exp(-((hypothesis.bigrams - reference.bigrams) ** 2) / 72)
        norms = [a * b for a, b in zip(hypothesis.norms, reference.norms, strict=True)]
        total += damped * sum(c / norm if norm else c for c, norm in zip(common, norms, strict=True))
    return 10 * total / MAX_NGRAM_ORDER / len(references)
