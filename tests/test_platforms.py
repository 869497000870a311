"""Where something is missing: packages of a small installation, and what Windows lacks."""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import ntpath
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core import file_lock, files, output_lock, paths, process_pool, storage_limits, system_support
from kovqa_core.download.members import MemberNames
from kovqa_core.errors import DataError, KovqaError, MachineError, SettingsError
from kovqa_core.missing_packages import find_missing_package, missing_package_error, missing_packages
from kovqa_core.models.vlm import template_bounds

from tests.conftest import Small, clean_env
from tests.tools import windows_locks
from tests.tools.forked_commands import Ended, ForkedCommands

HERE = Path(__file__).resolve().parent.parent
MODELS = ("torch", "torchvision", "transformers", "timm", "peft", "safetensors", "tensorboardX")
LIGHT = (
    "numpy",
    "yaml",
    "pydantic",
    "rich.console",
    "rich.table",
    "sentencepiece",
    "PIL.Image",
)  # loaded once for all forks
OF_OTHER_FAMILIES = ("torchvision", "transformers", "timm", "peft")


@pytest.fixture(scope="module")
def without_models() -> Iterator[ForkedCommands]:
    """kovqa where no package of models is installed."""
    with ForkedCommands(["tests.tools.lacking", *LIGHT], {"TEST_LACKS": ",".join(MODELS)}) as commands:
        yield commands


@pytest.fixture(scope="module")
def windows() -> Iterator[ForkedCommands]:
    """kovqa on what it sees as a Windows; without models, for torch takes its time."""
    with ForkedCommands(
        ["tests.tools.lacking", "tests.tools.windows_stub", *LIGHT], {"TEST_LACKS": ",".join(MODELS)}
    ) as commands:
        yield commands


@pytest.fixture(scope="module")
def windows_with_beit3() -> Iterator[ForkedCommands]:
    """The same with the packages of BEiT-3, and of no other family."""
    libraries = ["tests.tools.lacking", "tests.tools.windows_stub", "torch", "torch._dynamo"]
    with ForkedCommands(libraries, {"TEST_LACKS": ",".join(OF_OTHER_FAMILIES)}) as commands:
        yield commands


def done_well(commands: ForkedCommands, folder: Path, *words: object) -> Ended:
    done = commands.run(words, folder, inside="")
    assert done.code == 0, done.stderr
    return done


def refused(commands: ForkedCommands, folder: Path, code: int, *words: object) -> str:
    """The one line of a command that cannot do what it is for."""
    done = commands.run(words, folder, inside="")
    assert done.code == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not done.stdout
    return done.stderr


def write_contest(folder: Path) -> list[object]:
    """A contest's files, and the words of its submission."""
    (folder / "p.jsonl").write_text('{"id": "T0", "answer": "예"}\n', "utf-8")
    (folder / "sample.csv").write_text("ID,answer\nT0,0\n")
    return ["submit", "dacon", "--predictions", "p.jsonl", "--sample", "sample.csv", "-o", "o.csv"]


def write_answers(small: Small, folder: Path) -> list[object]:
    """Answers to an index's questions, and the words of their score."""
    from kovqa_core.index.reader import open_index

    lines = (f'{{"id": "{e.id}", "answer": "예"}}\n' for e in open_index(small.index).split("val"))
    (folder / "answers.jsonl").write_text("".join(lines), "utf-8")
    return ["evaluate", "answers.jsonl", "--index", small.index / "val.jsonl", "--report", "report.html"]


# ------------------------------------------------------------------------------ small installations


