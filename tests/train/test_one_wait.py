"""The host waits for the device once a step, for the step before, and says so while it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.distributed import watchdog
from kovqa_core.errors import WorkerError
from kovqa_core.train import loop
from kovqa_core.train.meter import TrainMeter
from kovqa_core.train.pending_step import PendingStep, StepBatches
from kovqa_core.train.state import TrainState
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import Small
from tests.train.test_resume import ALONE, CPU, make_small_run, never_stop

# What makes a host wait for a GPU: a number, a truth value, or a shape that depends on values.
WAITING_OPS = (
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
)
WAITING_CALLS = ("tolist", "numpy", "cpu")


class _Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1]
        )
        if name in WAITING_OPS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """What the dispatcher does not see: on a CPU a copy to the device, or from it, is none."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        copied = name in ("tensor", "as_tensor") and kwargs.get("device") is not None
        if name in WAITING_CALLS or copied:
            self.seen.append(name)
        return func(*args, **kwargs)


def waits_of_steps(state: TrainState, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the host waited for in the loop's own part of some steps: the model's own passes count nothing."""
    dispatched, reads = _Waits(), list[str]()
    calls = _Calls(dispatched.seen)
    original, backward = PendingStep.read_numbers, type(state.strategy).backward

    def read(self: PendingStep) -> tuple[list[float], float]:
        reads.append("report")
        with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
            return original(self)

    monkeypatch.setattr(PendingStep, "read_numbers", read)

    def unseen_backward(*args: Any, **kwargs: Any) -> Any:
        # Families are counted by themselves (tests/models): here their part is left out.
        model = state.strategy.wrapped_model
        with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
            return backward(*args, **kwargs) if model else None

    monkeypatch.setattr(type(state.strategy), "backward", unseen_backward)
    batches, meter = loop._train_batches(state), TrainMeter(state, 0.0, 0)
    loop.train_step(state, batches, 0, meter)  # of the first there is nothing to read
    first = len(dispatched.seen)
    ready = iter([next(batches) for _ in range(steps * state.run.accumulate)])
    with dispatched, calls:
        for step in range(1, steps + 1):
            loop.train_step(state, ready, step, meter)
    state.log.close()
    assert not first
    return dispatched.seen + reads


@pytest.mark.parametrize(
    ("precision", "sets"),
    [("fp32", ()), ("fp16", ("optim.ema_decay=0.5", "optim.max_grad_norm=1"))],
)
def test_the_loop_waits_once_a_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, sets: tuple[str, ...]
) -> None:
    """Loss, norm, loss scale, and what processes agree on, in one transfer."""
    run = make_small_run(
        small, tmp_path / "run", f"profile.precision={precision}", "profile.micro_batch={default: 4}",
        "eval.every_steps=100", "optim.steps=8", *sets,
    )  # fmt: skip
    assert run.accumulate == 2
    state = loop.prepare_training(run, ALONE, CPU, never_stop)
    assert waits_of_steps(state, 3, monkeypatch) == ["report"] * 3


def test_who_waits_for_the_device_waits_for_the_others() -> None:
    """NCCL's collectives return at once: the rank that hangs is told from those that read what it lacks."""
    heartbeats = []

    def read() -> list[list[float]]:
        heartbeats.append(watchdog._current_heartbeat)
        return [[1.0, 2.0]]

    watchdog.set_phase("computing", 7)
    assert PendingStep(6, StepBatches(), read, None).read_numbers()[0] == [1.0, 2.0]
    assert [(beat.step, beat.waiting) for beat in heartbeats] == [(7, True)]
    assert not watchdog._current_heartbeat.waiting


def test_a_loss_that_is_not_finite_spoils_nothing_before_it_is_known(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... though its gradient is finite; the error, one step later, names the step and its examples."""
    run = make_small_run(small, tmp_path / "run", "optim.ema_decay=0.5", "eval.every_steps=100")
    state = loop.prepare_training(run, ALONE, CPU, never_stop)
    original, ids = loop.accumulate_gradients, list[list[str]]()

    def accumulate(state: TrainState, batches: Any, step: int) -> Any:
        of_step = original(state, batches, step)
        ids.append([id for of_batch in of_step.ids for id in of_batch])
        if step == 2:
            of_step.losses = [loss._replace(mean=loss.mean + torch.inf) for loss in of_step.losses]
        return of_step

    monkeypatch.setattr(loop, "accumulate_gradients", accumulate)
    batches, meter = loop._train_batches(state), TrainMeter(state, 0.0, 0)
    for step in range(2):
        loop.train_step(state, batches, step, meter)
    before = everything_learned(state)
    loop.train_step(state, batches, 2, meter)
    assert all(torch.equal(one, two) for one, two in zip(before, everything_learned(state), strict=True))
    with pytest.raises(WorkerError) as caught:
        loop.train_step(state, batches, 3, meter)
    state.log.close()
    assert "not finite at step 3;" in caught.value.message
    assert caught.value.message.split("batch: ")[1].split(", ") == ids[2]


def everything_learned(state: TrainState) -> list[Tensor]:
    """Copies of weights, averages, moments and their step."""
    tensors = [*state.strategy.model.parameters(), *(state.averages or {}).values()]
    for moments in state.strategy.optimizer.state.values():
        tensors += [value for value in moments.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone() for tensor in tensors]


def test_losses_of_a_step_come_to_the_host_in_one_transfer(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the largest of a global batch are dropped, all are needed on the host: once, not once a micro-batch."""
    from kovqa_core.train import accumulate

    copies: list[tuple[int, ...]] = []
    original: Callable[[Tensor], Tensor] = torch.Tensor.cpu
    run = make_small_run(small, tmp_path / "run", "profile.micro_batch={default: 2}")
    state = loop.prepare_training(run, ALONE, CPU, never_stop)
    monkeypatch.setattr(state.strategy, "losses", lambda batch, step: torch.arange(float(len(batch.ids))))
    monkeypatch.setattr(state.strategy.model, "counted_losses", lambda losses, step: losses < 1)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (copies.append(self.shape), original(self))[1])
    batches = [next(each) for each in [loop._train_batches(state)] for _ in range(4)]
    chosen = accumulate.choose_counted_losses(state, batches, 0)
    state.log.close()
    assert copies == [(8,)]
    assert [batch.tensors["counted"].tolist() for batch in chosen] == [[True, False]] * 4
