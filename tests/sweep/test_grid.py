"""What a sweep varies, and what its runs are called."""

from __future__ import annotations

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.sweep.grid import axis_names, grid_points, parse_grid


def names(*grid: str, seeds: str | None = None) -> list[str]:
    return [point.name for point in grid_points(parse_grid(grid, seeds))]


def test_every_combination_with_every_seed() -> None:
    assert names("optim.lr=1e-5, 3e-5", "data.flip=true,false", seeds="2") == [
        f"lr={lr},flip={flip},seed={seed}" for lr in ("1e-5", "3e-5") for flip in ("true", "false") for seed in (0, 1)
    ]  # fmt: skip
    (point,) = grid_points(parse_grid(["optim.lr=1e-5"], "7,"))
    assert point.assignments == ["optim.lr=1e-5", "seed=7"]
    assert names(seeds="1,5,9") == ["seed=1", "seed=5", "seed=9"]
    assert names("optim.lr=1,2") == ["lr=1", "lr=2"]


def test_names_stay_readable_and_each_its_own() -> None:
    grid = parse_grid(["optim.lr=1,2", "model.lr=3"], None)
    assert axis_names(grid) == ["optim.lr", "model.lr"]
    assert names("optim.betas=[0.9, 0.99],[0.9,0.999]") == ["betas=0.9-0.99", "betas=0.9-0.999"]
    assert names("model.weights=a/b,a b") == ["weights=a-b", "weights=a-b-2"]
    (long,) = names(f"model.weights={'가' * 300}")
    assert len(long.encode()) < 255 + 100
    assert names("model.weights=모델/첫째,'가,나'") == ["weights=모델-첫째", "weights=가-나"]


@pytest.mark.parametrize(
    ("grid", "seeds", "sets", "problem"),
    [
        ((), None, (), "nothing varies"),
        (("optim.lr",), None, (), "expected KEY=VALUE,VALUE"),
        (("optim.lr=1,,2",), None, (), "expected KEY=VALUE,VALUE"),
        (("optim.lr=1e-5,0.00001",), None, (), "0.00001 is there twice"),
        (("optim.lr=1,2", "optim.lr=3"), None, (), "optim.lr is given twice"),
        (("optim.lr=1,2",), None, ("optim.lr=3",), "optim.lr is given twice"),
        (("seed=1,2",), None, (), "averaged over seeds"),
        ((), "three", (), "expected numbers"),
        ((), "0", (), "1 to 100"),
        ((), "1,1", (), "1 to 100"),
        ((), "101", (), "1 to 100"),
        (("a.b={x: [1, y}",), None, (), "--grid a.b"),
    ],
)
def test_what_is_no_grid(
    grid: tuple[str, ...], seeds: str | None, sets: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_grid(grid, seeds, sets)
    assert problem in str(refused.value)


def test_far_too_many_runs() -> None:
    values = ",".join(map(str, range(40)))
    with pytest.raises(SettingsError, match="1,600 runs are more than 1,000"):
        names(f"a={values}", f"b={values}")
