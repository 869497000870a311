"""What gave the answers of a predictions file, for the page about them: model, run, learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Why there is no learning curve.
CurveGap = Literal["", "no record", "served", "no run", "gone", "changed", "unreadable", "no log"]


@dataclass(frozen=True)
class LearningCurve:
    """What a run's log holds: (optimizer steps done, value).

    Attributes:
        losses: of training, means over the steps between two of them.
        scores: of the validation split.
        metric: what these are, as the table of metrics names it.
    """

    losses: Sequence[tuple[int, float]] = ()
    scores: Sequence[tuple[int, float]] = ()
    metric: str = ""


@dataclass(frozen=True)
class ModelSource:
    """What gave the answers of a predictions file; what is not known is "".

    Attributes:
        gap: why there is no curve; "": there is one. "changed": the model that now lies there is another one, so nothing
            of it is told.
        model: the step folder's name, a model folder's, or what a server calls it.
        step: optimizer steps of the step folder.
        run: name of the run folder.
        recipe, family: of the run.
        trained: when the run's newest launch ended or, if it has not, began.
        version: of kovqa that trained it.
        answered: when the predictions file was written.
        curve: of the run.
    """

    gap: CurveGap = "no record"
    model: str = ""
    step: int | None = None
    run: str = ""
    recipe: str = ""
    family: str = ""
    trained: str = ""
    version: str = ""
    answered: str = ""
    curve: LearningCurve = LearningCurve()
