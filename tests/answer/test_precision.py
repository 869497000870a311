"""In which numbers a model answers: chosen by one function, said, and never mixed within a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kovqa_core.answer import local
from kovqa_core.answer.job import AnsweredRow, AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.errors import SettingsError, Stopped
from kovqa_core.models.precision import choose_precision, own_precision, profile_precision
from kovqa_core.progress import OnProgress
from kovqa_core.settings.profile import Profile

from tests.conftest import Small


@pytest.mark.parametrize(
    ("device", "capability", "own", "chosen"),
    [
        ("cuda", (7, 0), "fp32", "fp16"),
        ("cuda", (7, 5), "fp32", "fp16"),
        ("cuda", (7, 5), "bf16", "fp16"),  # a vision language model on a T4
        ("cuda", (8, 0), "fp32", "bf16"),
        ("cuda", (9, 0), "fp32", "bf16"),
        ("cuda", (12, 0), "fp32", "bf16"),
        ("cpu", None, "fp32", "fp32"),
        ("cpu", None, "bf16", "bf16"),
        ("mps", None, "fp32", "fp32"),
    ],
)
def test_auto_is_what_the_device_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int] | None, own: str, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision("auto", own, torch.device(device)) == chosen
    for asked in ("bf16", "fp16", "fp32"):
        assert choose_precision(asked, own, torch.device(device)) == asked


def test_a_precision_that_does_not_exist_is_named() -> None:
    with pytest.raises(SettingsError, match="--precision int8") as caught:
        choose_precision("int8", "fp32", torch.device("cpu"))
    assert "bf16" in caught.value.hint


def test_processes_of_a_profile_take_its_precision() -> None:
    """Whatever machine starts them; a CPU's answer as they always did."""
    t4, cpu = Profile(name="t4", gpu="Tesla T4", precision="fp16"), Profile(name="cpu", precision="bf16")
    assert profile_precision("auto", "fp32", t4) == "fp16"
    assert profile_precision("fp32", "fp32", t4) == "fp32"
    assert profile_precision("auto", "fp32", cpu) == "fp32"


def test_a_models_own_precision_is_read_without_loading_it(tmp_path: Path, trained: Path) -> None:
    assert own_precision(trained / "step-000006") == "fp32"
    assert own_precision(tmp_path) == "fp32"  # no model: its loading says so
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen3_vl", "architectures": ["X"]}), "utf-8"
    )
    assert own_precision(tmp_path) == "bf16"
    (tmp_path / "kovqa.json").write_text(
        json.dumps({"format": 1, "family": "vlm", "task": "vqa", "model": {"dtype": "fp32"}}), "utf-8"
    )
    assert own_precision(tmp_path) == "fp32"


@pytest.fixture
def job(small: Small, trained: Path, tmp_path: Path) -> AnswerJob:
    return AnswerJob(small.index / "test.jsonl", tmp_path / "out.jsonl", AnswerOptions(trained))


def test_answers_of_two_precisions_are_not_mixed(job: AnswerJob) -> None:
    """A table that was half answered in fp32, as all were before there was a choice, and one in bf16."""
    with pytest.raises(Stopped):
        _run(job, "auto", stop_after=3)
    partial = json.loads(job.output.with_name("out.jsonl.part.json").read_text("utf-8"))
    assert "precision" not in partial
    with pytest.raises(SettingsError, match=r"another precision.*fp32, not bf16; see --precision"):
        _run(job, "bf16")
    exact = _run(job, "fp32")
    assert (exact.kept, exact.precision) == (3, "fp32")

    other = replace(job, output=job.output.with_name("16.jsonl"))
    with pytest.raises(Stopped):
        _run(other, "bf16", stop_after=3)
    with pytest.raises(SettingsError, match=r"another precision.*bf16, not"):
        _run(other, "auto")
    half = _run(other, "bf16")
    assert (half.kept, half.precision) == (3, "bf16")
    record = json.loads((other.output.with_name(".16.jsonl.json")).read_text("utf-8"))
    assert record["fingerprint"]["precision"] == "bf16"
    rows = [[json.loads(line) for line in path.open(encoding="utf-8")] for path in (job.output, other.output)]
    scores = [(a["score"], b["score"]) for a, b in zip(*rows, strict=True)]
    assert any(a != b for a, b in scores), "bf16 was asked for"
    assert all(a == pytest.approx(b, abs=0.02) for a, b in scores)


def _run(job: AnswerJob, precision: str, stop_after: int | None = None):  # type: ignore[no-untyped-def]
    job = replace(job, options=replace(job.options, precision=precision))
    backend = local.local_backend(job.options)

    def some_rows(job: AnswerJob, rows: Sequence[QuestionRow], progress: OnProgress) -> Iterator[AnsweredRow]:
        for number, answered in enumerate(backend.answer_rows(job, rows, progress)):
            if number == stop_after:
                return
            yield answered

    return run_answer_job(job, replace(backend, answer_rows=some_rows))
