"""kovqa chat: an image, then questions about it, as VQA_NIA's inference_each.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.messages import message

from kovqa_cli import decoding_options, options

if TYPE_CHECKING:
    from kovqa_core.answer.job import AnswerOptions
    from kovqa_core.answer.local import LoadedModel

END_WORDS = ("0", "끝")
HELP_WORDS = ("?", "도움말", "help")


def chat(
    *,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            "-i",
            metavar="FILE",
            help="Image: a file, an address (asked first), or - for stdin. [default: ask for one]",
        ),
    ] = None,
    model: options.ModelOption = None,
    answers: decoding_options.AnswerListOption = None,
    temperature: decoding_options.TemperatureOption = None,
    seed: decoding_options.SamplingSeedOption = None,
    precision: options.PrecisionOption = "auto",
    load: options.LoadOption = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Answer one question after another about an image.

    The model is loaded once. `-i FILE` instead of a question changes the image; 0, 끝 or Ctrl-D ends, ? helps. Lines
    of a pipe are read in the same way, and have one line of output per answer.
    """
    from kovqa_core.answer.job import AnswerOptions
    from kovqa_core.data.decoding import decoding_from_options
    from kovqa_core.models.load_form import require_load_form
    from kovqa_core.models.precision import require_precision

    decoding = decoding_from_options(answers, choices=False, temperature=temperature, seed=seed)
    answer_options = AnswerOptions(
        model, decoding=decoding, precision=require_precision(precision), load=require_load_form(load),
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    run_chat(image, answer_options, as_json=json, quiet=quiet)


def run_chat(image: Path | None, answer_options: AnswerOptions, *, as_json: bool, quiet: bool) -> None:
    """Ask for an image unless there is one, then answer every line; a line that cannot be used is reported.

    Raises:
        DataError: the first image cannot be read; in the end, lines of a pipe had no answer.
    """
    from kovqa_core.answer.job import ModelAnswer
    from kovqa_core.answer.local import answer_one_image, load_model

    from kovqa_cli.output import answers, console, progress

    with contextlib.ExitStack() as fetched:  # images that are no files of the user's
        current = _choose_image(image, fetched, from_line=False) if image else None
        if str(image) == "-":
            _read_from_terminal()
        answers.print_cpu_warning()
        loaded = load_model(answer_options)
        at_terminal = sys.stdin.isatty() and progress.is_interactive()
        if at_terminal and not quiet:
            _print_help(loaded)
        failed = 0
        for line in _read_lines(at_terminal, lambda: current is not None):  # noqa: B023  # asked for at once
            try:
                if isinstance(line, DataError):
                    raise line
                if line in HELP_WORDS and at_terminal:
                    _print_help(loaded)
                    continue
                if line == "-i" or line.startswith("-i "):
                    current, line = None, line[2:].strip()
                if not line:
                    continue
                if current is None:
                    current = _choose_image(_parse_path(line), fetched, from_line=True)
                else:
                    found = answer_one_image(loaded, current.path, line)
                    answer = ModelAnswer(found, loaded.folder, loaded.precision)
                    answers.print_chat_answer(answer, current.name, line, as_json=as_json)
            except (AssetError, DataError, SettingsError) as error:
                failed += 1
                console.print_note(message("cli.error", "kovqa: {problem}", problem=error.message))
    if failed and not at_terminal:
        raise DataError(
            message("chat.unusable-lines", "{failed} of the lines could not be used", failed=failed),
            message("chat.unusable-lines.hint", "they are named above"),
        )


@dataclass(frozen=True)
class ChatImage:
    """The image that is asked about, by its name and its file; of an address or standard input two things."""

    name: Path
    path: Path


def _choose_image(name: Path, fetched: contextlib.ExitStack, *, from_line: bool) -> ChatImage:
    """An image that was named, if it can be opened; what had to be fetched stays until the conversation ends."""
    from kovqa_core.answer.local import check_image

    from kovqa_cli.typed_image import named_image

    if str(name) == "-" and from_line:
        raise DataError(message("chat.stdin-image", "- is for the command line: kovqa chat -i -"))
    return ChatImage(name, check_image(fetched.enter_context(named_image(name))))


def _read_lines(at_terminal: bool, has_image: Callable[[], bool]) -> Iterator[str | DataError]:
    """Lines until the end, or a word that ends; in place of one that cannot be read, what is wrong with it."""
    from kovqa_cli.output.console import print_note

    for number in itertools.count(1):
        try:
            line = _read_typed_line(has_image=has_image()) if at_terminal else _read_piped_line(number)
        except DataError as error:
            yield error
            continue
        if line is None and at_terminal:
            print_note("")  # Ctrl-D leaves the cursor behind the prompt: the shell's begins a line
        if line is None or line in END_WORDS:
            return
        yield line


def _print_help(loaded: LoadedModel) -> None:
    """What can be typed, and which model answers."""
    from kovqa_cli.output.console import model_name, print_note

    model = model_name(loaded.folder)
    print_note(
        message("chat.help", "{model}; -i FILE changes the image; 0, 끝 or Ctrl-D ends; ? helps", model=model),
        message("chat.help-image", "an image is a file, dropped into the window too, or an address (https://…), which is "
                "fetched once you agree"),
        message("chat.help-confidence", "behind an answer stands how sure the model is, in percent"),
    )  # fmt: skip


def _read_from_terminal() -> None:
    """Questions from the terminal, where standard input was the image.

    Raises:
        DataError: there is no terminal.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        raise DataError(
            message(
                "chat.no-terminal", "-i - took standard input, and there is no terminal to ask questions at"
            ),
            message("chat.no-terminal.hint", "save the image, and name the file: kovqa chat -i FILE"),
        ) from None
    os.dup2(terminal, 0)
    os.close(terminal)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def _parse_path(text: str) -> Path:
    """A path as typed, or as a file manager drops it: in quotation marks."""
    return Path(os.path.expanduser(text.strip("'\"")))  # noqa: PTH111  # an unknown ~user is not an error


def _read_typed_line(*, has_image: bool) -> str | None:
    """A line typed after a prompt; None at the end. Hangul is edited syllable by syllable where readline is."""
    prompt = (
        message("chat.question-prompt", "question> ")
        if has_image
        else message("chat.image-prompt", "image> ")
    )
    from kovqa_core.messages.languages import show_text

    with _prompts_on_stderr():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() uses it once it is imported
        try:
            return input(show_text(prompt)).strip()
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
    from kovqa_core.text_encoding import decode_text

    line = sys.stdin.buffer.readline()
    return decode_text(line, "stdin", number).strip() if line else None
