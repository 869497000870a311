"""kovqa sweep: runs one after the other, resumed, failing, changed; training itself is left out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, KovqaError, SettingsError, WorkerError
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.runs.folder import RunResult, write_result
from kovqa_core.settings.run import RUN_FILE, read_run
from kovqa_core.sweep import run as sweep_run

from kovqa_cli.commands.sweep import sweep
from tests.conftest import SMALL, Kovqa, Small

Sweep = Callable[..., None]
Start = Callable[[LaunchPlan, object], None]


def score_of(lr: float, seed: int) -> float:
    return lr * 100 + seed / 100


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, Exception]]:
    """Names of the runs in the order of their training; and what a run ends with, by name, in place of a result."""
    trained: list[str] = []
    endings: dict[str, Exception] = {}

    def start(plan: LaunchPlan, on_event: object) -> None:
        trained.append(plan.folder.name)
        if ending := endings.pop(plan.folder.name, None):
            raise ending
        recipe = read_run(plan.folder / RUN_FILE).recipe
        score = score_of(recipe.optim.lr, recipe.seed)
        write_result(plan.folder, RunResult("vqa", recipe.name, 4, "step-000004", score, score, 1.0, 9.0))

    monkeypatch.setattr(sweep_run, "start_processes", start)
    return trained, endings


@pytest.fixture
def swept(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Types `kovqa sweep -r tiny -p cpu -o DIR` with what is given besides."""
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "집"))
    monkeypatch.chdir(tmp_path)

    def typed(*grid: str, seeds: str | None = "2", sets: tuple[str, ...] = (), **options: object) -> None:
        files = {"data": str(small.index), "tokenizer": str(small.tokenizer)}
        defaults: dict[str, object] = {
            "output": Path("비교"),
            "recipe": "tiny",
            "profile": "cpu",
            "json": True,
        }
        lengths = [*SMALL, "optim.steps=4", *sets]
        sweep(grid=list(grid), seeds=seeds, sets=lengths, **{**defaults, **files, **options})  # type: ignore[arg-type]

    return typed


LR = "optim.lr=1e-4,3e-4"
RUNS = ["lr=1e-4,seed=0", "lr=1e-4,seed=1", "lr=3e-4,seed=0", "lr=3e-4,seed=1"]
Here = tuple[list[str], dict[str, Exception]]


