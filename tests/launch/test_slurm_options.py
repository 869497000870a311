"""What a profile may hand on to SLURM, and what runs once per node before the workers. No SLURM is needed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.launch.launchers import check_launcher
from kovqa_core.launch.launchers.protocol import LaunchRequest
from kovqa_core.launch.launchers.slurm_conflicts import require_no_input_variable
from kovqa_core.launch.launchers.slurm_options import require_task_per_node, task_command
from kovqa_core.launch.machine_check import login_node_warnings
from kovqa_core.launch.plan import plan_launch
from kovqa_core.runs.folder import read_error
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_recipe
from kovqa_core.settings.run import Run, make_run


def profile(launcher: str = "sbatch", slurm: dict[str, object] | None = None, **values: object) -> Profile:
    return Profile.model_validate({"name": "x", "launcher": launcher, "slurm": slurm or {}, **values})


def run_of(settings: Profile, folder: Path) -> Run:
    return make_run(load_recipe("kobeit3"), settings, folder, [])


# --------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("launcher", ["srun", "sbatch"])
def test_srun_options_reach_the_workers_srun_and_nothing_else(launcher: str, tmp_path: Path) -> None:
    options = ["--mpi=none", "--container-image=/내 이미지.sqsh", "--gpu-bind=closest"]
    settings = profile(launcher, {"srun_options": options, "options": ["--exclusive", "--mem=0"]})
    check_launcher(settings)
    launch = plan_launch(run_of(settings, tmp_path), "/usr/bin/python3", cores=4)
    if launcher == "srun":
        words = launch.argv
    else:
        assert launch.script is not None
        assert "container" not in "".join(line for line in launch.script.splitlines() if "#SBATCH" in line)
        (step,) = (line for line in launch.script.splitlines() if line.startswith("srun "))
        words = step.split(" ")
        assert "'--container-image=/내" in words  # quoted for bash
    assert words.index("--mpi=none") < words.index("/usr/bin/python3")


@pytest.mark.parametrize(
    ("key", "option", "words"),
    [
        ("options", "--array=1-8", "every job of the array would train into the same run folder"),
        ("options", "-a1-8", "same run folder"),
        ("options", "--arr=1-8", "same run folder"),  # SLURM takes names that are cut
        ("options", "--ntasks=1", "set processes_per_node of the profile"),
        ("options", "-n 1", "set processes_per_node"),
        ("options", "--ntasks-per-gpu=2", "set processes_per_node"),
        ("options", "--nodes=3", "set nodes of the profile"),
        ("options", "--requeue", "set slurm.requeue"),
        ("options", "--wait", "changes what kovqa does with the job"),
        ("options", "--output=here.txt", "kovqa reads what the workers print"),
        ("options", "--gres=gpu:8", "set slurm.gpus"),
        ("options", "--signal=TERM@60", "set slurm.signal_seconds"),
        ("srun_options", "--label", "kovqa reads what the workers print"),
        ("srun_options", "-c8", "set slurm.cpus_per_task"),
        ("srun_options", "--cpu-bind=none", "set binding"),
        ("srun_options", "--export=NONE", "`env` of the profile"),
        ("srun_options", "--gpus-per-node=8", "set slurm.gpus"),
    ],
)
@pytest.mark.parametrize("launcher", ["srun", "sbatch"])
def test_options_that_are_kovqas_to_set_are_refused_by_name(
    launcher: str, key: str, option: str, words: str
) -> None:
    settings = profile(launcher, {key: [option]}, gpu="A100", binding="node")
    if (launcher, option) == ("srun", "--wait"):
        check_launcher(settings)  # srun's own: how long it waits for the other tasks
        return
    with pytest.raises(SettingsError) as error:
        check_launcher(settings, "p.yaml:3:1")
    assert error.value.message.startswith(f"p.yaml:3:1: slurm.{key}: {option} cannot be given: ")
    assert words in error.value.message


@pytest.mark.parametrize(
    "slurm",
    [
        {"options": ["--exclusive", "--mem-per-cpu=4G", "--gres=ssd:1", "--gpu-bind=single:1", "-C", "a100"]},
        {"options": ["--gpus-per-task=1", "--nodelist=n1", "--time-min=1", "--time=1:00:00", "--mem=64G"]},
        {"options": ["--gres=gpu:4,ssd:1"], "gpus": "none"},
        {"srun_options": ["--cpu-bind=none", "--mpi=pmix", "--gpus-per-task=1", "--signal=USR2@9"], "signal_seconds": 0},
    ],
)  # fmt: skip
def test_options_that_say_something_else_are_passed_on(slurm: dict[str, object]) -> None:
    check_launcher(profile(slurm=slurm, gpu="A100"))


def test_a_variable_of_sbatch_or_srun_is_an_option_too() -> None:
    with pytest.raises(
        SettingsError, match=r"SBATCH_ARRAY_INX=1-8 stands in the environment.*--array"
    ) as error:
        require_no_input_variable(profile(), {"SBATCH_ARRAY_INX": "1-8"})
    assert error.value.hint == "unset SBATCH_ARRAY_INX"
    with pytest.raises(SettingsError, match="SLURM_LABELIO=1 "):
        require_no_input_variable(profile("srun"), {"SLURM_LABELIO": "1", "SBATCH_ARRAY_INX": "1-8"})
    with pytest.raises(SettingsError, match=r"SBATCH_NO_REQUEUE=1 .* set slurm\.requeue of the profile"):
        require_no_input_variable(profile(), {"SBATCH_NO_REQUEUE": "1"})
    require_no_input_variable(profile(slurm={"requeue": False}), {"SBATCH_NO_REQUEUE": "1"})
    require_no_input_variable(profile(), {"SLURM_LABELIO": "1", "SBATCH_PARTITION": "main"})


def test_one_torchrun_per_node_needs_as_many_tasks_as_nodes() -> None:
    """Fewer would wait ten minutes for each other, more would share a node's GPUs."""
    settings = profile("srun", {"tasks": "node"}, nodes=2, processes_per_node=4)
    for environ in ({"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": "8"}, {"SLURM_NPROCS": "1"}):
        with pytest.raises(
            MachineError, match=r"srun would start \d tasks .* wants 2: one per node"
        ) as error:
            require_task_per_node(settings, environ)
        assert "--nodes=2 --ntasks=2" in error.value.hint
    require_task_per_node(settings, {"SLURM_NTASKS": "2"})
    require_task_per_node(settings, {})
    require_task_per_node(profile("srun", nodes=2), {"SLURM_NTASKS": "1"})  # tasks that count themselves


