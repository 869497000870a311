"""Profiles: those shipped, those of one's own, and the one of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import kovqa_core
import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.launch.launchers import LAUNCHERS, check_launcher_of
from kovqa_core.launch.machine_check import check_machine, local_profiles
from kovqa_core.machine import detect_profile
from kovqa_core.machine.detect_profile import detect_profile_text
from kovqa_core.machine.hardware import APPLE_GPU, nearest_profile
from kovqa_core.machine.visible_devices import GpuInfo
from kovqa_core.plan.micro_batch import choose_micro_batch
from kovqa_core.settings.new_files import new_settings
from kovqa_core.settings.profile import Profile, _slurm_time_seconds
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import split_recipe_batch
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, parse_yaml

from tests.conftest import Kovqa

PROFILES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "profiles").glob("*.yaml"))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_machines_people_have_are_there() -> None:
    assert set(PROFILES) >= {
        "cpu", "mps", "rtx3090x1", "rtx3090x4", "rtx4090x1", "rtx4090x4", "a100x1", "a100x4", "a100x8", "h100x1", "h100x8",
        "h200x1", "colab-t4", "colab-a100", "a100x4x2", "slurm-a100x4", "slurm-rtx3090x4", "slurm-a100x4x2",
    }  # fmt: skip
    assert load_profile("colab-t4").precision == "fp16"
    assert load_profile("mps").device == "mps"


@pytest.mark.parametrize(
    ("name", "memory", "count", "profile"),
    [
        ("NVIDIA GeForce RTX 3090", 24, 1, "rtx3090x1"),
        ("NVIDIA GeForce RTX 3090", 24, 4, "rtx3090x4"),
        ("NVIDIA GeForce RTX 4090", 24, 4, "rtx4090x4"),
        ("NVIDIA A100-SXM4-80GB", 80, 8, "a100x8"),
        ("NVIDIA A100-SXM4-40GB", 40, 1, "colab-a100"),
        ("NVIDIA A100-SXM4-40GB", 40, 4, "nvidia"),
        ("NVIDIA H200", 140, 1, "h200x1"),
        ("NVIDIA H100 80GB HBM3", 80, 1, "h100x1"),
        ("NVIDIA H100 80GB HBM3", 80, 8, "h100x8"),
        ("NVIDIA H100 NVL", 94, 1, "nvidia"),  # with more memory than the named one states
        ("NVIDIA GH200 480GB", 96, 1, "nvidia"),  # no H200
        ("Tesla T4", 15, 1, "colab-t4"),
        ("NVIDIA T400 4GB", 4, 1, "cpu"),
        (APPLE_GPU, 32, 1, "mps"),
    ],
)
def test_fitting_profile(name: str, memory: int, count: int, profile: str) -> None:
    assert nearest_profile([GpuInfo(name, memory)] * count, local_profiles()) == profile


RECIPES = sorted(path.stem for path in (Path(kovqa_core.__file__).parent / "recipes").glob("*.yaml"))
SIZES = [name for name in PROFILES if load_profile(name).gpu_memory_gb]


@pytest.mark.parametrize("name", SIZES)
def test_every_recipe_fits_on_every_card_and_fills_it(name: str) -> None:
    """By the count that `kovqa train -n` shows. A CPU's memory is that of the machine, whichever it is."""
    profile, counted = load_profile(name), []
    for recipe in map(load_recipe, RECIPES):
        chosen, planned = choose_micro_batch(recipe, profile)
        if planned.needs is None:  # its size is that of a base model, which is fetched and not here
            assert recipe.family == "vlm", planned.unknown
            continue
        assert planned.warning is None, recipe.name
        counted.append(recipe.name)
        if profile.device == "mps":  # whose memory is the computer's: its numbers stand in the file
            continue
        micro_batch, accumulate = split_recipe_batch(recipe, chosen)
        double = choose_micro_batch(recipe, chosen, str(2 * micro_batch))[1].needs
        assert accumulate == 1 or (double is not None and double.peak > 0.9 * profile.gpu_memory_gb * 2**30)
        assert chosen.activation_checkpointing in (True, False)
    assert {"kobeit3", "vqav2-large", "coco-caption-large", "nia"} <= set(counted)


@pytest.mark.parametrize(
    ("name", "recipe", "least"),
    [
        ("rtx3090x1", "vqav2", 32),
        ("rtx3090x1", "nia", 256),
        ("colab-t4", "nia", 128),
        ("h200x1", "kobeit3", 256),
    ],
)
def test_activations_are_computed_once_where_many_examples_fit(name: str, recipe: str, least: int) -> None:
    chosen, _ = choose_micro_batch(load_recipe(recipe), load_profile(name))
    assert chosen.max_micro_batch(recipe) >= least
    assert not chosen.checkpoints_activations


