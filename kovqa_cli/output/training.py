"""What `kovqa train` and `kovqa runs rerun` show: the plan, the command, progress, how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import show_text

from kovqa_cli.output import console
from kovqa_cli.output.console import format_duration, format_score, print_note, shell_path, short_path
from kovqa_cli.output.progress import is_interactive
from kovqa_cli.output.run_needs import (
    length_fields,
    length_lines,
    length_text,
    memory_fields,
    memory_line,
    time_left_lines,
)

if TYPE_CHECKING:
    from kovqa_core.launch.launchers.protocol import BatchQueue
    from kovqa_core.plan.training import PlannedTraining
    from kovqa_core.runs.events import TrainStepEvent, WorkerEvent
    from kovqa_core.runs.folder import RunResult
    from kovqa_core.settings.run import Run


# ---------------------------------------------------------------------------------------- plan


def print_plan(planned: PlannedTraining, *, quiet: bool) -> None:
    """What is about to happen; warnings even where little is wanted."""
    from kovqa_core.runs.left_out import index_lines, index_warning, read_index_report

    for warning in (*planned.warnings, *planned.missing):
        print_note(message("train.warning", "warning: {warning}", warning=warning))
    for each in planned.differences:
        print_note(
            message(
                "train.differs-from-then",
                "warning: not as it was then: {section} {key} ({then} then, {now} now)",
                section=each.section,
                key=each.key,
                then=each.a,
                now=each.b,
            )
        )
    report = read_index_report(planned.run)
    if lacking := index_warning(report):
        print_note(message("train.warning", "warning: {warning}", warning=lacking))
    for warned in filter(None, (planned.memory_plan.warning, planned.length.disk_warning)):
        print_note(message("train.warning", "warning: {warning}", warning=warned))
    if quiet:
        return
    for line in (*_plan_lines(planned), *index_lines(report)):
        print_note(line)


def _plan_lines(planned: PlannedTraining) -> Iterator[Message]:
    from kovqa_core.runs.consent import code_setting_lines
    from kovqa_core.settings.strict_yaml import inline_yaml

    run = planned.run
    recipe, profile = run.recipe, run.profile
    yield message(
        "train.plan",
        "recipe {recipe} ({family}, {task}) on profile {profile}, {length}",
        recipe=recipe.name,
        family=recipe.family,
        task=recipe.task,
        profile=profile.name,
        length=length_text(planned),
    )
    yield message(
        "train.batch",
        "batch {global_batch} = {processes} × {micro_batch} × {accumulate} "
        "(processes × micro-batch × accumulation), {precision}",
        global_batch=recipe.optim.global_batch,
        processes=profile.processes,
        micro_batch=run.micro_batch,
        accumulate=run.accumulate,
        precision=profile.precision,
    )
    if len(profile.node_range) > 1:
        yield message(
            "train.node-range",
            "on {nodes} nodes: where fewer come, each process takes a larger part, and the batch stays",
            nodes=profile.nodes,
        )
    yield planned.memory_plan.choice(run.micro_batch)
    yield from planned.notes
    yield from code_setting_lines(run)
    for change in planned.changes:
        yield message(
            "train.setting-changes",
            "from step {step} on: {key} {value} ({before} before)",
            step=change.step + 1,
            key=change.key,
            value=inline_yaml(change.value),
            before=inline_yaml(change.before),
        )
    yield memory_line(planned)
    yield from length_lines(planned)
    if planned.resumed_step:
        yield message(
            "train.resumed-folder",
            "run folder {folder}, going on from {step}",
            folder=run.folder,
            step=planned.resumed_step,
        )
    elif planned.is_resume and planned.state.run is None:
        yield message(
            "train.nothing-to-resume", "run folder {folder}, new: there is no run yet", folder=run.folder
        )
    elif planned.is_resume:
        yield message(
            "train.no-checkpoint",
            "run folder {folder}, beginning anew at step 0: there is no checkpoint yet",
            folder=run.folder,
        )
    else:
        yield message("train.run-folder", "run folder {folder}", folder=run.folder)


def print_launch_command(planned: PlannedTraining, *, as_json: bool, quiet: bool) -> None:
    """The launch command of a dry run."""
    from kovqa_core.runs.left_out import index_lines, read_index_report

    launch = planned.launch
    note = message(
        "train.plan-not-written",
        "nothing is written: {folder}/run.yaml holds this plan only once the training is started",
        folder=short_path(planned.run.folder),
    )
    fields = {
        "command": launch.shell_command(),
        "argv": launch.argv,
        "env": launch.env,
        "run": planned.run.model_dump(mode="json"),
        "from": dict(planned.origin),
        "missing": planned.missing,
        "warnings": list(planned.warnings),
        "index_left_out": [str(line) for line in index_lines(read_index_report(planned.run))],
        "script": launch.script,
        "differs": [asdict(each) for each in planned.differences],
        "memory": memory_fields(planned),
        "length": length_fields(planned),
        "notes": [planned.memory_plan.choice(planned.run.micro_batch), *planned.notes],
        "foreign": dict(planned.foreign),
    }
    console.print_outcome(launch.shell_command(), fields, [note], as_json=as_json, quiet=quiet)


# ------------------------------------------------------------------------------------ progress


@contextlib.contextmanager
def training_progress(*, quiet: bool = False) -> Iterator[Callable[[WorkerEvent], None]]:
    """Shows a run's events: a progress line with rate and time left, a line for what should stay."""
    if quiet:
        yield _print_warning
        return
    if not is_interactive():
        yield _print_event
        return
    from kovqa_core.runs.events import AnswerProgressEvent, TrainProgressEvent, TrainStepEvent
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}  {task.fields[detail]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console.make_console(stderr=True), transient=True) as display:
        task = display.add_task(show_text(message("train.starting", "starting")), total=1, detail="")

        def show_event(event: WorkerEvent) -> None:
            if isinstance(event, TrainProgressEvent):
                detail = message(
                    "train.progress", "loss {loss:.4f}  {rate:,.0f} examples/s  {left} left",
                    loss=event.loss, rate=event.rate, left=format_duration(event.left),
                )  # fmt: skip
                if event.left_out:
                    detail = message(
                        "train.progress-left-out",
                        "{progress}  {rows:,} rows left out",
                        progress=detail,
                        rows=event.left_out,
                    )
                training, shown = map(show_text, (message("train.training", "training"), detail))
                display.update(
                    task, description=training, completed=event.step, total=event.total, detail=shown
                )
            elif isinstance(event, AnswerProgressEvent):
                display.update(
                    task, description=show_text(event.stage), completed=event.done, total=event.of, detail=""
                )
            elif not isinstance(event, TrainStepEvent):  # the line above has the loss
                _print_event(event)

        yield show_event


