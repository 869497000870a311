"""The loop of kovqa predict --chat: a picture, then questions about it, as VQA_NIA's inference_each.py."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import DataError

if TYPE_CHECKING:
    from kovqa_core.data.decoding import DecodingOptions

END_WORDS = ("0", "끝")
CHAT_HELP = "-i PICTURE shows another picture; 0, 끝 or Ctrl-D ends"


def run_chat(
    image: Path | None,
    model: Path | None,
    decoding: DecodingOptions,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ask for a picture unless there is one, then answer every line; what cannot be read is said.

    Raises:
        DataError: the first picture cannot be read; in the end, lines of a pipe had no answer.
    """
    from kovqa_core.answer import local as work

    from kovqa_cli.output import console, progress

    picture = work.check_image(image) if image else None
    ask, used = work.open_question_model(model, decoding, trust_remote_code)
    typed = sys.stdin.isatty() and progress.is_interactive()
    if typed and not quiet:
        console.print_note(f"{console.short_path(used)}; {CHAT_HELP}")
    number = failed = 0
    while True:
        number += 1
        try:
            line = (
                _read_typed_line(f"{'question' if picture else 'picture'}> ")
                if typed
                else _read_piped_line(number)
            )
            if line is None or line in END_WORDS:
                break
            if line == "-i" or line.startswith("-i "):
                picture, line = None, line[2:].strip()
            if not line:
                continue
            if picture is None:
                picture = work.check_image(_parse_path(line))
            else:
                console.print_chat_answer(ask(picture, line), picture, line, used, as_json)
        except DataError as error:
            failed += 1
            console.print_note(f"kovqa: {error.message}")
    if typed and line is None:
        console.print_note("")  # the shell's prompt begins a line
    if failed and not typed:
        raise DataError(f"{failed} of the lines could not be used", "they are named above")


def _parse_path(text: str) -> Path:
    """A path as typed, or as a file manager drops it: in quotation marks."""
    return Path(os.path.expanduser(text.strip("'\"")))  # noqa: PTH111  # an unknown ~user is no error


def _read_typed_line(prompt: str) -> str | None:
    """A line typed after a prompt; None at the end. Hangul is edited letter by letter where readline is."""
    with _prompts_on_stderr():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() uses it once it is there
        try:
            return input(prompt).strip()
        except EOFError:
            return None


@contextlib.contextmanager
def _prompts_on_stderr() -> Iterator[None]:
    """input() and readline write to file descriptor 1, but that is for answers."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def _read_piped_line(number: int) -> str | None:
    """A line of a pipe or file, UTF-8 or CP949; None at the end."""
    from kovqa_core.files import decode_text

    line = sys.stdin.buffer.readline()
    return decode_text(line, "stdin", number).strip() if line else None