def test_without_torch_all_but_models_works(
    without_models: ForkedCommands, small: Small, trained: Path, tmp_path: Path
) -> None:
    plan = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    for words in (
        ["index", "aihub", "--root", small.root, "-o", "ix"],
        ["tokenizer", "encode", "--tokenizer", small.tokenizer, "무엇인가요"],
        write_contest(tmp_path),
        write_answers(small, tmp_path),
        ["vote", "answers.jsonl", "answers.jsonl", "-o", "v.jsonl"],
        ["runs", "show", trained],
        ["runs", "page", trained, "-o", "page.html"],
        ["models"],
        ["download", "--list"],
        [*plan, "-n"],
    ):
        done_well(without_models, tmp_path, *words)
    assert (tmp_path / "ix" / "train.jsonl").read_bytes() == (small.index / "train.jsonl").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "-i", "i.png", "--question", "무엇?", "--model", "RUN"],
        ["caption", "-i", "i.png", "--model", "RUN"],
        ["explain", "-i", "i.png", "--question", "무엇?", "-o", "e.png", "--model", "RUN"],
        ["export", "RUN", "-o", "e"],
        ["train", "-r", "tiny", "-p", "cpu", "-o", "r", "--data", "INDEX", "--tokenizer", "TOKENIZER"],
        ["train", "--resume", "-o", "RUN"],
        ["demo", "-o", "d"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_without_torch_what_needs_it_names_it(
    without_models: ForkedCommands, small: Small, trained: Path, tmp_path: Path, words: list[str]
) -> None:
    places = {"RUN": trained, "INDEX": small.index, "TOKENIZER": small.tokenizer}
    (tmp_path / "i.png").symlink_to(next((small.root / "images").glob("*.png")))
    line = refused(without_models, tmp_path, 4, *(places.get(word, word) for word in words))
    assert "torch" in line
    assert "pip install torch" in line
    assert "https://pytorch.org/get-started/locally/" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.png"]


@pytest.mark.soak
def test_beit3_answers_on_windows_without_the_libraries_of_other_families(
    windows_with_beit3: ForkedCommands, small: Small, trained: Path, tmp_path: Path
) -> None:
    image = next((small.root / "images").glob("*.png"))
    asked = ["-i", image, "--question", "무엇?", "--model", trained]
    fusion = [
        "train",
        "-r",
        "tiny-fusion",
        "-p",
        "cpu",
        "--data",
        small.index,
        "--tokenizer",
        small.tokenizer,
    ]
    for words in (
        ["predict", *asked],
        ["predict", "--input", small.index / "val.jsonl", "--model", trained, "-o", "a.csv"],
        ["explain", *asked, "-o", "e.png"],
        ["export", trained, "-o", "exported"],
        [*fusion, "-n"],
    ):
        done_well(windows_with_beit3, tmp_path, *words)
    refused(windows_with_beit3, tmp_path, 4, *fusion, "-o", "r")


def test_a_family_without_its_packages_is_refused_by_name() -> None:
    with pytest.raises(MachineError) as caught:
        raise missing_package_error(["torchvision", "timm", "transformers"])
    assert caught.value.hint == "pip install torchvision timm transformers"
    assert missing_packages(("json", "nonesuch", "PIL")) == ["nonesuch"]


def test_the_doctor_says_which_family_is_ready(windows: ForkedCommands, tmp_path: Path) -> None:
    done = windows.run(["doctor", "--json"], tmp_path)
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert findings["beit3"] == {
        "name": "beit3", "state": "none", "what": "needs torch, safetensors", "do": "pip install torch safetensors",
    }  # fmt: skip
    assert "WSL2" in findings["system"]["do"]
    assert findings["memory"]["what"] == "16 GB"
    assert findings["keys"]["state"] != "warning"


def test_a_package_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ImportError) as caught:
        exec("raise ImportError('libcudart.so: no such file')", {"__name__": "torch._C"})
    error = find_missing_package(caught.value)
    assert error is not None
    assert error.message == "torch is installed, but cannot be imported: libcudart.so: no such file"
    outer = RuntimeError("transformers could not")
    outer.__cause__ = ModuleNotFoundError("No module named 'timm.layers'", name="timm.layers")
    assert "timm" in str(find_missing_package(outer))
    assert find_missing_package(ModuleNotFoundError("x", name="kovqa_core.nonesuch")) is None
    assert find_missing_package(ValueError("x")) is None
    assert find_missing_package(KovqaError("x")) is None


def test_a_command_line_without_its_own_libraries_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['typer'] = None\n")
    python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kovqa_cli", "--version"],
        env=clean_env(PYTHONPATH=python_path), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "kovqa: this needs typer: not installed [KOVQA-4050] → pip install typer"
    ]


# ----------------------------------------------------------------------------------------- Windows


def test_windows_does_all_but_training(
    windows: ForkedCommands, small: Small, trained: Path, tmp_path: Path
) -> None:
    plan = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    for words in (
        ["index", "aihub", "--root", small.root, "-o", "ix"],
        write_contest(tmp_path),
        write_answers(small, tmp_path),
        ["vote", "answers.jsonl", "answers.jsonl", "-o", "v.jsonl"],
        ["runs", "show", trained],
        ["profiles", "detect"],
        [*plan, "-n"],
    ):
        done_well(windows, tmp_path, *words)
    assert (tmp_path / "ix" / "train.jsonl").read_bytes() == (small.index / "train.jsonl").read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".lock"))]
    for words in ([*plan, "-o", "r"], ["demo", "-o", "d"]):
        assert "WSL2 (wsl --install)" in refused(windows, tmp_path, 4, *words)
    assert not (tmp_path / "r").exists()
    assert not (tmp_path / "d").exists()


