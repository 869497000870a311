"""The benchmark of GPUs runs: every row on a CPU, on tiny shapes, so that it does not rot where no GPU is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from kovqa_cli.main import app

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """bench/ holds scripts that import each other."""
    monkeypatch.syspath_prepend(str(BENCH))


TINY_CPU = (torch.device("cpu"), True, 0.0)


def test_every_row_runs_and_says_what_it_lacks(bench_path: None, tmp_path: Path) -> None:
    import gpu_speed

    file = tmp_path / "card.json"
    rows = [row for row in gpu_speed.ROWS if row.number != 12]  # a whole kovqa train: below
    report = gpu_speed.run_rows(gpu_speed.Bench(*TINY_CPU), rows, 60, file)
    assert json.loads(file.read_text()) == json.loads(json.dumps(report))
    assert {int(number) for number in report["rows"]} == set(range(12))
    for number, row in report["rows"].items():
        assert row["contestants"] or row["numbers"] or number == "5", number
        assert all(one["examples_per_second"] > 0 and one["turns"] >= 2 for one in row["contestants"])
    first = report["rows"]["1"]
    has_torchscale = "torchscale" in {one["name"] for one in first["contestants"]}
    assert has_torchscale != any("torchscale is not installed" in note for note in first["notes"])
    assert first["contestants"][0]["flops"] > 0


def test_a_row_begins_only_if_it_fits_and_the_file_is_whole_after_each(
    bench_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_speed

    file, seen = tmp_path / "card.json", []

    def measure(bench: object) -> object:
        seen.append(sorted(json.loads(file.read_text())["rows"]) if file.exists() else [])
        # A card at half the speed of an H100: what takes 40 s there takes 80 s here.
        return gpu_speed.RowResult(numbers={"product_flops_per_second": gpu_speed.H100_PRODUCT / 2})

    def break_off(bench: object) -> object:
        raise RuntimeError("CUDA error: an illegal memory access")

    rows = [
        gpu_speed.Row(0, "first", 1, measure),
        gpu_speed.Row(1, "breaks", 1, break_off),
        gpu_speed.Row(2, "too long", 40, measure),
        gpu_speed.Row(3, "short", 20, measure),
    ]
    bench = gpu_speed.Bench(torch.device("cpu"), False)
    monkeypatch.setattr(gpu_speed, "free_memory", lambda device: None)
    report = gpu_speed.run_rows(bench, rows, 60, file)
    assert seen == [[], ["0", "1"]]
    assert set(report["left_out"]) == {"2"}
    assert report["left_out"]["2"].endswith("it takes about 80")
    assert report["rows"]["1"]["notes"] == ["failed: RuntimeError: CUDA error: an illegal memory access"]
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize("tiny", [True, False])
def test_the_whole_run_is_one_that_kovqa_train_accepts(bench_path: None, tmp_path: Path, tiny: bool) -> None:
    import gpu_other_rows
    from gpu_contestants import Bench

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_other_rows, "write_photos", write_few_photos)
        words = gpu_other_rows._training_words(Bench(torch.device("cpu"), tiny), tmp_path, 6, 4)
    profile = [] if tiny else ["-p", "h200x1"]
    planned = CliRunner().invoke(app, [*words[4:], *profile, "-n"], catch_exceptions=False)
    assert planned.exit_code == 0, planned.output


def write_few_photos(folder: Path, number: int) -> list[object]:
    from kovqa_core.data.example import Example
    from PIL import Image

    for n in range(64):
        Image.new("RGB", (40, 30), (n, n, n)).save(folder / f"{n}.jpg")
    return [Example(str(n), f"{n}.jpg", "몇 명인가요?", {"예": 1.0}) for n in range(64)]


@pytest.mark.soak
def test_a_whole_run_is_timed(bench_path: None) -> None:
    import gpu_other_rows
    from gpu_contestants import Bench

    found = gpu_other_rows.whole_run_row(Bench(*TINY_CPU))
    assert found.numbers["seconds to the first step"] > found.numbers["seconds of a step"] > 0


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "NVIDIA H200"])
def test_a_cards_file_has_its_name(bench_path: None, name: str) -> None:
    from gpu_speed import card_file

    assert card_file(name).name == name.replace(" ", "-") + ".json"
    assert card_file(name).parent.name == "gpu"


def test_without_a_gpu_it_says_so(bench_path: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_speed

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in ([], ["--device", "cpu"]):
        monkeypatch.setattr(sys, "argv", ["gpu_speed.py", *words])
        with pytest.raises(SystemExit, match="--device cpu"):
            gpu_speed.main()
