"""The metrics that may choose a run's best checkpoint (`eval.metric` of a recipe): one table.

A new metric is one function and one line of `METRICS`. Training's validation, `result.json`, the log, `kovqa runs`
and the display of progress all go by this table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kovqa_core.data.example import Example
from kovqa_core.errors import SettingsError, unknown_name_error
from kovqa_core.evaluate import MAIN_CAPTION_METRIC
from kovqa_core.evaluate.protocols import choose_row_scorer
from kovqa_core.messages import message

ScoreFunction = Callable[[Sequence[Example], Sequence[str]], float]


@dataclass(frozen=True)
class Metric:
    """One number for the answers to a split.

    Attributes:
        task: of the recipes that may name it: "vqa" or "caption".
        score: (examples, one answer or caption each) -> the number; at least one example.
        number: how the number is shown, as a format specification: ".2%".
        label: what stands before it in a sentence: "score 51.20%", "CIDEr 0.912".
        higher_is_better: which of two checkpoints is chosen.
    """

    task: str
    score: ScoreFunction
    number: str
    label: str
    higher_is_better: bool = True


def mean_soft_score(examples: Sequence[Example], answers: Sequence[str]) -> float:
    """Mean score in 0…1, by the default protocol and normal forms of `kovqa evaluate` (`protocols.py`).

    Summed over examples and divided once: it depends neither on the number of processes nor on batches.
    """
    score_row = choose_row_scorer()
    pairs = zip(examples, answers, strict=True)
    return sum(score_row(example, text).score for example, text in pairs) / len(answers)


def caption_metric(name: str, examples: Sequence[Example], captions: Sequence[str]) -> float:
    """A metric of `score_captions`, of all captions together."""
    # Not at the top: whoever only shows a score (`kovqa runs`, the launcher) goes without numpy.
    from kovqa_core.evaluate.caption_scores import score_captions

    ids, references = [e.id for e in examples], [e.captions for e in examples]
    return score_captions(ids, references, captions).metrics[name].score


METRICS: dict[str, Metric] = {
    "accuracy": Metric("vqa", mean_soft_score, ".2%", "score"),
    "CIDEr": Metric("caption", partial(caption_metric, "CIDEr"), ".3f", "CIDEr"),  # 0…10
    "BLEU-1": Metric("caption", partial(caption_metric, "BLEU-1"), ".2%", "BLEU-1"),
    "BLEU-2": Metric("caption", partial(caption_metric, "BLEU-2"), ".2%", "BLEU-2"),
    "BLEU-3": Metric("caption", partial(caption_metric, "BLEU-3"), ".2%", "BLEU-3"),
    "BLEU-4": Metric("caption", partial(caption_metric, "BLEU-4"), ".2%", "BLEU-4"),
    "ROUGE-L": Metric("caption", partial(caption_metric, "ROUGE-L"), ".2%", "ROUGE-L"),
}

# Of recipes that name none, and of runs of earlier versions.
DEFAULT_METRICS = {"vqa": "accuracy", "caption": MAIN_CAPTION_METRIC}


def metric_name(name: str | None, task: str) -> str:
    """The name of a run's metric: what `eval.metric` says, or the task's default."""
    return name or DEFAULT_METRICS[task]


def require_metric(name: str | None, task: str) -> Metric:
    """The metric of a recipe.

    Args:
        name: its `eval.metric`.
        task: its `task`.

    Raises:
        SettingsError: no such metric, or one of another task.
    """
    chosen = metric_name(name, task)
    if chosen not in METRICS:
        raise unknown_name_error(
            message("evaluate.unknown-metric", "eval.metric: unknown metric '{name}'", name=chosen),
            chosen,
            [n for n, m in METRICS.items() if m.task == task],
        )
    metric = METRICS[chosen]
    if metric.task != task:
        raise SettingsError(
            message(
                "evaluate.metric-of-another-task",
                "eval.metric: {name} is a metric for {metric_task}, the recipe's task is {task}",
                name=chosen,
                metric_task=metric.task,
                task=task,
            ),
            message(
                "evaluate.metric-of-another-task.hint",
                "use one of {names}, or leave eval.metric out",
                names=", ".join(n for n, m in METRICS.items() if m.task == task),
            ),
        )
    return metric


def is_better(metric: Metric, score: float, best: float | None) -> bool:
    """Is a score better than the best so far? The first one is."""
    if best is None:
        return True
    return score > best if metric.higher_is_better else score < best


def format_metric_value(name: str | None, task: str, value: float) -> str:
    """A score as a number: `51.20%`, `0.912`. Of metrics that this version does not know: four digits."""
    # A run of a later version may name a metric that is not in the table: it is shown all the same.
    metric = METRICS.get(metric_name(name, task))
    return format(value, metric.number if metric else ".4g")


def format_metric(name: str | None, task: str, value: float) -> str:
    """A score with its name, as in a sentence: `score 51.20%`, `CIDEr 0.912`."""
    metric = METRICS.get(chosen := metric_name(name, task))
    return f"{metric.label if metric else chosen} {format_metric_value(name, task, value)}"
