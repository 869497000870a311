"""kovqa runs: real run folders, listed, shown, compared and done again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from kovqa_core.runs.folder import follow_pointer, read_result
from kovqa_core.runs.manifest import read_launches
from kovqa_core.runs.summary import summarise_run

from tests.conftest import Kovqa, Small, clean_env, command, training


@pytest.fixture
def here(tmp_path: Path, trained: Path) -> Path:
    """A folder with runs/: a finished one, copied."""
    shutil.copytree(trained, tmp_path / "runs" / "첫실험")
    return tmp_path


def edit(path: Path, old: str | None, new: str) -> None:
    text = path.read_text("utf-8")
    assert old and old in text
    path.write_text(text.replace(old, new), "utf-8")


def state(kovqa: Kovqa, name: str) -> dict[str, object]:
    listed = json.loads(kovqa("runs", "--json").stdout)["runs"]
    return next(run for run in listed if run["folder"].endswith(name))


# ------------------------------------------------------------------------------- list, show


def test_runs_are_listed_in_a_straight_table(kovqa: Kovqa, here: Path) -> None:
    done = kovqa("runs", COLUMNS="160")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "첫실험" in line)
    heading = next(line for line in done.stdout.splitlines() if "recipe" in line)

    def place(line: str, word: str) -> int:
        before = line[: line.index(word)]
        return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in before)

    assert place(row, "tiny") == place(heading, "recipe")
    assert "6/6" in row
    assert "finished" in row
    assert kovqa("runs", "list", "-q").stdout == "첫실험\n"
    result = read_result(here / "runs" / "첫실험")
    about = state(kovqa, "첫실험")
    assert (about["state"], about["steps"], about["total"], about["task"]) == ("finished", 6, 6, "vqa")
    assert result is not None
    assert about["best"] == result.best_score
    elsewhere = kovqa("runs", "--root", "nowhere")
    assert (elsewhere.returncode, elsewhere.stdout) == (0, "")
    assert "no runs in nowhere/" in elsewhere.stderr


def test_all_about_one_run(kovqa: Kovqa, here: Path) -> None:
    done = kovqa("runs", "show", "첫실험", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["optim.steps"].split()[1:3] == ["4000", "6"]
    assert "--set optim.steps=6" in lines["optim.steps"]
    assert "--set profile.threads=1" in lines["profile.threads"]
    assert "optim.lr" not in lines
    assert "last" in lines["step-000006"]
    assert re.fullmatch(r"loss  [▁▂▃▄▅▆▇█]{6}  [\d.]+ → [\d.]+", lines["loss"])
    assert "next: kovqa predict -i IMAGE --question '…' --model runs/첫실험" in done.stdout
    about = json.loads(kovqa("runs", "show", here / "runs/첫실험/step-000006", "--json").stdout)
    assert about["launches"][0]["outcome"] == "finished"
    assert about["launches"][0]["data"]["fingerprint"]
    assert about["run"]["recipe"]["optim"]["steps"] == 6
    assert [row["step"] for row in about["scores"]] == [6]
    assert about["checkpoints"][-1]["size"] > 100_000
    assert kovqa("runs", "show", "첫실험", "-q").stdout == "finished\n"


def test_a_page_of_runs_is_written_where_it_is_asked_for(kovqa: Kovqa, here: Path) -> None:
    shutil.copytree(here / "runs/첫실험", here / "runs/둘째")
    (here / "runs/둘째/val_samples.jsonl").write_text("nonsense\n")
    done = kovqa("runs", "page", "첫실험", "둘째", "-o", "곡선/쪽.html")
    assert (done.returncode, done.stdout) == (0, "곡선/쪽.html\n"), done.stderr
    assert "warning: 둘째: " in done.stderr
    assert "val_samples.jsonl: 1 lines cannot be read" in done.stderr
    assert "<svg" in (here / "곡선/쪽.html").read_text("utf-8")
    about = json.loads(kovqa("runs", "page", "첫실험", "--json").stdout)
    assert (about["page"], about["problems"]) == ("page.html", [])
    assert about["runs"][0] | {"folder": ""} == {
        "name": "첫실험", "folder": "", "state": "finished", "steps": 6, "evaluations": 1, "samples": 1,
    }  # fmt: skip
    refused = kovqa("runs", "page", "첫실험", "-o", "runs/첫실험/log.jsonl")
    assert (refused.returncode, "belongs to" in refused.stderr) == (2, True)


def test_an_unknown_run_names_the_nearest(kovqa: Kovqa, here: Path) -> None:
    assert (
        kovqa("runs", "show", "첫실헌", cwd=here / "runs" / "첫실험").returncode == 2
    )  # not this folder itself
    done = kovqa("runs", "show", "첫실헌")
    assert done.returncode == 2
    assert "did you mean 첫실험" in done.stderr


BROKEN = {
    "empty": {"run.yaml": ""},
    "half": {"log.jsonl": '{"kind": "tr'},
    "no-mapping": {"run.yaml": "- 1"},
    "other-version": {"run.yaml": "folder: x\nfrom_the_future: 1"},
    "binary": {"run.yaml": "\xff\x00"},
    "only-error": {"error.json": "{"},
    "only-result": {"result.json": "[]"},
    "only-pointer": {"last": "step-000001"},
}
SPOILT = {
    "result.json": ["[1]", "{", '{"steps": 6}', "3"],
    "manifest.json": ["[", '{"launches": [{}]}', '{"launches": {"a": 1}}'],
    "log.jsonl": [
        "null\n",
        '{"kind": "eval"}\n',
        '{"kind": "eval", "step": 6, "score": 0.1, "best": 0.1}\n{"ki',
    ],
    "best": ["nonsense", ""],
    "error.json": ["[]", "{}", "{"],
}


def test_broken_and_half_folders_are_shown_as_such(kovqa: Kovqa, here: Path, trained: Path) -> None:
    runs = here / "runs"
    for name, files in BROKEN.items():
        (runs / name).mkdir()
        for file, text in files.items():
            (runs / name / file).write_bytes(text.encode("latin-1"))
    spoilt = [(file, text) for file, texts in SPOILT.items() for text in texts]
    light = shutil.ignore_patterns("step-*", "tensorboard", "logs")
    for number, (file, text) in enumerate(spoilt):
        shutil.copytree(trained, runs / f"spoilt-{number}", ignore=light)
        if file != "result.json":
            (runs / f"spoilt-{number}" / "result.json").unlink()
        (runs / f"spoilt-{number}" / file).write_text(text, "utf-8")
    (runs / "no run at all").mkdir()
    done = kovqa("runs", "--json")
    assert done.returncode == 0, done.stderr
    states = {Path(run["folder"]).name: run for run in json.loads(done.stdout)["runs"]}
    assert len(states) == 1 + len(BROKEN) + len(spoilt)
    assert {states[name]["state"] for name in BROKEN} == {"broken"}
    assert all(states[name]["error"] for name in BROKEN)
    assert kovqa("runs").returncode == 0
    for name in ("half", "binary", "spoilt-0", "spoilt-2", "spoilt-5", "spoilt-8"):
        shown = kovqa("runs", "show", name)
        assert shown.returncode == 0, shown.stderr
    assert kovqa("runs", "diff", "half", "첫실험").returncode == 2


# ------------------------------------------------------------------------ a run's whole life


def test_a_run_is_running_then_stopped_then_finished(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    words = [*training(small, "optim.steps=300", "eval.every_steps=300"), "-o", "runs/긴"]
    folder = tmp_path / "runs" / "긴"
    process = subprocess.Popen(
        command(words), cwd=tmp_path, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while not (folder / "log.jsonl").is_file() or (folder / "log.jsonl").read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    seen = summarise_run(folder)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert (seen.state, seen.total) == ("running", 300)
    assert 3 <= seen.steps < 300
    stopped = state(kovqa, "긴")
    assert stopped["state"] == "stopped"
    assert 3 <= int(str(stopped["steps"])) < 300
    shown = kovqa("runs", "show", "긴").stdout
    assert "next: kovqa train --resume -o runs/긴" in shown
    assert kovqa("train", "--resume", "-o", "runs/긴").returncode == 0
    assert state(kovqa, "긴")["state"] == "finished"
    first, second = read_launches(folder)
    assert (first.outcome, second.outcome) == ("stopped", "finished")
    assert (first.from_step, second.from_step) == (0, stopped["steps"])
    assert (first.step, second.step) == (stopped["steps"], 300)
    assert first.argv == ("kovqa", *map(str, words))
    assert second.argv == ("kovqa", "train", "--resume", "-o", "runs/긴")
    about = json.loads(kovqa("runs", "show", "긴", "--json").stdout)
    origins = {change["key"]: change["origin"] for change in about["changed"]}
    assert origins["optim.steps"] == "--set optim.steps=300"  # the resumed run still knows


def test_a_failed_run_says_why(kovqa: Kovqa, small: Small) -> None:
    assert kovqa(*training(small, "optim.steps=4", "optim.lr=1e30"), "-o", "runs/나쁨").returncode == 6
    about = state(kovqa, "나쁨")
    assert about["state"] == "failed"
    assert "not finite" in str(about["error"])
    shown = kovqa("runs", "show", "나쁨").stdout
    assert "lower optim.lr" in shown
    assert "failed: the" in shown


def test_a_dry_run_leaves_nothing(kovqa: Kovqa, small: Small, here: Path) -> None:
    before = sorted(here.rglob("*"))
    for words in (
        [*training(small, "optim.steps=4"), "-n", "-o", "runs/계획"],
        [*training(small, "optim.steps=4"), "-n"],
        ["train", "--resume", "-o", "runs/첫실험", "-n", "--change", "optim.steps=9"],
        ["runs", "rerun", "첫실험", "-n", "-o", "runs/다시"],
    ):
        done = kovqa(*words)
        assert done.returncode == 0, done.stderr
        assert "nothing is written" in done.stderr
    assert sorted(here.rglob("*")) == before


# ------------------------------------------------------------------------------------- root


@pytest.fixture
def elsewhere(tmp_path: Path, trained: Path) -> Path:
    """A folder of two runs that is not called runs/."""
    for name in ("첫째", "둘째"):
        shutil.copytree(trained, tmp_path / "실험" / name)
    return tmp_path / "실험"


def test_root_counts_before_and_behind_a_subcommand(kovqa: Kovqa, elsewhere: Path) -> None:
    assert set(kovqa("runs", "--root", "실험", "list", "-q").stdout.split()) == {"첫째", "둘째"}
    assert kovqa("runs", "--root", "실험", "-q", "show", "첫째").stdout == "finished\n"
    assert kovqa("runs", "show", "첫째", "--root", "실험", "-q").stdout == "finished\n"
    about = json.loads(kovqa("runs", "--json", "--root", "실험", "show", "둘째").stdout)
    assert about["summary"]["folder"] == "실험/둘째"
    compared = json.loads(kovqa("runs", "--json", "--root", "실험", "diff", "첫째", "둘째").stdout)
    assert (compared["a"], compared["b"], compared["differences"]) == ("실험/첫째", "실험/둘째", [])
    planned = kovqa("runs", "--root", "실험", "--json", "rerun", "첫째", "-n", "-o", "다시")
    assert planned.returncode == 0, planned.stderr
    assert "differs" in json.loads(planned.stdout)
    assert not (elsewhere.parent / "다시").exists()
    assert kovqa("runs", "show", "첫째").returncode == 2  # nothing of that name in runs/


# ------------------------------------------------------------------------------ diff, rerun


def test_what_differs_between_two_runs(kovqa: Kovqa, here: Path) -> None:
    other = here / "runs" / "둘째"
    shutil.copytree(here / "runs" / "첫실험", other)
    same = kovqa("runs", "diff", "첫실험", "둘째")
    assert (same.returncode, "no setting, version or data differs" in same.stdout) == (0, True)
    edit(other / "run.yaml", "    lr: 0.001", "    lr: 0.002")
    launch = read_launches(other)[0]
    edit(other / "manifest.json", launch.data.fingerprint, "f" * 64)
    edit(other / "manifest.json", f'"torch": "{launch.versions["torch"]}"', '"torch": "9.9"')
    done = kovqa("runs", "diff", "첫실험", "둘째", "--json")
    assert done.returncode == 0
    comparison = json.loads(done.stdout)
    differences = {f"{d['section']}.{d['key']}": (d["a"], d["b"]) for d in comparison["differences"]}
    assert differences == {
        "recipe.optim.lr": (0.001, 0.002),
        "data.fingerprint": (launch.data.fingerprint, "f" * 64),
        "versions.torch": (launch.versions["torch"], "9.9"),
    }
    assert [step for step, *_ in comparison["scores"]] == [6]
    assert comparison["scores"][0][1] == comparison["scores"][0][2]
    table = kovqa("runs", "diff", "첫실험", "둘째").stdout
    assert "optim.lr" in table
    assert kovqa("runs", "diff", "첫실험", "둘째", "-q").stdout.split() == list(differences)


def test_a_rerun_gives_the_same_bits(kovqa: Kovqa, here: Path) -> None:
    before = here / "runs" / "첫실험"
    done = kovqa("runs", "rerun", "첫실험", "-o", "runs/다시")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.replace("warning: not as it was then: git", "")
    after = here / "runs" / "다시"
    steps = [follow_pointer(folder, "last") for folder in (before, after)]
    assert steps[0] is not None
    assert steps[1] is not None
    files = sorted(str(path.relative_to(steps[0])) for path in steps[0].rglob("*") if path.is_file())
    assert "trainer/optimizer.safetensors" in files
    for file in files:
        assert (steps[0] / file).read_bytes() == (steps[1] / file).read_bytes(), file
    ignored = {"git", "machine"}
    sections = kovqa("runs", "diff", "첫실험", "다시", "-q").stdout.split()
    assert {name.partition(".")[0] for name in sections} <= ignored
    again = kovqa("runs", "rerun", "첫실험", "-o", "runs/다시")
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


def test_a_rerun_on_other_data_is_refused_and_other_versions_are_named(kovqa: Kovqa, here: Path) -> None:
    before = here / "runs" / "첫실험"
    launch = read_launches(before)[0]
    edit(before / "manifest.json", f'"torch": "{launch.versions["torch"]}"', '"torch": "1.0"')
    named = kovqa("runs", "rerun", "첫실험", "-n", "-o", "runs/판")
    assert named.returncode == 0
    assert f"versions torch (1.0 then, {launch.versions['torch']} now)" in named.stderr
    assert "torch.distributed.run" in named.stdout
    edit(before / "manifest.json", launch.data.fingerprint, "f" * 64)
    refused = kovqa("runs", "rerun", "첫실험", "-o", "runs/다른")
    assert refused.returncode == 3
    assert "holds other data than 첫실험 learned from (fingerprint ffffffffffff then" in refused.stderr
    assert not (here / "runs" / "다른" / "run.yaml").exists()
    forced = kovqa("runs", "rerun", "첫실험", "-o", "runs/다른", "--force", "-n", "--json")
    assert forced.returncode == 0, forced.stderr
    differs = json.loads(forced.stdout)["differs"]
    assert {"data", "versions"} <= {difference["section"] for difference in differs}


# ------------------------------------------------------------------------------- completion


def test_completion_knows_run_names(here: Path) -> None:
    env = {"_KOVQA_COMPLETE": "complete_bash", "COMP_WORDS": "kovqa runs show 첫", "COMP_CWORD": "3"}
    start = "import sys; sys.argv = ['kovqa']; from kovqa_cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", start],
        cwd=here,
        env=clean_env(**env),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["첫실험"]
