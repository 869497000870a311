"""Models times published sets: every pair is an ordinary answering job, then a score.

Nothing is answered twice. The predictions of a pair lie in OUT/MODEL/SET.jsonl with the record of what gave them, so
that the next start goes on where this one ended, however it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from kovqa_core.answer.job import AnswerBackend, AnsweredTable, AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.benchmark.model_labels import label_models
from kovqa_core.benchmark.set_indexes import SetIndex
from kovqa_core.benchmark.table import TABLE_FILE, BenchmarkTable, SetFailure, SetScore, write_table
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.question_prompts import NO_INSTRUCTION, OPEN_MAX_NEW_TOKENS, no_instruction_hint
from kovqa_core.download.hub_copies import hub_identity
from kovqa_core.errors import AssetError, KovqaError, ModelError, SettingsError, Stopped
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.answers_record import read_answers_record
from kovqa_core.evaluate.choice_readers import CHOICE_READERS
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.protocols import JUDGED_PROTOCOLS
from kovqa_core.judge.judge_answers import JudgeOptions
from kovqa_core.judge.judge_points import rows_without_verdict, verdict_points
from kovqa_core.judge.judge_predictions import judge_predictions
from kovqa_core.machine.versions import package_versions
from kovqa_core.messages import Message, message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, ignore_progress

OpenBackend = Callable[[AnswerOptions], AbstractContextManager[AnswerBackend]]
BY_LETTER = DecodingOptions(choices=True)
# Of what answers depend on.
_IDENTITY = ("model", "served", "weights", "decoding", "instruction", "max_tokens", "load")
_VERSIONS = ("kovqa", "torch", "transformers")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Who answers, and how.

    Attributes:
        models: as a user names them; None: the newest finished run, or a server's only model.
        answering: how they answer; its model and decoding are not looked at.
        choices: how a model here answers questions with choices.
        judge: who judges open answers; None: nobody.
        profile: whose processes answer; None: this one.
        server: of the models; None: they are here.
        concurrency: requests to it under way at once.
        batch: rows at once; None: as many as suit the device.
        allow_left_out: score a set although more than 10 % of its images cannot be read.
        force: replace predictions of another model, or of other data.
    """

    models: Sequence[Path | None]
    answering: AnswerOptions = field(default_factory=AnswerOptions)
    choices: DecodingOptions = BY_LETTER
    profile: str | None = None
    server: str | None = None
    concurrency: int = 16
    batch: int | None = None
    judge: JudgeOptions | None = None
    allow_left_out: bool = field(default=False, kw_only=True)
    force: bool = field(default=False, kw_only=True)


def leave_out_judged(sets: Sequence[SetIndex]) -> tuple[list[SetIndex], list[SetIndex]]:
    """The sets that need no judge, and those that do.

    Raises:
        SettingsError: all need one.
    """
    judged = [each for each in sets if each.benchmark.protocol in JUDGED_PROTOCOLS]
    if len(judged) == len(sets):
        raise SettingsError(
            message(
                "benchmark.all-judged", "{sets}: a judge scores the answers",
                sets=", ".join(each.benchmark.name for each in judged),
            ),
            message("benchmark.all-judged.hint", "name a server whose model judges: --judge URL"),
        )  # fmt: skip
    return [each for each in sets if each not in judged], judged


def run_benchmark(
    options: BenchmarkOptions,
    sets: Sequence[SetIndex],
    output: Path,
    on_progress: OnProgress = ignore_progress,
    on_result: Callable[[SetScore | SetFailure], object] = lambda result: None,
) -> BenchmarkTable:
    """Answer and score every set by every model; the table is written when the last pair is done.

    Where a pair fails, the others go on; where a model cannot be loaded or reached, it is not tried again.

    Args:
        options: who answers.
        sets: what is answered.
        output: folder of the predictions and the table.
        on_progress: told of each answering job.
        on_result: called after each pair.

    Raises:
        SettingsError: another process writes there; one model is named twice.
        Stopped: on request; what is answered is kept.
    """
    labels = label_models(options.models, served=options.server is not None)
    results: list[SetScore | SetFailure] = []
    # The table's lock, not the folder's: each job locks a file inside it.
    with output_lock(output / TABLE_FILE):
        for model, label in zip(options.models, labels, strict=True):
            lost = dict[bool, KovqaError]()  # by whether it was to choose: a model may be able to write alone
            open_backend = _backend_opener(options, on_progress)
            for each in sets:
                predictions = output / label / f"{each.benchmark.name}.jsonl"
                chooses = each.benchmark.protocol in CHOICE_READERS
                try:
                    if chooses in lost:
                        raise lost[chooses]
                    try:
                        answered = _answer_set(options, open_backend, model, each, predictions, on_progress)
                    except (ModelError, AssetError) as error:  # a judge that fails costs its own sets alone
                        lost[chooses] = error
                        raise
                    result: SetScore | SetFailure = _score_set(
                        options, label, each, predictions, answered, on_progress
                    )
                except Stopped:
                    raise
                except KovqaError as error:
                    result = SetFailure(label, each.benchmark.name, error)
                results.append(result)
                on_result(result)
        table = BenchmarkTable(results, package_versions(_VERSIONS))
        write_table(table, output)
    return table