@pytest.fixture
def windows_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's own modules take the ways that they take on Windows."""
    monkeypatch.setattr(file_lock, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", windows_locks)
    monkeypatch.setattr(files, "MOVES_OPEN_FILES", False)


@pytest.mark.usefixtures("windows_calls")
def test_the_lock_of_windows_keeps_a_second_process_out(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = file_lock.lock_file(path)
    assert held is not None
    os.write(held, b"who")
    assert file_lock.lock_file(path) is None
    assert file_lock.is_locked(path)
    assert path.read_bytes() == b"who"  # others see who has it
    file_lock.remove_locked_file(path, held)
    assert not path.exists()
    with output_lock.output_lock(tmp_path / "o"):
        second = output_lock.output_lock(tmp_path / "o", wait_seconds=0)
        with pytest.raises(SettingsError, match=f"process {os.getpid()}"):
            second.__enter__()


@pytest.mark.usefixtures("windows_calls")
def test_a_file_is_closed_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (opened.append(stream.closed), replace(*names)))
    with files.atomic_file(tmp_path / "a.txt") as stream:
        stream.write(b"whole")
    assert opened == [True]
    failing = files.atomic_file(tmp_path / "a.txt")
    failing.__enter__().write(b"half")
    failing.__exit__(ValueError, ValueError(), None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_a_template_without_an_end_ends_without_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "setitimer")
    monkeypatch.setattr(template_bounds, "MAX_SECONDS", 0.05)
    with pytest.raises(template_bounds.SecurityError, match="does not end"), template_bounds._time_limit():
        threading.Event().wait(0) or [None for _ in iter(int, 1)]
    assert signal.getsignal(signal.SIGABRT) == signal.SIG_DFL


def test_paths_in_files_have_slashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths.os, "sep", "\\")
    monkeypatch.setattr(paths.os.path, "relpath", lambda path, start: r"..\raw\images")
    assert paths.relative_path(tmp_path, tmp_path) == "../raw/images"
    monkeypatch.setattr(paths.os.path, "relpath", ntpath.relpath)

    def other_drive(path: object, start: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(paths.os.path, "relpath", other_drive)
    assert paths.relative_path(tmp_path, tmp_path / "b") == tmp_path.as_posix()


def test_full_disks_are_named_without_inodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "statvfs")
    monkeypatch.setattr(storage_limits.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    assert "disk full" in storage_limits.storage_error(tmp_path / "x", errno.ENOSPC, "", None).message


def test_names_that_windows_does_not_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = MemberNames("a.zip")
    assert names.claim_path("aux.png") == "aux.png"
    monkeypatch.setattr(system_support, "HAS_FILE_OWNERS", False)
    for name in ("con", "x/AUX.png", "com1.txt", "what?.jpg", "12:30.jpg", "end.", "x /1.png"):
        with pytest.raises(DataError, match="a name that Windows does not store"):
            names.claim_path(name)
    assert names.claim_path("연/console.png") == "연/console.png"


@pytest.mark.usefixtures("windows_calls")
def test_a_table_that_is_open_in_excel_is_to_be_closed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a")
    with (
        pytest.raises(SettingsError, match="close it in other programs"),
        files.disk_errors(tmp_path / "t.csv"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_signals_that_are_not_here_are_left_out() -> None:
    assert system_support.existing_signals(("SIGINT", "SIGNONE")) == (signal.SIGINT,)


def test_a_port_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Windows SO_REUSEADDR would give it to two programs."""
    from kovqa_core.web.http_server import bind_socket

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", 5, raising=False)
    with contextlib.closing(bind_socket("127.0.0.1", 0)) as listening:
        assert not listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        with pytest.raises(MachineError):
            bind_socket("127.0.0.1", listening.getsockname()[1])


def test_processes_start_without_signal_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")
    with process_pool.signals_blocked():
        pass


# What only training and SLURM need may take the system as it is; `require_launching` stands before it.
ONLY_TRAINS = ("launch", "train", "tracking", "distributed", "worker.py")
# Asked for by `hasattr` beside it, or behind what Windows never says (a pipe in place of a file).
GUARDED = {
    ("files.py", "set_blocking"), ("hardware.py", "sysconf"), ("storage_limits.py", "statvfs"),
    ("system_support.py", "geteuid"), ("system_support.py", "killpg"), ("system_support.py", "SIGKILL"),
    *(("process_pool.py", name) for name in ("pthread_sigmask", "sigtimedwait", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK")),
    *(("template_bounds.py", name) for name in ("SIGALRM", "setitimer", "ITIMER_REAL")),
    *((name, "fcntl") for name in ("file_lock.py",)), ("soft_limit.py", "resource"),
}  # fmt: skip


def test_what_windows_lacks_is_asked_for_first() -> None:
    source = (HERE / "tests" / "tools" / "windows_stub.py").read_text(encoding="utf-8")
    names = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("_LACKS", "LACKS_MODULES")
    }  # fmt: skip
    used = [rf"\b{module}\.({'|'.join(text.split())})\b" for module, text in names["_LACKS"].items()]
    pattern = re.compile("|".join([*used, rf"\bimport ({'|'.join(names['LACKS_MODULES'])})\b"]))
    found = set()
    for folder in ("core", "kovqa_cli"):
        for path in sorted((HERE / folder).rglob("*.py")):
            if not any(part in ONLY_TRAINS for part in path.relative_to(HERE).parts):
                code = re.sub("#.*", "", path.read_text(encoding="utf-8"))
                found |= {(path.name, next(filter(None, match.groups()))) for match in pattern.finditer(code)}
    assert found == GUARDED
