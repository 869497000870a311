"""What a plan says that a run takes: memory, steps, hours, room on the disk, energy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kovqa_core.messages import Message, join_messages, message

from kovqa_cli.output.console import format_duration

if TYPE_CHECKING:
    from kovqa_core.plan.training import PlannedTraining
    from kovqa_core.runs.events import TimeLeftEvent


_COMPONENTS = {
    "weights": message("train.memory-weights", "weights"),
    "gradients": message("train.memory-gradients", "gradients"),
    "optimizer": message("train.memory-optimizer", "optimizer"),
    "averages": message("train.memory-averages", "averages"),
    "activations": message("train.memory-activations", "activations"),
    "logits": message("train.memory-logits", "logits"),
    "workspace": message("train.memory-workspace", "workspace"),
}


def memory_line(planned: PlannedTraining) -> Message:
    """What each device needs, component by component."""
    from kovqa_core.models.memory import BYTES_PER_GB

    needs = planned.memory_plan.needs
    if needs is None:
        return message(
            "train.no-memory-estimate", "memory: no estimate ({reason})", reason=planned.memory_plan.unknown
        )
    # In the unit in which a small model does not need 0.0.
    unit, size = ("GB", BYTES_PER_GB) if needs.peak >= 0.1 * BYTES_PER_GB else ("MB", BYTES_PER_GB / 1024)
    components = join_messages(
        ", ",
        (
            message("train.memory-component", "{name} {size:.2f}", name=_COMPONENTS[name], size=value / size)
            for name, value in needs.components.items()
            if value / size >= 0.005  # what is not shown as 0.00
        ),
    )
    on_cpu = planned.run.profile.device == "cpu"
    return message(
        "train.memory-estimate",
        "memory: about {peak:.1f} {unit} per {device} at micro-batch {micro_batch} ({components})",
        peak=needs.peak / size,
        unit=unit,
        device=message("train.memory-of-process", "process") if on_cpu else "GPU",
        micro_batch=needs.micro_batch,
        components=components,
    )


def memory_fields(planned: PlannedTraining) -> dict[str, object] | None:
    """The same for `--json`."""
    needs, plan = planned.memory_plan.needs, planned.memory_plan
    if needs is None:
        return None
    return {
        "micro_batch": needs.micro_batch,
        "bytes": round(needs.peak),
        "parts": {name: round(value) for name, value in needs.components.items()},
        "device_bytes": None if plan.memory is None else round(plan.memory),
        "activation_checkpointing": plan.checkpointing,
        "largest_micro_batch": None if plan.best is None else plan.best.micro_batch,
    }


# -------------------------------------------------------------------------------------- length


def length_text(planned: PlannedTraining) -> Message:
    """How long a run is, in the recipe's unit and in the other where the index is here."""
    optim, length = planned.run.recipe.optim, planned.length
    if optim.epochs and length.steps is not None:
        return message(
            "train.epochs-and-steps",
            "{epochs} epochs ({steps:,} steps)",
            epochs=optim.epochs,
            steps=length.steps,
        )
    if optim.epochs:
        return message("train.epochs", "{epochs} epochs", epochs=optim.epochs)
    if length.epochs is not None:
        return message(
            "train.steps-and-epochs",
            "{steps:,} steps ({epochs} epochs)",
            steps=optim.steps,
            epochs=f"{length.epochs:,.0f}" if length.epochs >= 100 else f"{length.epochs:.3g}",
        )
    return message("train.steps", "{steps} steps", steps=optim.steps)


def length_lines(planned: PlannedTraining) -> Iterator[Message]:
    """Hours, room on the disk and energy, as far as they are known."""
    length = planned.length
    yield _time_line(planned)
    if (
        length.disk_bytes is not None
        and length.checkpoint_bytes is not None
        and length.free_bytes is not None
    ):
        yield message(
            "train.disk",
            "disk: {checkpoint} a checkpoint, {needed} for those that are kept (save.keep {keep}, the best and one being "
            "written); {free} are free",
            checkpoint=_disk_size(length.checkpoint_bytes),
            needed=_disk_size(length.disk_bytes),
            keep=planned.run.recipe.save.keep,
            free=_disk_size(length.free_bytes),
        )
    if length.energy_kwh is not None:
        yield message(
            "train.energy",
            "energy: at most {energy:.3g} kWh by the boards' published power ({boards} × {watts} W), without the rest "
            "of the machine",
            energy=length.energy_kwh,
            boards=planned.run.profile.processes,
            watts=length.watts,
        )


def _disk_size(size: int) -> str:
    """As disks are sold: 29.0 GB, 5.4 MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _time_line(planned: PlannedTraining) -> Message:
    from kovqa_core.plan.run_length import MEASURED_STEPS

    length, speed = planned.length, planned.length.speed
    if speed is None or length.seconds is None:
        if length.steps is not None and length.steps - length.done <= MEASURED_STEPS:
            return message("train.time-not-known", "time: not known")
        return message(
            "train.time-unknown", "time: not known until the first {steps} steps", steps=MEASURED_STEPS
        )
    time, rate = format_duration(length.seconds), speed.examples_per_second
    if speed.how == "own":
        return message(
            "train.time-as-before",
            "time: about {time} more, at the {rate:,.1f} examples/s that this run had so far",
            time=time,
            rate=rate,
        )
    if speed.how == "measured":
        return message(
            "train.time-measured",
            "time: about {time} at {rate:,.1f} examples/s, as measured on {machine}; the first {steps} steps tell how "
            "long it takes here",
            time=time,
            rate=rate,
            machine=speed.machine,
            steps=MEASURED_STEPS,
        )
    return message(
        "train.time-counted",
        "time: about {time} at {rate:,.1f} examples/s, by a count on paper for {processes} × {machine} that nobody has "
        "measured; the first {steps} steps tell how long it takes",
        time=time,
        rate=rate,
        processes=planned.run.profile.processes,
        machine=speed.machine,
        steps=MEASURED_STEPS,
    )


def time_left_lines(event: TimeLeftEvent) -> Iterator[Message]:
    """How long a run takes, once its first steps were timed."""
    yield message(
        "train.time-left",
        "step {step} of {total}: measured {seconds:.3g} s a step: {left} left of {whole}, without evaluations",
        step=event.step,
        total=event.total,
        seconds=event.seconds,
        left=format_duration(event.left),
        whole=format_duration(event.seconds * event.total),
    )
    if event.energy_kwh is not None:
        yield message(
            "train.energy-left",
            "energy: at most {energy:.3g} kWh for all steps by the boards' published power",
            energy=event.energy_kwh,
        )


def length_fields(planned: PlannedTraining) -> dict[str, Any]:
    """The same for `--json`."""
    return asdict(planned.length)
