"""The wheel, in an environment of its own, started from a folder that would like to take its place."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import SMALL, Small, clean_env, sets

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The source archive, and the wheel that comes of it: both have to be whole.
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(HERE)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def kovqa(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command. The dependencies are this environment's; kovqa itself is not."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    site = next((venv / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return venv / "bin" / "kovqa"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with its own `core`, `profiles`, `kovqa_core` and `random.py`."""
    shout = "raise SystemExit('the hostile file was imported')\n"
    for name in (
        "core/__init__.py",
        "core/kovqa_core/__init__.py",
        "kovqa_core/__init__.py",
        "random.py",
        "yaml.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(shout)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "cpu.yaml").write_text("gpu: H100\nprocesses_per_node: 8\n")
    return tmp_path


def test_only_our_names_are_installed(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"kovqa_cli", "kovqa", "kovqa_core"}
    sources = {
        path.relative_to(root).as_posix()
        for root, name in ((HERE, "kovqa_cli"), (HERE / "core", "kovqa"), (HERE / "core", "kovqa_core"))
        for path in (root / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"html", "js", "css", "yaml", "po", "otf", "tsv", "sh"} <= {
        name.rpartition(".")[2] for name in sources
    }
    assert sources <= set(zipfile.ZipFile(wheel).namelist())
    assert {"kovqa/py.typed", "kovqa_core/py.typed"} <= set(zipfile.ZipFile(wheel).namelist())
    assert "kovqa_core/profiles/a100x4.yaml" in zipfile.ZipFile(wheel).namelist()


def test_journey_from_a_hostile_folder(kovqa: Path, hostile: Path, small: Small) -> None:
    def run(*words: object) -> str:
        done = subprocess.run(
            [str(kovqa), *map(str, words)], cwd=hostile, env=clean_env(), capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "cpu" in run("profiles", "-q").split()
    where = "import kovqa_core; print(kovqa_core.__file__)"
    python = [str(kovqa.parent / "python"), "-P", "-c", where]
    engine = subprocess.run(python, capture_output=True, text=True, env=clean_env(), check=True).stdout
    assert str(kovqa.parent.parent) in engine
    options = sets(*SMALL, "optim.steps=3", "profile.processes_per_node=2")
    words = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    assert run(*words, "-o", "run", *options).strip() == "run"
    picture = next((small.root / "images").glob("*.png"))
    answer = run("predict", "--model", "run", "-i", picture, "--question", "무엇인가요?").strip()
    assert answer
    script = f"import kovqa; print(kovqa.load('run').answer({str(picture)!r}, '무엇인가요?').text)"
    python = [str(kovqa.parent / "python"), "-P", "-c", script]
    asked = subprocess.run(python, cwd=hostile, capture_output=True, text=True, env=clean_env(), check=True)
    assert asked.stdout.strip() == answer


def test_pythonpath_of_the_folder_is_refused(kovqa: Path, hostile: Path) -> None:
    env = clean_env(PYTHONPATH=".")
    done = subprocess.run([str(kovqa), "profiles"], cwd=hostile, env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr or "hostile" in done.stderr
    assert not (hostile / "runs").exists()
