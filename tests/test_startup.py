"""The front is light: what `--help`, completion and planning load, and that they need no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Kovqa, Small, clean_env

HEAVY = {
    "torch",
    "transformers",
    "deepspeed",
    "timm",
    "sentencepiece",
    "PIL",
    "numpy",
    "yaml",
    "httpx2",
    "rich",
    "pydantic",
}
LIST = "import sys, json; sys.stderr.write(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"


def loaded(*words: str, **env: str) -> set[str]:
    """Top-level modules a command has loaded when it ends."""
    script = f"import sys; sys.argv = ['kovqa', *{words!r}]\nfrom kovqa_cli.main import run\ntry: run()\nfinally: {LIST}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=clean_env(**env), capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["predict", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    assert not loaded(*words) & (HEAVY - {"pydantic"})


def test_a_submission_that_is_not_sent_loads_neither_torch_nor_httpx(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "TEST_00000", "answer": "예"}\n', "utf-8")
    (tmp_path / "s.csv").write_text("ID,answer\nTEST_00000,0\n")
    words = ["--predictions", tmp_path / "p.jsonl", "--sample", tmp_path / "s.csv", "-o", tmp_path / "o.csv"]
    assert not loaded("submit", "dacon", *map(str, words)) & {"torch", "httpx2", "transformers", "PIL"}
    assert (tmp_path / "o.csv").is_file()


def test_completion_loads_nothing_heavy() -> None:
    env = {"_KOVQA_COMPLETE": "complete_bash", "COMP_WORDS": "kovqa train --profile a1", "COMP_CWORD": "3"}
    assert not loaded(**env) & (HEAVY - {"pydantic"})


def test_completion_names_profiles() -> None:
    env = {"_KOVQA_COMPLETE": "complete_bash", "COMP_WORDS": "kovqa train --profile a1", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import sys; sys.argv=['kovqa']; from kovqa_cli.main import run; run()"],
        env=clean_env(**env), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert {"a100x1", "a100x4", "a100x8"} <= set(done.stdout.split())


def test_help_loads_few_modules() -> None:
    """What a start costs is what it loads, on every machine alike; `bench/startup_speed.py` takes the time."""
    count = "import sys; before = len(sys.modules)\nimport typer, typer.main\nprint(before, len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", count], env=clean_env(), capture_output=True, text=True, timeout=60
    )
    bare, typer = map(int, done.stdout.split())
    script = "import sys; sys.argv = ['kovqa', '--help']\nfrom kovqa_cli.main import run\n"
    script += "try: run()\nfinally: sys.stderr.write(str(len(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=clean_env(), capture_output=True, text=True, timeout=60
    )
    assert int(done.stderr.splitlines()[-1]) - typer < 0.5 * (typer - bare)


def test_planning_works_where_torch_is_broken(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    env = {"PYTHONPATH": str(tmp_path / "broken")}
    assert kovqa("profiles", **env).returncode == 0
    assert kovqa("index", "aihub", "--root", small.root, **env).returncode == 0
    words = [
        "train",
        "-r",
        "tiny",
        "-p",
        "a100x4",
        "--data",
        small.index,
        "--tokenizer",
        small.tokenizer,
        "-n",
    ]
    done = kovqa(*words, **env)
    assert done.returncode == 0, done.stderr
    assert "torch.distributed.run" in done.stdout


def test_the_launcher_process_loads_no_torch(small: Small, tmp_path: Path) -> None:
    words = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    words += ["--set", "profile.command_prefix=[echo]", "-o", tmp_path / "r"]  # echo in place of the workers
    modules = loaded(*map(str, words))
    assert (tmp_path / "r" / "logs" / "launcher.log").is_file()  # it was planned and started
    assert "kovqa_core" in modules
    assert not modules & {"torch", "transformers", "deepspeed", "timm", "numpy", "PIL", "httpx2", "rich"}


def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -P -m kovqa_cli recipes show kobeit3 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=clean_env(), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_output_that_cannot_show_hangul(kovqa: Kovqa) -> None:
    done = kovqa("train", "-r", "없는이름", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2
    assert "unknown recipe" in done.stderr
