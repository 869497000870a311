"""When layers are compiled, what is said where they cannot be, and LayerNorms under CUDA's autocast."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from kovqa_core.errors import MachineError
from kovqa_core.models import compiled_layers
from kovqa_core.models.compiled_layers import choose_compile
from kovqa_core.models.layer_norm import LayerNorm
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def test_auto_compiles_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_layers, "missing_for_compile", lambda device: None)
    assert choose_compile("auto", CUDA, "ddp") == (True, None)
    assert (
        choose_compile("auto", CPU, "ddp")
        == choose_compile("auto", torch.device("mps"), "ddp")
        == (False, None)
    )
    assert choose_compile(False, CUDA, "ddp") == (False, None)
    assert choose_compile(True, CPU, "ddp") == (True, None)
    compiled, note = choose_compile("auto", CUDA, "zero3")
    assert not compiled
    assert "zero3" in str(note)


def test_a_missing_c_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    compiled, note = choose_compile("auto", CUDA, "ddp")
    assert not compiled
    assert "no C compiler" in str(note)
    with pytest.raises(MachineError, match="no C compiler"):
        choose_compile(True, CUDA, "ddp")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "Triton" in str(choose_compile("auto", CUDA, "ddp")[1])


def test_a_compiler_that_fails_at_a_trial_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object) -> object:
        raise RuntimeError("Command '['/usr/bin/gcc']' returned non-zero exit status 1\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    problem = compiled_layers._missing_on_gpu(CPU)
    assert str(problem) == "a trial failed: Command '['/usr/bin/gcc']' returned non-zero exit status 1"
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert compiled_layers._missing_on_gpu(CPU) is None


class Dtypes(TorchDispatchMode):
    """Notes dtypes that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(first, torch.Tensor):
            self.seen.add(first.dtype)
        return result


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_norm_reads_16_bits_under_cudas_autocast(dtype: torch.dtype) -> None:
    was = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # autocast, switched off, says that there is no GPU
        norm = LayerNorm(8, device="cuda").requires_grad_(False)
        x = torch.empty(2, 8, dtype=dtype, device="cuda")
        try:
            torch.set_autocast_enabled("cuda", True)
            with Dtypes() as dtypes:
                result = norm(x)
            assert torch.is_autocast_enabled("cuda")
        finally:
            torch.set_autocast_enabled("cuda", was[0])
            torch.set_autocast_dtype("cuda", was[1])
    assert result.dtype == dtype
    assert dtypes.seen == {dtype}


def test_a_norm_is_torchs_own_on_a_cpu() -> None:
    norm, x = LayerNorm(8), torch.randn(4, 8)
    own = torch.nn.functional.layer_norm(x, (8,), norm.weight, norm.bias)
    assert torch.equal(norm(x), own)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x.bfloat16()).dtype == torch.bfloat16