def _print_warning(event: WorkerEvent) -> None:
    """A warning; nothing of any other event."""
    from kovqa_core.runs import events

    if isinstance(event, events.WarningEvent):
        print_note(event.note)


def _left_out_reasons(event: TrainStepEvent) -> Message:
    """Why rows were left out of the steps of an event."""
    from kovqa_core.data.left_out import training_reasons

    unreadable, left_out = event.unreadable or 0, event.left_out or 0
    return training_reasons(unreadable, left_out - unreadable, next(iter(event.faults or ()), ""))


def _print_event(event: WorkerEvent) -> None:
    """An event as a line that stays; nothing for those that only say how far it is."""
    from kovqa_core.runs import events

    match event:
        case events.StartEvent(step=step, total=total, note=note):
            print_note(
                message("train.starts", "step {step} of {total}: {note}", step=step, total=total, note=note)
            )
        case events.WaitingEvent(note=note) | events.WarningEvent(note=note):
            print_note(note)
        case events.TimeLeftEvent():
            for line in time_left_lines(event):
                print_note(line)
        case events.MemoryFitEvent(micro_batch=micro_batch, accumulate=accumulate):
            print_note(
                message(
                    "train.fits-memory",
                    "micro-batch {micro_batch} × {accumulate} fits into memory",
                    micro_batch=micro_batch,
                    accumulate=accumulate,
                )
            )
        case events.TrainStepEvent():
            print_note(
                message(
                    "train.step",
                    "step {step}: loss {loss:.4f}, rate {lr:.2e}, {rate:,.0f} examples/s",
                    step=event.step,
                    loss=event.loss,
                    lr=event.lr,
                    rate=event.examples_per_second,
                )
            )
            if event.left_out:
                print_note(
                    message(
                        "train.step-left-out",
                        "step {step}: {rows:,} rows were left out: {reasons}",
                        step=event.step,
                        rows=event.left_out,
                        reasons=_left_out_reasons(event),
                    )
                )
        case events.EvaluationEvent():
            print_note(
                message(
                    "train.evaluation",
                    "step {step}: {score} on {rows:,} rows, best {best}",
                    step=event.step,
                    score=format_score(event.metric, event.task, event.score),
                    rows=event.rows,
                    best=format_score(event.metric, event.task, event.best),
                )
            )


