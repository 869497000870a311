"""Published Korean benchmarks: where each comes from, and by which protocol its answers are scored. Light.

Sources: docs/sources/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of a row's columns, where a judge says how good an answer is.
CRITERIA_COLUMN = "criteria"  # what an answer gets points for
REFERENCE_COLUMN = "reference_answer"  # a good answer, to compare with
DESCRIPTION_COLUMN = "image_description"  # what the image shows, for a judge that does not see it


@dataclass(frozen=True)
class BenchmarkSet:
    """One published data set.

    Attributes:
        name: as `kovqa index NAME` and `kovqa benchmark --sets NAME` call it.
        title: as its authors write it.
        repository: OWNER/NAME on the Hugging Face hub, or what else it is fetched from.
        protocol: how its answers are scored: a name that `kovqa evaluate --protocol` takes.
        rows: questions that it has, as published (turns of circular evaluation not counted; of BOK-VQA the tests).
        licence: of the data.
        score_columns: columns by which scores are reported besides the question type, as the set's own boards do.
    """

    name: str
    title: str
    repository: str
    protocol: str
    rows: int
    licence: str
    score_columns: tuple[str, ...] = ()


BENCHMARK_SETS: dict[str, BenchmarkSet] = {
    each.name: each
    for each in (
        BenchmarkSet(
            "k-mmbench", "K-MMBench", "NCSOFT/K-MMBench", "circular", 1164, "CC-BY-NC-4.0", ("l2-category",)
        ),
        BenchmarkSet("k-seed", "K-SEED", "NCSOFT/K-SEED", "choice-first-letter", 2971, "CC-BY-NC-4.0"),
        BenchmarkSet(
            "k-mmstar", "K-MMStar", "NCSOFT/K-MMStar", "choice", 1500, "CC-BY-NC-4.0", ("l2_category",)
        ),
        BenchmarkSet("k-dtcbench", "K-DTCBench", "NCSOFT/K-DTCBench", "choice-first-letter", 240, "CC-BY-NC-4.0"),
        BenchmarkSet("k-llava-w", "K-LLaVA-W", "NCSOFT/K-LLaVA-W", "reference-judge", 60, "CC-BY-NC-4.0"),
        BenchmarkSet("koffvqa", "KOFFVQA", "maum-ai/KOFFVQA_Data", "criteria-judge", 275, "Apache-2.0"),
        BenchmarkSet(
            "kreta", "KRETA", "tabtoyou/KRETA", "choice-answer-line", 2577, "not stated",
            ("topic_difficulty", "image_type"),
        ),
        BenchmarkSet("k-viscuit", "K-Viscuit", "ddehun/k-viscuit", "choice-bare-letter", 657, "CC-BY-4.0"),
        BenchmarkSet("bok-vqa", "BOK-VQA", "github.com/mjkmain/BOK-VQA", "exact", 3567, "AI-Hub's terms"),
    )
}  # fmt: skip
