"""Options of commands that hear a question or read out an answer, and what these do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

if TYPE_CHECKING:
    from kovqa_core.speech.synthesis import Voice

SpeechOption = Annotated[
    Path | None,
    typer.Option(
        "--speech",
        metavar="FILE",
        help="The question as sound, in place of --question: WAV; with soundfile also FLAC, OGG and MP3.",
    ),
]
SpeechModelOption = Annotated[
    str | None,
    typer.Option(
        "--speech-model",
        metavar="NAME",
        help="What writes down spoken questions: a folder, or OWNER/NAME that is here. A Whisper, for example.",
        envvar="KOVQA_SPEECH_MODEL",
    ),
]
SpeakOption = Annotated[
    Path | None,
    typer.Option("--speak", metavar="FILE", help="Also write the answer as sound (WAV)."),
]
SpeakModelOption = Annotated[
    str | None,
    typer.Option(
        "--speak-model",
        metavar="NAME",
        help="What reads the answer out: a folder, or OWNER/NAME that is here. A VITS, for example.",
        envvar="KOVQA_SPEAK_MODEL",
    ),
]


def hear_question(speech: Path, model: str | None, *, quiet: bool) -> str:
    """The question that is spoken in a file; said on stderr, so that who asked sees what was understood.

    Args:
        speech: the sound.
        model: `--speech-model`.
        quiet: nothing is said.

    Raises:
        SettingsError: no model is named.
        KovqaError: see `load_recogniser` and `transcribe`.
    """
    if not model:
        raise SettingsError(
            message("speech.model-needed", "--speech needs what writes it down: --speech-model"),
            message(
                "speech.model-needed.hint",
                "kovqa download hf:openai/whisper-small, then --speech-model openai/whisper-small "
                "(or KOVQA_SPEECH_MODEL)",
            ),
        )
    from kovqa_core.speech.recognition import load_recogniser, transcribe
    from kovqa_core.speech.speech_folder import find_speech_folder

    from kovqa_cli.output.console import print_note

    text = transcribe(load_recogniser(find_speech_folder(model)), speech)
    if not quiet:
        print_note(message("speech.heard", "heard: {text}", text=text))
    return text


def load_speaking_voice(speak: Path, model: str | None, inputs: Iterable[Path]) -> Voice:
    """The voice of `--speak`, before anything is answered.

    Args:
        speak: the file to write.
        model: `--speak-model`.
        inputs: files that it must not be.

    Raises:
        SettingsError: no model is named; a file that is not a .wav, or one of the inputs.
        KovqaError: see `load_voice`.
    """
    if speak.suffix.lower() != ".wav":
        raise SettingsError(
            message("speech.writes-wav", "--speak writes WAV, not {suffix!r}", suffix=speak.suffix),
            message("speech.writes-wav.hint", "--speak {file}", file=speak.with_suffix(".wav")),
        )
    from kovqa_core.files import require_other_output

    require_other_output(speak, inputs)
    if not model:
        raise SettingsError(
            message("speech.voice-needed", "--speak needs a voice: --speak-model"),
            message(
                "speech.voice-needed.hint",
                "kovqa download hf:facebook/mms-tts-kor, then --speak-model facebook/mms-tts-kor (or KOVQA_SPEAK_MODEL)",
            ),
        )
    from kovqa_core.speech.speech_folder import find_speech_folder
    from kovqa_core.speech.synthesis import load_voice

    return load_voice(find_speech_folder(model))


def read_out(voice: Voice, text: str, output: Path) -> None:
    """Write an answer as sound; letters that the voice leaves out are said.

    Raises:
        KovqaError: see `speak`.
    """
    from kovqa_core.speech.synthesis import speak

    from kovqa_cli.output.console import print_warnings

    if unknown := speak(voice, text, output):
        text = message(
            "speech.letters-left-out", "the voice does not know these letters, and leaves them out: {letters}",
            letters=" ".join(unknown),
        )  # fmt: skip
        print_warnings([text])
