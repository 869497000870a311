"""kovqa evaluate: scores of a predictions file, and a page to look at them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import options

if TYPE_CHECKING:
    from kovqa_core.evaluate.evaluation import EvaluationResult
    from kovqa_core.judge.judge_answers import JudgeOptions

JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="URL",
        help="Open answers: a server in OpenAI's form whose model judges them, up to /v1.",
    ),
]
JudgeModelOption = Annotated[
    str | None,
    typer.Option("--judge-model", metavar="NAME", help="Its name there. [default: the server's only one]"),
]
JudgePromptOption = Annotated[
    Path | None,
    typer.Option(
        "--judge-prompt",
        metavar="FILE",
        help="Another prompt, with {question}, {answer} and the set's fields.",
    ),
]


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Predictions file (kovqa predict, kovqa caption).")],
    index: Annotated[
        Path, typer.Option("--index", metavar="FILE", help="The index's .jsonl that was answered.")
    ],
    kind: options.KindOption = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            metavar="NAME",
            help="Answers are compared in this form: plain, korean, korean-particles, vqav2. "
            "[default: vqav2 where ten people answered, else plain]",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="What an answer scores. By true answers: exact, official (VQAv2's program), vizwiz, auto (official "
            "where ten people answered, else min(1, k / min(3, n)) of n). By choices: choice, choice-first-letter, "
            "choice-bare-letter, choice-answer-line, circular. By a judge (--judge): criteria-judge, "
            "reference-judge. auto of a benchmark's index: its own.",
        ),
    ] = "auto",
    tokens: Annotated[
        str,
        typer.Option("--tokens", metavar="NAME", help="Captions are cut into: auto, english, korean, words."),
    ] = "auto",
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar="FILE", help="Other predictions of the same rows: is the difference chance?"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write one HTML page with tables and examples."),
    ] = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_prompt: JudgePromptOption = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", metavar="FILE", help="Write answers beside the true ones, a line each, with (O) or (X)."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Image folder. [default: as the index says]"),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(
            "--examples", min=0, metavar="N", help="Right ones, and as many wrong ones, on the page."
        ),
    ] = 60,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Score answers by question type, or captions.

    Beside each score stands what always giving the most frequent answer would score.
    """
    from kovqa_core.evaluate.evaluation import evaluate_file
    from kovqa_core.files import require_other_output

    from kovqa_cli.output.console import print_note, short_path
    from kovqa_cli.output.evaluate import print_evaluation, print_report_images
    from kovqa_cli.output.progress import show_progress

    for output in filter(None, (report, log)):
        require_other_output(output, list(filter(None, (predictions, index, against))))
    files = list(filter(None, (predictions, against)))
    judging = read_judge_options(judge, judge_model, judge_prompt)
    if judging is None:
        with show_progress(quiet) as on_progress:
            results = [
                evaluate_file(path, index, normalise, tokens, on_progress, kind or (), protocol)
                for path in files
            ]
        verdicts = None
    else:
        judged = [
            _evaluate_judged(
                path, index, judging, (normalise, tokens, kind or (), protocol), quiet=quiet or json
            )
            for path in files
        ]
        results, verdicts = [result for result, _ in judged], judged[0][1]
    result, comparison = results[0], None
    if against:
        from kovqa_core.evaluate.compare_predictions import compare_predictions

        comparison = compare_predictions(*results)
    if report:
        from kovqa_core.evaluate.report import write_report
        from kovqa_core.runs.predictions_source import find_predictions_source

        source = find_predictions_source(predictions)
        with show_progress(quiet) as on_progress:
            shown = write_report(result, report, images, examples, on_progress, source, comparison)
        if not quiet:
            print_note(message("evaluate.report-written", "report: {path}", path=short_path(report)))
            print_report_images(shown, as_the_index_says=images is None)
    if log:
        from kovqa_core.evaluate.answer_log import write_answer_log

        with show_progress(quiet) as on_progress:
            write_answer_log(result, log, on_progress)
        if not quiet:
            print_note(message("evaluate.log-written", "log: {path}", path=short_path(log)))
    if comparison is None:
        print_evaluation(result, as_json=json, quiet=quiet, judge=verdicts)
        return
    from kovqa_cli.output.compare_predictions import print_comparison

    print_comparison(comparison, as_json=json, quiet=quiet)


def _evaluate_judged(
    predictions: Path,
    index: Path,
    judging: JudgeOptions,
    scoring: tuple[str | None, str, Sequence[str], str],
    *,
    quiet: bool,
) -> tuple[EvaluationResult, dict[str, object]]:
    """The scores that a judge gives a predictions file, and what the JSON document says of the judge.

    Args:
        predictions, index: the two files.
        judging: who judges.
        scoring: normal form, tokens, question types and protocol, as the command has them.
        quiet: say nothing but what is wrong.
    """
    from dataclasses import replace

    from kovqa_core.evaluate.evaluation import evaluate_file
    from kovqa_core.judge.judge_points import verdict_points
    from kovqa_core.judge.judge_predictions import judge_predictions
    from kovqa_core.judge.verdict_file import default_verdict_file

    from kovqa_cli.output.judge import judge_fields, print_judged
    from kovqa_cli.output.progress import show_progress

    normalise, tokens, kinds, protocol = scoring
    with show_progress(quiet, announce=True) as on_progress:
        judged = judge_predictions(predictions, index, judging, protocol, kinds, on_progress)
    points, file = verdict_points(judged), default_verdict_file(predictions)
    print_judged(judged, judging, file, quiet=quiet)
    result = evaluate_file(
        predictions, index, normalise, tokens, question_types=kinds, protocol=judged.protocol, points=points
    )
    return replace(result, judge=judged.judge), judge_fields(judged, judging, file)


def read_judge_options(url: str | None, model: str | None, prompt: Path | None) -> JudgeOptions | None:
    """Who judges; None: nobody.

    Raises:
        SettingsError: how it is asked is said, and not who.
    """
    if url is None:
        if model or prompt:
            raise SettingsError(
                message("evaluate.no-judge", "--judge-model and --judge-prompt are of a judge, and there is none"),
                message("evaluate.no-judge.hint", "name its server: --judge http://HOST:8000/v1"),
            )  # fmt: skip
        return None
    from kovqa_core.judge.judge_answers import JudgeOptions

    return JudgeOptions(url, model, prompt)
