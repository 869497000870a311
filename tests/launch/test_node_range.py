"""nodes: 1:4 on paper: what is allowed, what torchrun is told, and the same examples on any number of nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.launch.launchers import find_launcher
from kovqa_core.launch.plan import plan_launch
from kovqa_core.launch.world_size import require_world_size
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_recipe
from kovqa_core.settings.run import Run, make_run, split_for_processes
from kovqa_core.train.loader import micro_batch_keys
from pydantic import ValidationError


def profile(**changed: object) -> Profile:
    settings = {
        "name": "p",
        "nodes": "1:4",
        "processes_per_node": 2,
        "rendezvous": "h1:29500",
        "max_restarts": 3,
    }
    return Profile.model_validate({**settings, **changed})


def run_of(batch: int, **changed: object) -> Run:
    recipe = load_recipe("tiny")
    recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"global_batch": batch})})
    return make_run(recipe, profile(**changed), Path("/run"), [])


@pytest.mark.parametrize(("nodes", "means"), [(3, [3]), ("1:4", [1, 2, 3, 4]), ("2:2", [2])])
def test_a_number_or_a_range(nodes: int | str, means: list[int]) -> None:
    assert list(profile(nodes=nodes).node_range) == means
    assert profile(nodes=nodes).processes == 2 * means[-1]


@pytest.mark.parametrize("nodes", ["4:1", "0:4", 0, "1-4", ":", "1:2:3", "many"])
def test_what_is_no_range(nodes: int | str) -> None:
    with pytest.raises(ValidationError, match="LEAST:MOST, like 1:4"):
        profile(nodes=nodes)


def test_torchrun_is_told_the_range() -> None:
    argv = plan_launch(run_of(24), "python3", cores=4).argv
    assert "--nnodes=1:4" in argv
    assert "--rdzv-conf=join_timeout=600,read_timeout=30,last_call_timeout=30" in argv


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_restarts": 0}, "set max_restarts"),
        ({"launcher": "srun"}, "one number of nodes"),
        ({"launcher": "sbatch"}, "one number of nodes"),
        ({"rendezvous": ""}, "HOST:PORT"),
    ],
)
def test_what_does_not_go_with_a_range(changed: dict[str, object], words: str) -> None:
    asked = profile(**changed)
    problem = find_launcher(asked).settings_problem(asked)
    assert problem is not None
    assert words in problem


def test_every_number_of_nodes_shares_the_batch() -> None:
    with pytest.raises(SettingsError, match="16 cannot be shared by 6 processes") as caught:
        run_of(16)
    assert "optim.global_batch=24" in caught.value.hint
    run_of(48)


@pytest.mark.parametrize("came", [2, 4, 6, 8])
def test_the_same_examples_on_any_number_of_nodes(came: int) -> None:
    planned = run_of(48, micro_batch={"default": 8})
    require_world_size(RankInfo(0, 0, came), planned.profile)
    run = split_for_processes(planned, came)
    assert (run.profile.processes, run.micro_batch * run.accumulate * came) == (came, 48)
    assert run.micro_batch <= 8
    ranks = [micro_batch_keys(run, 100, RankInfo(rank, 0, came), 1, 2) for rank in range(came)]
    step = sorted(key for rank in ranks for batch in rank for key in batch)
    assert step == sorted(
        next(micro_batch_keys(planned.model_copy(update={"micro_batch": 48}), 100, RankInfo(0, 0, 1), 1, 2))
    )


@pytest.mark.parametrize("came", [1, 3, 10])
def test_half_a_node_or_too_many_are_refused(came: int) -> None:
    with pytest.raises(MachineError, match=r"the profile wants 2:8 \(1:4 × 2"):
        require_world_size(RankInfo(0, 0, came), profile())
