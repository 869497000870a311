"""Ctrl-C, SIGTERM and SIGHUP from kovqa's first line on: their exit code, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Small, clean_env, command

# Forks of one interpreter run `kovqa --version` as its script does; each sends itself the signal at the n-th event
# of an import after kovqa's first line.
_AT_IMPORTS = """
import os, sys
number, step = int(sys.argv[1]), int(sys.argv[2])
sys.argv = ["kovqa", "--version"]
for moment in range(1, 10_000, step):
    pid = os.fork()
    if not pid:
        seen = 0
        def hook(event, arguments):
            global seen
            if event == "import" and "kovqa_cli.entry" in sys.modules and hasattr(sys.modules["kovqa_cli.entry"], "run"):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), number)
        sys.addaudithook(hook)
        from kovqa_cli.entry import run
        run()
        sys.stdout.flush()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(moment, code, file=sys.stderr, flush=True)
    if not code:  # there were fewer events
        break
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_traceback_while_libraries_are_imported(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _AT_IMPORTS, str(int(number)), "25"],
        env=clean_env(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    codes = [int(line.split()[1]) for line in done.stderr.splitlines()]
    assert set(codes) <= {0, 128 + number}
    assert codes.count(128 + number) > 6


# What a command does when the signal comes: where an interrupt could get lost, or be shown.
_AT_WORK = """
import os, signal, sys, time
from pathlib import Path
from kovqa_cli.stop_signals import interrupt_on_signals
from kovqa_core.files import atomic_file

def send(): os.kill(os.getpid(), int(sys.argv[1])); time.sleep(0.01)
class Destroyed:
    def __del__(self): send()
def in_exec(): exec("send()")
def in_destructor():
    Destroyed()
    time.sleep(10)
def in_output():
    with atomic_file(Path("out")) as stream:
        stream.write(b"half"); send()
def in_cleanup():
    try: send()
    finally: send()
def in_import():
    Path("bad.py").write_text("import __main__; __main__.send()"); sys.path.insert(0, "."); import bad
def swallowed():
    try: send()
    except KeyboardInterrupt: pass
with interrupt_on_signals():
    globals()[sys.argv[2]]()
"""


@pytest.mark.parametrize(
    "where", ["in_exec", "in_destructor", "in_output", "in_cleanup", "in_import", "swallowed"]
)
def test_a_signal_at_work_is_the_exit_code(tmp_path: Path, where: str) -> None:
    number = signal.SIGINT if where in ("in_exec", "in_cleanup") else signal.SIGTERM
    done = subprocess.run(
        [sys.executable, "-c", _AT_WORK, str(int(number)), where],
        cwd=tmp_path, env=clean_env(PYTHONPATH=os.pathsep.join(filter(None, sys.path))), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + number, "")
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.py", "__pycache__"}


def test_nohup_is_respected(tmp_path: Path) -> None:
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); import os\n"
        + _AT_WORK.replace("globals()[sys.argv[2]]()", "send(); print('went on')").replace(
            "int(sys.argv[1])", "signal.SIGHUP"
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env=clean_env(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_forty_moments_of_a_tokenizer(small: Small, tmp_path: Path, number: signal.Signals) -> None:
    """A whole group is signalled, as a terminal or a queue does, while processes are started, work and end."""
    words = ["tokenizer", "train", small.root / "text.txt", "--vocab-size", "500", "-o"]
    began = time.monotonic()
    subprocess.run(command([*words, tmp_path / "a.model"]), env=clean_env(), check=True, capture_output=True)
    seconds = time.monotonic() - began
    for moment in range(40):
        process = subprocess.Popen(
            command([*words, tmp_path / f"{moment}.model"]), env=clean_env(), stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip
        time.sleep(0.1 + seconds * moment / 40)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        assert process.returncode in (0, 128 + number)
        made = tmp_path / f"{moment}.model"
        assert not made.exists() or made.read_bytes() == (tmp_path / "a.model").read_bytes()