def test_runs_and_their_table(swept: Sweep, trained_here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    swept(LR)
    assert trained_here[0] == RUNS
    table = json.loads(capsys.readouterr().out)
    best, other = table["settings"]
    scores = [score_of(3e-4, seed) for seed in (0, 1)]
    assert (best["values"], best["scores"]) == ({"optim.lr": "3e-4"}, scores)
    assert (best["mean"], best["spread"]) == (statistics.fmean(scores), statistics.stdev(scores))
    assert other["values"] == {"optim.lr": "1e-4"}
    assert table["best"].endswith("비교/lr=3e-4,seed=1")
    swept(LR, json=False, quiet=True)
    assert trained_here[0] == RUNS
    assert capsys.readouterr().out == "비교/lr=3e-4,seed=1\n"
    swept(LR, json=False)
    shown = capsys.readouterr()
    assert "4 runs (2 settings × 2 seeds), 4 of them finished" in shown.err
    rows = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert rows[0] == ["lr", "score", "spread", "runs"]
    assert rows[2] == ["3e-4", "3.50%", "0.71%", "2", "finished"]
    one = read_run(Path("비교/lr=1e-4,seed=1/run.yaml"))
    assert (one.recipe.optim.lr, one.recipe.seed) == (1e-4, 1)


def test_a_stopped_sweep_goes_on(
    swept: Sweep, trained_here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, endings = trained_here
    endings[RUNS[1]] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        swept(LR)
    assert "the same command goes on with the runs in 비교 that are not finished" in capsys.readouterr().err
    swept(LR)
    assert trained == [*RUNS[:2], *RUNS[1:]]


def test_a_run_that_fails_stops_no_other(
    swept: Sweep, trained_here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, endings = trained_here
    endings |= {RUNS[0]: WorkerError("rank 0 failed: NaN", "x"), RUNS[2]: DataError("late")}  # type: ignore[arg-type]
    with pytest.raises(
        WorkerError, match=r"2 of 4 runs failed, the first lr=1e-4,seed=0: rank 0 failed: NaN"
    ):
        swept(LR)
    assert trained == RUNS
    runs = [run for row in json.loads(capsys.readouterr().out)["settings"] for run in row["runs"]]
    assert {run["name"]: run["state"] for run in runs} == dict(
        zip(RUNS, ["failed", "finished"] * 2, strict=True)
    )
    swept(LR)
    assert trained == [*RUNS, RUNS[0], RUNS[2]]


def test_a_shared_cause_stops_at_the_first(swept: Sweep, trained_here: Here) -> None:
    trained, endings = trained_here
    endings[RUNS[0]] = DataError("the index is damaged")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the index is damaged"):
        swept(LR)
    assert trained == RUNS[:1]


def test_a_changed_grid_is_told(swept: Sweep, trained_here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    swept(LR)
    capsys.readouterr()
    swept("optim.lr=3e-4,1e-3", seeds="0,2", json=False)
    said = capsys.readouterr().err
    assert "the grid has changed: optim.lr 3e-4, 1e-3 (1e-4, 3e-4 before)" in said
    assert "the grid has changed: seeds 0, 2 (0, 1 before)" in said
    assert "3 runs of the earlier grid stay as they are" in said
    assert trained_here[0] == [*RUNS, "lr=3e-4,seed=2", "lr=1e-3,seed=0", "lr=1e-3,seed=2"]
    with pytest.raises(SettingsError, match=r"was started with other settings: optim\.weight_decay"):
        swept(LR, sets=("optim.weight_decay=0.2",))


def test_nothing_starts_where_something_cannot_be(swept: Sweep, trained_here: Here) -> None:
    for grid, options, problem in (
        ("optim.lrr=1,2", {}, "--grid optim.lrr=1: unknown key 'lrr'; did you mean lr?"),
        ("lr=1,2", {}, "did you mean optim.lr?"),
        ("model.image_sise=32,64", {}, "image_size"),
        ("optim.lr=1e-4,fast", {}, "--grid optim.lr=fast"),
        ("optim.lr=1e-4,1e-9", {}, "optim.min_lr"),
        (
            "profile.rendezvous=127.0.0.1:29500",
            {"sets": ("profile.nodes=2", "optim.global_batch=16")},
            "typed on every node",
        ),
        ("optim.steps=4,8", {}, "optim.steps is given twice"),
        ("optim.epochs=1,2", {}, "say the same in two units"),
    ):
        with pytest.raises(KovqaError) as refused:
            swept(grid, **options)  # type: ignore[arg-type]
        assert problem in str(refused.value), grid
        assert refused.value.exit_code == 2
    assert not trained_here[0]
    assert not Path("비교").exists()


def test_a_run_folder_is_no_sweep(swept: Sweep) -> None:
    Path("비교").mkdir()
    Path("비교/run.yaml").touch()
    with pytest.raises(SettingsError, match="비교 is a run folder"):
        swept(LR)


def test_a_dry_run_shows_all_runs_and_leaves_nothing(
    swept: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    swept(LR, dry_run=True, json=False)
    shown = capsys.readouterr()
    assert all(name in shown.out for name in RUNS)
    assert "4 runs (2 settings × 2 seeds), 0 of them finished; one after the other" in shown.err
    swept(LR, dry_run=True)
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["name"], run["seed"], run["finished"]) for run in runs] == [
        (name, n % 2, False) for n, name in enumerate(RUNS)
    ]
    assert [path.name for path in Path().iterdir()] == []


@pytest.mark.soak
def test_real_runs(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    words = [
        "sweep",
        "-r",
        "tiny",
        "-p",
        "cpu",
        "--data",
        small.index,
        "--tokenizer",
        small.tokenizer,
        "-o",
        "s",
        "--json",
    ]
    for setting in (*SMALL, "optim.steps=2"):
        words += ["--set", setting]
    done = kovqa(*words, "--grid", LR)
    assert done.returncode == 0, done.stderr
    assert [len(row["scores"]) for row in json.loads(done.stdout)["settings"]] == [1, 1]
    assert len(list((tmp_path / "s").glob("*/step-000002"))) == 2