def _answer_set(
    options: BenchmarkOptions,
    open_backend: OpenBackend,
    model: Path | None,
    index: SetIndex,
    predictions: Path,
    on_progress: OnProgress,
) -> AnsweredTable:
    protocol = index.benchmark.protocol
    chooses, judged = protocol in CHOICE_READERS, protocol in JUDGED_PROTOCOLS
    answering = replace(
        options.answering, model=model, decoding=options.choices if chooses else GREEDY_DECODING
    )
    if judged:  # which wants whole sentences
        answering = replace(answering, instruction=NO_INSTRUCTION, max_new_tokens=OPEN_MAX_NEW_TOKENS)
    job = AnswerJob(
        index.split, predictions, answering,
        batch=options.batch, allow_left_out=options.allow_left_out, fill_unreadable="", force=options.force,
    )  # fmt: skip
    try:
        with open_backend(job.options) as backend:
            answered = run_answer_job(job, backend, on_progress)
    except SettingsError as error:
        if not judged or error.hint != no_instruction_hint():
            raise
        # The instruction is ours: nobody typed one.
        raise SettingsError(error.message, _no_long_answers_hint(index)) from None
    return answered


def _score_set(
    options: BenchmarkOptions,
    label: str,
    index: SetIndex,
    predictions: Path,
    answered: AnsweredTable,
    on_progress: OnProgress,
) -> SetScore:
    protocol = index.benchmark.protocol
    judge, points, without_verdict = "", None, 0
    if protocol in JUDGED_PROTOCOLS and options.judge:
        verdicts = judge_predictions(predictions, index.split, options.judge, on_progress=on_progress)
        judge, points = verdicts.judge, verdict_points(verdicts)
        without_verdict = len(rows_without_verdict(verdicts))
    result = evaluate_file(predictions, index.split, on_progress=on_progress, points=points)
    scores = result.scores
    assert isinstance(scores, AnswerScores)  # only captions have others
    answered_by = "written"
    if protocol in CHOICE_READERS and not options.server:
        answered_by = options.choices.choice_score
    return SetScore(
        label, index, result.protocol, scores, answered_by, _describe_model(predictions, answered),
        empty=sum(not text.strip() for text in result.predictions.texts.values()),
        unreadable=len(answered.left_out), kept=answered.kept, judge=judge,
        without_verdict=without_verdict,
    )  # fmt: skip


def _no_long_answers_hint(index: SetIndex) -> Message:
    return message(
        "benchmark.no-long-answers.hint",
        "{set} wants answers of several sentences: leave it out of --sets, or take a model that writes freely",
        set=index.benchmark.name,
    )


def _backend_opener(options: BenchmarkOptions, on_progress: OnProgress) -> OpenBackend:
    """What opens the back end of each set for one model: a server, the processes of a profile, or this one."""
    if options.server:
        from kovqa_core.answer.remote_client import server_backend

        url = options.server
        return lambda answering: server_backend(url, answering, options.concurrency, on_progress)
    if options.profile:
        from kovqa_core.answer.workers import worker_backend

        profile = options.profile
        return lambda answering: nullcontext(worker_backend(profile, answering))
    from kovqa_core.answer.local import keep_last_model, local_backend

    load = keep_last_model()  # sets that are answered alike need one load
    return lambda answering: nullcontext(local_backend(answering, load))


def _describe_model(predictions: Path, answered: AnsweredTable) -> dict[str, object]:
    """Which model gave the answers, for people who want to have the same: JSON values."""
    record = read_answers_record(predictions)
    fields: dict[str, object] = dict(record.fingerprint) if record else {}
    known = {name: value for name, value in fields.items() if name in _IDENTITY}
    if isinstance(answered.model, Path) and (identity := hub_identity(answered.model)):
        known["hub"] = identity
    return {**known, **({"precision": answered.precision} if answered.precision else {})}