# ----------------------------------------------------------------------------------------- end


def print_submitted_job(run: Run, job: str, queue: BatchQueue, *, as_json: bool, quiet: bool) -> None:
    """A job in a batch queue: its number, and where to look."""
    folder = short_path(run.folder)
    notes = [
        message(
            "train.queued",
            "job {job} is in the queue of {queue}: {list_command}; it writes {folder}/{log_file}",
            job=job,
            queue=queue.name,
            list_command=queue.list_command.format(job=job),
            folder=folder,
            log_file=queue.log_file.format(job=job),
        ),
        message(
            "train.queued-next",
            "stop it: {cancel_command}; go on later: the same command with --resume -o {folder}",
            cancel_command=queue.cancel_command.format(job=job),
            folder=shell_path(run.folder),
        ),
    ]
    console.print_outcome(job, {"job": job, "path": str(run.folder)}, notes, as_json=as_json, quiet=quiet)


def print_finished_run(run: Run, result: RunResult, *, as_json: bool, quiet: bool) -> None:
    """Where the model is, how good it is, what to type next."""
    from kovqa_core.runs.left_out import read_run_left_out

    folder, best = short_path(run.folder), result.best_score
    if best is None:
        scored = message("train.unscored-model", "model {step}", step=result.best)
    else:
        score = format_score(result.metric, result.task, best)
        scored = message("train.scored-model", "{score} ({step})", score=score, step=result.best)
    finished = message(
        "train.finished",
        "finished in {duration}, {rate:,} examples/s; {scored}",
        duration=format_duration(result.seconds),
        rate=result.examples_per_second,
        scored=scored,
    )
    if result.task == "caption":
        following = message(
            "train.next-caption",
            "next: kovqa caption -i IMAGE --model {folder}",
            folder=shell_path(run.folder),
        )
    else:
        following = message(
            "train.next-answer",
            "next: kovqa predict -i IMAGE --question '…' --model {folder}",
            folder=shell_path(run.folder),
        )
    left_out = read_run_left_out(run.folder, run)
    fields = {"path": str(run.folder), **asdict(result), "left_out": left_out.json_fields()}
    notes = [finished, *left_out.lines(), following]
    console.print_outcome(folder, fields, notes, as_json=as_json, quiet=quiet)


def print_interrupted_run(run: Run) -> None:
    """What a stopped run left, and how it goes on."""
    from kovqa_core.runs.folder import follow_pointer

    last = follow_pointer(run.folder, "last")
    if last is None:
        note = message(
            "train.stopped-before-checkpoint",
            "stopped; there is no checkpoint yet → begin anew at step 0 with: kovqa train --resume -o {folder}",
            folder=shell_path(run.folder),
        )
    else:
        note = message(
            "train.stopped",
            "stopped; {step} is complete → go on with: kovqa train --resume -o {folder}",
            step=last.name,
            folder=shell_path(run.folder),
        )
    print_note(note)
