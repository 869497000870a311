"""Each profile's launch is exactly the recorded text, and means the same experiment when it is read back."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.launch.launchers.slurm_options import NODE_SCRIPT
from kovqa_core.launch.plan import WORKER_FILE, plan_launch
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import make_run

from tests.conftest import SMALL, Kovqa, Small, clean_env, sets

RECORDED = Path(__file__).parent.parent / "fixtures" / "launch"
FOLDER = Path("/실험 폴더/runs/첫 '실행' #1")
PROFILES = sorted(path.stem for path in (Path(__file__).parents[2] / "profiles").glob("*.yaml"))


def planned(name: str) -> LaunchPlan:
    run = make_run(load_recipe("kobeit3"), load_profile(name), FOLDER, [])
    return plan_launch(run, "/usr/bin/python3", cores=48, start_folder=Path("/내 폴더"))


def recorded(name: str) -> str:
    """The command of a profile, and its script, with this machine's paths replaced by names."""
    launch = planned(name)
    text = f"{launch.shell_command()}\n" + (f"\n{launch.script}" if launch.script else "")
    return text.replace(str(WORKER_FILE), "WORKER").replace(str(NODE_SCRIPT), "NODE")


@pytest.mark.parametrize("name", PROFILES)
def test_launch_is_the_recorded_one(name: str) -> None:
    assert recorded(name) == (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


def bash_words(command: str) -> list[str]:
    """A command's words as bash reads them: a line break is $'\\012' in it."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("name", PROFILES)
def test_command_parses_back(name: str) -> None:
    launch = planned(name)
    words = bash_words(launch.shell_command())
    variables = dict(word.split("=", 1) for word in words[: len(launch.env)])
    assert variables == launch.env
    assert words[len(launch.env) :] == launch.argv


SCRIPTS = [name for name in PROFILES if load_profile(name).launcher == "sbatch"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_says_the_same_in_bash(name: str, tmp_path: Path) -> None:
    """bash reads the script; what it would start is what srun starts by itself."""
    script = tmp_path / "job.sh"
    script.write_text(planned(name).script or "", encoding="utf-8")
    fake_srun = r"""srun() { printf '%s\0' "$@"; env -0; }; SLURM_JOB_ID=1; . "$1" """
    done = subprocess.run(
        ["bash", "-c", fake_srun, "kovqa", script],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("\0")
    profile = load_profile(name)
    srun = plan_launch(
        make_run(load_recipe("kobeit3"), profile.model_copy(update={"launcher": "srun"}), FOLDER, []),
        "/usr/bin/python3",
        cores=1,
    )
    begun = srun.argv.index("--nodes=" + str(profile.nodes))
    wanted = srun.argv[begun:]
    assert words[: len(wanted)] == wanted
    assert {f"{key}={value}" for key, value in srun.env.items()} <= set(words[len(wanted) :])


def test_prologue_wrap_python_and_binding() -> None:
    changed = {
        "setup": ["module load cuda", 'echo "$HOME 안녕"'],
        "command_prefix": ["apptainer", "exec", "내 이미지.sif"],
        "python": "python3",
        "binding": "node",
        "network_interface": "ib0",
        "env": {"NCCL_DEBUG": "INFO WARN"},
    }
    for name, bound in (("a100x4", "--numa-binding=node"), ("slurm-rtx3090x4", "--cpu-bind=ldoms")):
        profile = load_profile(name).model_copy(update=changed)
        launch = plan_launch(
            make_run(load_recipe("kobeit3"), profile, FOLDER, []), "/usr/bin/python3", cores=48
        )
        lines = ["set -e", *changed["setup"], 'exec "$@"']
        assert launch.argv[:4] == ["bash", "-c", "\n".join(lines), "kovqa"]
        at = launch.argv.index("apptainer")
        assert launch.argv[at : at + 5] == [*changed["command_prefix"], "python3", "-P"]
        assert bound in launch.argv
        assert launch.env["NCCL_SOCKET_IFNAME"] == launch.env["GLOO_SOCKET_IFNAME"] == "ib0"
        assert bash_words(launch.shell_command())[len(launch.env) :] == launch.argv


@pytest.mark.parametrize("name", ["a100x4", "rtx3090x4"])
def test_dry_run_prints_it(kovqa: Kovqa, tmp_path: Path, name: str) -> None:
    done = kovqa("train", "--profile", name, "--dry-run", "-o", "runs/r")
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace(str(WORKER_FILE), "WORKER").replace(
        shlex.quote(sys.executable), "/usr/bin/python3"
    )
    text = text.replace(
        shlex.quote(str((tmp_path / "runs/r/run.yaml").resolve())), shlex.quote(str(FOLDER / "run.yaml"))
    )
    wanted = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    threads = re.compile(r"OMP_NUM_THREADS=\d+")
    assert threads.sub("OMP", text) == threads.sub("OMP", wanted)
    batch = json.loads(kovqa("train", "--profile", name, "--dry-run", "--json", "-o", "runs/j").stdout)["run"]
    assert batch["recipe"]["optim"]["global_batch"] == 512
    assert batch["micro_batch"] * batch["accumulate"] * 4 == 512


def test_a_plans_command_starts_the_same_run(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    """It reads `run.yaml`, which a plan does not write; its text is in `--json`."""
    folder = tmp_path / "내 실험 폴더"
    folder.mkdir()
    words = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    options = sets(*SMALL, "optim.steps=3")
    prepared = kovqa(*words, *options, "-o", "붙여 넣기", "--dry-run", "--json", cwd=folder)
    assert prepared.returncode == 0, prepared.stderr
    plan = json.loads(prepared.stdout)
    (folder / "붙여 넣기").mkdir()
    (folder / "붙여 넣기" / "run.yaml").write_text(json.dumps(plan["run"]), encoding="utf-8")
    pasted = subprocess.run(
        ["bash", "-c", plan["command"]],
        cwd=folder,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert pasted.returncode == 0, pasted.stderr
    assert kovqa(*words, *options, "-o", "바로", cwd=folder).returncode == 0
    weights = [
        (folder / name / "step-000003" / "model.safetensors").read_bytes() for name in ("붙여 넣기", "바로")
    ]
    assert weights[0] == weights[1]


if __name__ == "__main__":  # python -m tests.launch.test_recorded: record anew
    RECORDED.mkdir(parents=True, exist_ok=True)
    for profile in PROFILES:
        (RECORDED / f"{profile}.txt").write_text(recorded(profile), encoding="utf-8")
    print(f"recorded {len(PROFILES)} launches in {os.path.relpath(RECORDED)}")