def test_new_profile(kovqa: Kovqa, own_home: Path) -> None:
    env = {"KOVQA_HOME": str(own_home)}
    words = ["profiles", "new", "우리-서버", "--from", "slurm-a100x4", "--set", "slurm.partition=gpu",
             "--set", "profile.processes_per_node=2", "--set", "slurm.time=2-00:00:00"]  # fmt: skip
    done = kovqa(*words, **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(own_home / "profiles" / "우리-서버.yaml")
    profile = load_profile("우리-서버")
    assert profile == load_profile("slurm-a100x4").model_copy(
        update={"name": "우리-서버", "processes_per_node": 2, "slurm": profile.slurm}
    )
    assert (profile.slurm.partition, profile.slurm.time) == ("gpu", "2-00:00:00")
    text = (own_home / "profiles" / "우리-서버.yaml").read_text("utf-8")
    assert "# account: mylab" in text  # comments stay
    assert "# kovqa train --profile 우리-서버\n" in text  # and name the copy where they say how it is used
    again = kovqa(*words, **env)  # as after a kill: what is there already is what was asked for
    assert (again.returncode, again.stdout) == (0, done.stdout)
    other = kovqa(*words, "--set", "slurm.time=1:00", **env)
    assert (other.returncode, other.stdout) == (2, "")  # never written over
    assert "우리-서버" in kovqa("profiles", "-q", **env).stdout.split()


def test_a_wrong_profile_is_not_written(own_home: Path) -> None:
    for wrong, word in (
        ("gpuz=A100", "gpuz"),
        ("slurm.time=yesterday", "slurm.time"),
        ("nodes=2", "cpu.yaml:3:1: torchrun over several nodes needs rendezvous: HOST:PORT"),
        ("launcher=sbatc", "--set launcher=sbatc: unknown launcher 'sbatc'; did you mean sbatch"),
    ):
        with pytest.raises(SettingsError, match=word):
            new_settings("profiles", "mine", "cpu", [wrong], check=check_launcher_of)
    assert not own_home.exists()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400), ("24:00:00", 86400), ("30:00", 1800), ("2-0", 172800), ("2-12:30", 217800),
        ("1-00:00:00", 86400), ("UNLIMITED", None), ("", None),
    ],
)  # fmt: skip
def test_time_limits_stay_text(time: str, seconds: int | None) -> None:
    text = f"name: x\nslurm:\n  time: {time}" if time else "name: x"
    assert build_settings(Profile, parse_yaml(text, "x")).slurm.time == time
    assert _slurm_time_seconds(time) == seconds


def test_a_warning_has_to_come_after_the_start() -> None:
    with pytest.raises(SettingsError, match="300 s before a time limit of 300 s leaves no time to train"):
        build_settings(Profile, parse_yaml("name: x\nslurm: {time: 5}", "x"))


def test_detect_on_a_machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        detect_profile, "visible_gpus", lambda: [GpuInfo("NVIDIA GeForce RTX 4090", 24, (8, 9))] * 2
    )
    monkeypatch.setattr(detect_profile, "usable_cpu_count", lambda: 32)
    monkeypatch.setattr(detect_profile, "slurm_partitions", lambda: [])
    text = detect_profile_text("둘", local_profiles())
    profile = build_settings(Profile, SettingsDocument({"name": "둘", **parse_yaml(text, "둘").values}))
    assert "2 × NVIDIA GeForce RTX 4090 (24 GB), 32 cores" in text
    assert (profile.processes_per_node, profile.loader_workers, profile.precision) == (2, 12, "bf16")
    assert (profile.gpu_memory_gb, profile.micro_batch, profile.activation_checkpointing) == (24, {}, "auto")


@pytest.mark.parametrize(
    ("line", "gpus", "kind", "cpus"),
    [
        ("gpu*|gpu:a100:8(S:0-1)|128|2-00:00:00|12", 8, "a100", 128),
        ("cpu|(null)|64+|infinite|3", 0, "", 64),
        ("debug|gpu:4,shard:16|32|1:00:00|1", 4, "", 32),
    ],
)
def test_partitions_are_read(line: str, gpus: int, kind: str, cpus: int) -> None:
    partition = detect_profile._parse_partition(line.split("|"))
    assert (partition.gpus, partition.gpu_type, partition.cpus) == (gpus, kind, cpus)
    assert partition.default == line.startswith("gpu*")


def test_detect_says_that_sinfo_fails(kovqa: Kovqa, own_home: Path, tmp_path: Path) -> None:
    """What is written is of the login node alone: nobody asked for that."""
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'sinfo: error: no controller' >&2\nexit 1\n")
    sinfo.chmod(0o755)
    env = {"KOVQA_HOME": str(own_home), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = kovqa("profiles", "detect", **env)
    assert done.returncode == 0
    assert "SLURM's sinfo is here and fails: sinfo: error: no controller" in done.stderr


def test_detect_prefers_the_partition_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["cpu*|(null)|64|infinite|3", "gpu|gpu:a100:8(S:0-1)|128|2-00:00:00|12"]
    monkeypatch.setattr(detect_profile, "visible_gpus", lambda: [])
    monkeypatch.setattr(
        detect_profile,
        "slurm_partitions",
        lambda: [detect_profile._parse_partition(line.split("|")) for line in lines],
    )
    profile = build_settings(
        Profile,
        SettingsDocument({"name": "x", **parse_yaml(detect_profile_text("x", local_profiles()), "x").values}),
    )
    assert (profile.launcher, profile.processes_per_node, profile.gpu) == ("sbatch", 8, "A100")
    assert (profile.slurm.partition, profile.slurm.gpu_type, profile.slurm.time) == (
        "gpu",
        "a100",
        "2-00:00:00",
    )
    check_machine(load_profile("cpu"))


def test_schema_knows_every_key(kovqa: Kovqa) -> None:
    schema = json.loads(kovqa("profiles", "schema").stdout)
    assert set(schema["properties"]) == set(Profile.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == []
    assert schema["properties"]["launcher"]["enum"] == list(LAUNCHERS)