@pytest.mark.parametrize(("slurm", "threads", "cpus"), [({}, 0, 5), ({}, 3, 7), ({"cpus_per_task": 2}, 3, 2)])
def test_a_task_has_cores_for_its_loaders_and_its_threads(
    slurm: dict[str, object], threads: int, cpus: int, tmp_path: Path
) -> None:
    settings = profile("srun", slurm, loader_workers=4, threads=threads)
    launch = plan_launch(run_of(settings, tmp_path), "/usr/bin/python3", cores=64)
    assert f"--cpus-per-task={cpus}" in launch.argv
    if threads:
        assert launch.env["OMP_NUM_THREADS"] == str(threads)


@pytest.mark.parametrize("array", ["", "3"])
def test_the_script_is_not_for_an_array(array: str, tmp_path: Path) -> None:
    """Whoever types `sbatch --array=1-4 job.sh` does not get four runs in one folder."""
    script = plan_launch(run_of(profile(), tmp_path / "r"), "/usr/bin/python3", cores=4).script
    assert script is not None
    done = subprocess.run(
        ["bash", "-c", 'srun() { echo started; }; . "$1"', "kovqa", "/dev/stdin"],
        input=script,
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": array},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "started" in done.stdout) == ((2, False) if array else (0, True))
    assert ("without --array" in done.stderr) == bool(array)


# ------------------------------------------------------------------------------------ node setup


def start_tasks(
    command: list[str], count: int, folder: Path, **env: str
) -> list[subprocess.CompletedProcess[str]]:
    """The tasks of one node, as srun would start them: the first one last, so that the others must wait for it."""
    base = {
        "PATH": os.environ["PATH"],
        "SLURMD_NODENAME": "n1",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        **env,
    }
    started = [
        subprocess.Popen(
            command,
            env={**base, "SLURM_LOCALID": str(task), "SLURM_PROCID": str(task)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in reversed(range(count))
    ]
    ended = []
    for process in started:
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:  # its node's setup failed: srun would end it
            process.kill()
            out, err = process.communicate()
        ended.append(subprocess.CompletedProcess(command, process.returncode, out, err))
    return ended[::-1]


def setup_command(lines: list[str], folder: Path, worker: str) -> list[str]:
    (folder / "run" / "logs").mkdir(parents=True, exist_ok=True)
    settings = profile("srun", {"node_setup": lines}, processes_per_node=2)
    request = LaunchRequest(run_of(settings, folder / "run"), ["bash", "-c", worker, "x"], [], {}, folder)
    command = task_command(request)
    command.remove("-u")  # python's
    return command


def test_a_nodes_setup_runs_once_and_before_all_of_its_tasks(tmp_path: Path) -> None:
    lines = ["sleep 0.3", "echo '복사 \"&\" 끝' >> copied", "echo said"]
    command = setup_command(lines, tmp_path, "cat copied")
    first, second = start_tasks(command, 2, tmp_path, KOVQA_EVENTS="1")
    assert second.stdout == '복사 "&" 끝\n'
    event, line = first.stdout.splitlines()
    assert json.loads(event)["kind"] == "waiting"
    assert line == second.stdout.strip()
    assert (tmp_path / "run" / "logs" / "node-setup-n1.log").read_text() == "said\n"
    # A job that was queued again may have lost what an earlier start copied: once more.
    start_tasks(command, 2, tmp_path, SLURM_RESTART_COUNT="1")
    assert (tmp_path / "copied").read_text("utf-8").count("\n") == 2


@pytest.mark.parametrize(
    ("lines", "code", "last_line"),
    [
        (["echo '공간이 \"없음\" \\ & @CODE@' >&2", "false"], 1, '공간이 "없음" \\ & @CODE@'),
        (["cp /no/such/file .", "exit 9"], 1, "/no/such/file"),
        (["printf 'bad \\377 byte\\n\\n'; exit 3"], 3, "bad  byte"),
        (["exit 4"], 4, "no message"),
    ],
)
def test_a_setup_that_fails_is_the_runs_error(
    lines: list[str], code: int, last_line: str, tmp_path: Path
) -> None:
    first, *_ = start_tasks(setup_command(lines, tmp_path, "echo trained"), 1, tmp_path)
    assert (first.returncode, first.stdout) == (6, "")
    error = read_error(tmp_path / "run")
    assert error is not None
    assert (error.kind, error.stopped) == ("WorkerError", False)
    assert error.message.startswith(f"slurm.node_setup failed on n1 with code {code}: ")
    assert last_line in error.message
    assert error.detail == f"what it printed is in {tmp_path}/run/logs/node-setup-n1.log"


def test_a_nodes_setup_is_for_slurm() -> None:
    with pytest.raises(SettingsError, match=r"slurm\.node_setup is for the launchers srun and sbatch"):
        check_launcher(profile("torchrun", {"node_setup": ["true"]}))


# ------------------------------------------------------------------------------------ login node


def test_training_on_a_login_node_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    here = profile("torchrun")
    assert login_node_warnings(here, {}) == []
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\necho 'main*|gpu:4|64|infinite|2'\n")
    sinfo.chmod(0o755)
    (warning,) = login_node_warnings(here, {})
    assert "with profile x training runs on its login node" in warning
    assert login_node_warnings(here, {"SLURM_JOB_ID": "7"}) == []  # inside salloc, on a node without GPUs
    assert login_node_warnings(profile("sbatch"), {}) == []
    assert login_node_warnings(profile("torchrun", gpu="A100"), {}) == []
