"""What a compiler ends training with: one short line, and the command that goes on without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch._dynamo.exc
import torch._inductor.exc
from kovqa_core import worker
from kovqa_core.models.compile_errors import find_compile_error
from kovqa_core.runs.manifest import read_launches, record_launch

from tests.conftest import Small
from tests.train.test_resume import make_small_run


class OutOfResources(Exception):
    """As Triton names a kernel that wants more shared memory than the GPU has."""

    __module__ = "triton.runtime.errors"


@pytest.mark.parametrize(
    "error",
    [
        torch._inductor.exc.CppCompileError(["g++"], "x.cpp:1: error" * 9_000),
        torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached"),
        OutOfResources("out of resource: shared memory, Required: 114688, Hardware limit: 101376"),
    ],
)
def test_training_can_go_on_without_compiling(error: Exception, tmp_path: Path) -> None:
    outer = RuntimeError("a step failed")
    outer.__cause__ = error
    for each in (error, outer):
        found = find_compile_error(each, tmp_path)
        assert found is not None
        assert found.message.startswith(
            f"the layers could not be compiled: {str(error).splitlines()[0][:30]}"
        )
        assert len(found.message) < 300
        assert f"kovqa train --resume -o {tmp_path} --set profile.compile=false" in found.hint


def test_other_errors_are_no_compilers(tmp_path: Path) -> None:
    again: Exception = RuntimeError("shapes do not fit")
    again.__context__ = again
    for error in (RuntimeError("shapes do not fit"), again):
        assert find_compile_error(error, tmp_path) is None


def test_an_endless_message_is_cut_wherever_it_is_kept(small: Small, tmp_path: Path) -> None:
    error = RuntimeError("In function kernel: " * 5_000)
    worker._write_error(tmp_path, error, None)
    assert len(json.loads((tmp_path / "error.json").read_text())["message"]) < 1_100
    run = make_small_run(small, tmp_path / "run")
    with pytest.raises(RuntimeError), record_launch(run):
        raise error
    assert len(str(read_launches(run.folder)[-1].error)) < 1_100
