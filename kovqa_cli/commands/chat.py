"""kovqa chat: an image, then questions about it, as VQA_NIA's inference_each.py."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import DataError
from kovqa_core.messages import message

from kovqa_cli import decoding_options, options

if TYPE_CHECKING:
    from kovqa_core.answer.job import AnswerOptions

END_WORDS = ("0", "끝")


def chat(
    *,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", metavar="FILE", help="Image. [default: ask for one]")
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

    The model is loaded once. `-i FILE` instead of a question changes the image; 0, 끝 or Ctrl-D ends. Lines
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
    from kovqa_core.answer.local import answer_one_image, check_image, load_model

    from kovqa_cli.output import answers, console, progress

    current_image = check_image(image) if image else None
    answers.print_cpu_warning()
    loaded = load_model(answer_options)
    at_terminal = sys.stdin.isatty() and progress.is_interactive()
    if at_terminal and not quiet:
        console.print_note(
            message(
                "chat.help",
                "{model}; -i FILE changes the image; 0, 끝 or Ctrl-D ends",
                model=console.model_name(loaded.folder),
            )
        )
    number = failed = 0
    while True:
        number += 1
        try:
            line = (
                _read_typed_line(has_image=current_image is not None)
                if at_terminal
                else _read_piped_line(number)
            )
            if line is None or line in END_WORDS:
                break
            if line == "-i" or line.startswith("-i "):
                current_image, line = None, line[2:].strip()
            if not line:
                continue
            if current_image is None:
                current_image = check_image(_parse_path(line))
            else:
                found = answer_one_image(loaded, current_image, line)
                answer = ModelAnswer(found, loaded.folder, loaded.precision)
                answers.print_chat_answer(answer, current_image, line, as_json=as_json)
        except DataError as error:
            failed += 1
            console.print_note(message("cli.error", "kovqa: {problem}", problem=error.message))
    if at_terminal and line is None:
        console.print_note("")  # Ctrl-D leaves the cursor behind the prompt: the shell's begins a line
    if failed and not at_terminal:
        raise DataError(
            message("chat.unusable-lines", "{failed} of the lines could not be used", failed=failed),
            message("chat.unusable-lines.hint", "they are named above"),
        )


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
