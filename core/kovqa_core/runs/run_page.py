"""`kovqa runs page`: one HTML page about one or several runs, whole in itself.

Curves over each other, the settings that differ, and what was answered to a few validation pictures at each
evaluation. Words and layout stand in `run_page.html` (`web/page_template.py`); here are the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.example import json_line
from kovqa_core.data.image_names import is_inside, is_too_wide, wide_folder_error
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.evaluate.metrics import format_metric_value
from kovqa_core.evaluate.report_cards import thumbnail_uri
from kovqa_core.files import require_other_output, write_text
from kovqa_core.index.reader import open_training_index
from kovqa_core.messages import Message, message
from kovqa_core.output_lock import output_lock
from kovqa_core.paths import without_home
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.runs.compare import DifferingFact, differing_facts
from kovqa_core.runs.curve_charts import metric_label, run_charts
from kovqa_core.runs.run_curves import RunCurves, best_evaluation, metric_of, read_curves, smooth_loss
from kovqa_core.runs.validation_samples import ValidationSample, sampled_examples
from kovqa_core.settings.run import RUN_FILE
from kovqa_core.web.line_chart import draw_chart
from kovqa_core.web.page_template import render_page

MAX_RUNS = 12  # on one page
MAX_STRETCHES = 12  # of one picture; the newest are shown
MAX_SCORE_ROWS = 100  # evaluations in the table of one run, evenly spread
RIGHT_POINTS = 0.5  # an answer of so many points is right, as in the report
_TEMPLATE_FILE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class AnswerStretch:
    """Evaluations one after the other that gave one answer to a picture.

    Attributes:
        first, last: steps.
        right: None for a caption.
    """

    first: int
    last: int
    answer: str
    right: bool | None


@dataclass(frozen=True)
class SampleCard:
    """A validation picture and what became of its question.

    Attributes:
        picture: as a data URI; "": it cannot be read.
        outside: the image lies outside of the image folder, and is not in the page.
        hidden: earlier stretches that are not shown.
    """

    sample: ValidationSample
    picture: str
    outside: bool
    stretches: Sequence[AnswerStretch]
    hidden: int


@dataclass(frozen=True)
class RunOnPage:
    """What the page says of one run, besides its curves.

    Attributes:
        best: its best score as text; "": none.
        scores: step, score and best so far as text, of evaluations.
        smoothed: so many lines of the log make one value of its smoothed loss.
        pictures_problem: why its validation pictures are not in the page; None: they are.
    """

    curves: RunCurves
    metric: str
    best: str
    best_step: int | None
    scores: Sequence[tuple[int, str, str]]
    smoothed: int
    cards: Sequence[SampleCard]
    pictures_problem: Message | None


@dataclass(frozen=True)
class WrittenPage:
    """What `write_run_page` wrote, and what it had to leave out of each run."""

    path: Path
    runs: Sequence[RunCurves]
    problems: Sequence[tuple[str, Message]]  # name of the run


def write_run_page(
    folders: Sequence[Path], path: Path, on_progress: OnProgress = ignore_progress
) -> WrittenPage:
    """Write the page, whole or not at all.

    Args:
        folders: of the runs, in the order of their colours; one that is named twice is shown once.
        path: the HTML file.
        on_progress: called with the pictures read.

    Raises:
        SettingsError: too many runs; the file is one of a run, or cannot be written.
        MachineError: the disk is full.
    """
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) > MAX_RUNS:
        raise SettingsError(
            message("runs.page-too-many", "{count} runs on one page; at most {most} can be told apart",
                    count=len(folders), most=MAX_RUNS),
            message("runs.page-too-many.hint", "name fewer runs"),
        )  # fmt: skip
    require_other_output(path, ())
    runs = read_curves(folders)
    stage = message("runs.reading-pictures", "reading validation pictures")
    shown = []
    for run in runs:
        shown.append(_run_on_page(run))
        on_progress(Progress(stage, len(shown), len(runs), "runs"))
    page = render_page(
        _TEMPLATE_FILE,
        runs=shown,
        charts=[
            (chart.by_step.title, draw_chart(chart.by_step), chart.by_time and draw_chart(chart.by_time))
            for chart in run_charts(runs)
        ],
        differing=_differing(runs),
        as_json=json_line,
        without_home=without_home,
        unreadable=[run.name for run in runs if run.details.run is None],
    )
    with output_lock(path):
        write_text(path, page)
    return WrittenPage(path, runs, _all_problems(shown))


def _all_problems(shown: Sequence[RunOnPage]) -> list[tuple[str, Message]]:
    return [
        (each.curves.name, problem)
        for each in shown
        for problem in (*each.curves.problems, *([each.pictures_problem] if each.pictures_problem else []))
    ]


def _differing(runs: Sequence[RunCurves]) -> list[DifferingFact]:
    """What is not the same for all runs whose settings can be read; values of the others are None."""
    readable = [run for run in runs if run.details.run is not None]
    differing = []
    for fact in differing_facts([run.details.summary.folder for run in readable]):
        values = iter(fact.values)
        spread = [next(values) if run.details.run is not None else None for run in runs]
        differing.append(DifferingFact(fact.section, fact.key, spread))
    return differing


def _run_on_page(run: RunCurves) -> RunOnPage:
    metric, best = metric_of(run), best_evaluation(run)
    cards, problem = _sample_cards(run)
    every = max(1, -(-len(run.evaluations) // MAX_SCORE_ROWS))
    return RunOnPage(
        run,
        metric_label(metric).english,
        format_metric_value(metric, best.task, best.score) if best else "",
        best.step if best else None,
        [
            (
                e.step,
                format_metric_value(metric, e.task, e.score),
                format_metric_value(metric, e.task, e.best),
            )
            for e in run.evaluations[::-1][::every][::-1]
        ],
        smooth_loss([event.loss for event in run.steps])[1],
        cards,
        problem,
    )


def _sample_cards(run: RunCurves) -> tuple[list[SampleCard], Message | None]:
    """The cards of a run, and why they have no pictures."""
    samples = sampled_examples(run.samples)
    folder: Path | None = None
    problem: Message | None = None
    if samples and run.details.run is not None:
        try:
            folder = open_training_index(run.details.run.recipe.data).images
            # A run.yaml may be another's, and a page is passed on: it must not take pictures from just anywhere.
            if is_too_wide(folder):
                raise wide_folder_error(run.details.summary.folder / RUN_FILE, folder, Message(""))
        except KovqaError as error:
            folder = None
            problem = message(
                "runs.page-no-pictures",
                "its validation pictures are not here: {problem}",
                problem=error.message,
            )
    cards = []
    for sample in samples:
        outside = folder is not None and not is_inside(folder, sample.image)
        picture = thumbnail_uri(folder / sample.image) if folder is not None and not outside else ""
        stretches = answer_stretches(run, sample.id)
        hidden = max(0, len(stretches) - MAX_STRETCHES)
        cards.append(SampleCard(sample, picture, outside, stretches[hidden:], hidden))
    return cards, problem


def answer_stretches(run: RunCurves, example: str) -> list[AnswerStretch]:
    """What a run answered to one example, by ascending step; equal answers one after the other are one stretch."""
    stretches: list[AnswerStretch] = []
    for evaluation in run.samples:
        sample = next((sample for sample in evaluation.samples if sample.id == example), None)
        if sample is None:
            continue
        right = None if sample.points is None else sample.points >= RIGHT_POINTS
        before = stretches[-1] if stretches else None
        if before is not None and (before.answer, before.right) == (sample.answer, right):
            stretches.pop()
            stretches.append(AnswerStretch(before.first, evaluation.step, sample.answer, right))
        else:
            stretches.append(AnswerStretch(evaluation.step, evaluation.step, sample.answer, right))
    return stretches
