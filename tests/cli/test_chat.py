"""kovqa chat: from a pipe, at a terminal, with images that cannot be read."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.test_bad_input import one_line
from tests.conftest import Kovqa, Small, clean_env, command
from tests.tools.forked_commands import Ended, ForkedCommands

QUESTIONS = ("이것은 무엇인가요?", "빨간색 도형은 몇 개인가요?")


Piped = Callable[..., Ended]


@pytest.fixture
def piped(forked_commands: ForkedCommands, tmp_path: Path) -> Piped:
    """Runs `kovqa chat …` with these lines on stdin."""

    def run(text: bytes, *words: object, chat: tuple[str, ...] = ("chat",)) -> Ended:
        stdin = tmp_path / "stdin"
        stdin.write_bytes(text)
        return forked_commands.run([*chat, *words], tmp_path, stdin=str(stdin), inside="")

    return run


@pytest.fixture(scope="module")
def images(small: Small) -> list[Path]:
    return sorted((small.root / "images").glob("*.png"))[:2]


def test_lines_of_a_pipe_are_questions(kovqa: Kovqa, piped: Piped, trained: Path, images: list[Path]) -> None:
    """Each answer is the one the same question alone gets; the image is changed on the way."""
    first, second = images
    lines = [QUESTIONS[0], "", f"-i {second}", QUESTIONS[0], QUESTIONS[1], "끝", "이것은 읽지 않는다"]
    words = ["--model", trained, "-i", first]
    done = piped("\n".join(lines).encode("cp949"), *words)
    assert (done.code, done.stderr) == (0, "")
    rows = [
        json.loads(line) for line in piped("\n".join(lines).encode(), *words, "--json").stdout.splitlines()
    ]
    questions = [(first, QUESTIONS[0]), (second, QUESTIONS[0]), (second, QUESTIONS[1])]
    assert [(row["image"], row["question"]) for row in rows] == [(str(p), q) for p, q in questions]
    assert [row["answer"] for row in rows] == done.stdout.splitlines()
    for row, (image, question) in zip(rows[:2], questions, strict=False):
        alone = kovqa("predict", "--model", trained, "-i", image, "--question", question, "--json")
        assert {key: row[key] for key in ("schema", "answer", "score", "model", "precision")} == json.loads(
            alone.stdout
        )


def test_images_that_cannot_be_read_do_not_end_it(
    piped: Piped, trained: Path, images: list[Path], tmp_path: Path
) -> None:
    """No question is answered about an earlier image; a pipe gets an error in the end."""
    broken = tmp_path / "깨진 그림.png"
    broken.write_bytes(images[0].read_bytes()[:200])
    lines = [
        broken,
        f"'{images[0]}'",
        QUESTIONS[0],
        "-i 없다.png",
        QUESTIONS[0],
        f"-i {images[1]}",
        QUESTIONS[1],
    ]
    done = piped("\n".join(map(str, lines)).encode() + b"\n\xff\xff\n", "--model", trained)
    assert done.code == 3, done.stderr
    assert len(done.stdout.splitlines()) == 2
    one, two, three, four, last = done.stderr.splitlines()
    assert one.startswith(f"kovqa: image {broken} cannot be read")
    assert two == "kovqa: image 없다.png is missing"
    assert three == f"kovqa: image {QUESTIONS[0]} is missing"
    assert four.startswith("kovqa: stdin:8: neither UTF-8 nor CP949")
    assert last.startswith("kovqa: 4 of the lines could not be used")


def test_predict_chat_goes_on_with_a_note(piped: Piped, trained: Path, images: list[Path]) -> None:
    words = ["--model", trained, "-i", images[0]]
    text = f"{QUESTIONS[0]}\n{QUESTIONS[1]}\n".encode()
    new, old = piped(text, *words), piped(text, *words, chat=("predict", "--chat"))
    assert (old.code, old.stdout) == (0, new.stdout)
    assert new.stderr == ""
    (note,) = old.stderr.splitlines()
    assert "now kovqa chat" in note


def test_what_does_not_go_together(kovqa: Kovqa, trained: Path, tmp_path: Path) -> None:
    one_line(kovqa("chat", "--model", trained, "-i", "없다.png"), 3, "없다.png is missing")
    one_line(kovqa("chat", "--seed", "1"), 2, "--temperature")
    one_line(kovqa("predict", "--chat", "--question", "무엇?"), 2, "kovqa chat")
    one_line(kovqa("predict", "--chat", "--input", "a.jsonl", "-o", "b.jsonl"), 2, "kovqa chat")
    one_line(kovqa("predict", "--chat", "--kind", "vqa"), 2, "--kind chooses rows of a table")
    one_line(kovqa("predict", "--chat", "--server", "http://h/v1"), 2, "--server does not go with --chat")


class Terminal:
    """A conversation at a terminal whose stdout goes into a file."""

    def __init__(self, stdout: Path, *words: object) -> None:
        self.screen, side = pty.openpty()
        self.stdout, self.seen = stdout, ""
        with stdout.open("wb") as stream:
            self.process = subprocess.Popen(
                command(["chat", *words]), stdin=side, stdout=stream, stderr=side,
                env=clean_env(CI="", TERM="xterm", LC_ALL="C.UTF-8"),
            )  # fmt: skip
        os.close(side)

    def wait_for(self, text: str) -> None:
        """Read the screen until this is there."""
        deadline = time.monotonic() + 120
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.screen], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.screen, 4096).decode(errors="replace")
                except OSError:  # how Linux tells that the other side is closed
                    break
        before, match, self.seen = self.seen.partition(text)
        assert match, before

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())


@pytest.fixture
def terminal(trained: Path, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "answers", "--model", trained, "--json")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.screen)


def test_a_terminal_is_prompted_and_edits_hangul(terminal: Terminal, images: list[Path]) -> None:
    """One backspace takes one syllable; stdout holds the answers and nothing else."""
    terminal.wait_for("Ctrl-D ends")
    terminal.wait_for("image> ")
    terminal.type("없다.png\n")
    terminal.wait_for("image 없다.png is missing")
    terminal.wait_for("image> ")
    terminal.type(f"{images[0]}\n")
    terminal.wait_for("question> ")
    terminal.type("이것은 무엇인가요요\x7f?\n")
    terminal.wait_for("question> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
    (row,) = map(json.loads, terminal.stdout.read_text("utf-8").splitlines())
    assert (row["question"], row["image"]) == (QUESTIONS[0], str(images[0]))


def test_ctrl_c_ends_with_130(terminal: Terminal) -> None:
    terminal.wait_for("image> ")
    time.sleep(0.3)
    for _ in range(6):  # Python overlooks one that comes right after the prompt, until the next key
        terminal.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            terminal.process.wait(10)
            break
    assert terminal.process.wait(10) == 130
    assert terminal.stdout.read_bytes() == b""


def test_help_confidence_and_an_address_at_a_terminal(
    trained: Path, images: list[Path], tmp_path: Path
) -> None:
    screen, side = pty.openpty()
    with serve_files(images[0].parent) as address:
        process = subprocess.Popen(
            command(["chat", "--model", trained]), stdin=side, stdout=side, stderr=side,
            env=clean_env(CI="", TERM="xterm", LC_ALL="C.UTF-8"),
        )  # fmt: skip
        os.close(side)
        terminal = Terminal.__new__(Terminal)
        terminal.screen, terminal.seen, terminal.process = screen, "", process
        terminal.wait_for("image> ")
        terminal.type(f"{address}/{images[0].name}\n")
        terminal.wait_for("[y/N]")
        terminal.type("n\n")
        terminal.wait_for("was not fetched")
        terminal.type(f"{address}/{images[0].name}\n")
        terminal.wait_for("[y/N]")
        terminal.type("y\n")
        terminal.wait_for("question> ")
        terminal.type("?\n")
        terminal.wait_for("in percent")
        terminal.type(f"{QUESTIONS[0]}\n")
        terminal.wait_for("%)")
        terminal.type("끝\n")
        assert process.wait(60) == 0
        os.close(screen)


@contextlib.contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_image_from_standard_input(
    kovqa: Kovqa, forked_commands: ForkedCommands, trained: Path, images: list[Path], tmp_path: Path
) -> None:
    alone = kovqa("predict", "--model", trained, "-i", images[0], "--question", QUESTIONS[0])
    words = ["predict", "--model", trained, "-i", "-", "--question", QUESTIONS[0]]
    piped = forked_commands.run(words, tmp_path, stdin=str(images[0]), inside="")
    assert (piped.code, piped.stdout) == (0, alone.stdout)
    (tmp_path / "empty").touch()
    assert (
        "standard input is empty"
        in forked_commands.run(words, tmp_path, stdin=str(tmp_path / "empty"), inside="").stderr
    )
    address = kovqa(
        "predict", "--model", trained, "-i", "https://example.org/a.png", "--question", QUESTIONS[0]
    )
    one_line(address, 2, "https://example.org/a.png is not fetched without asking")
