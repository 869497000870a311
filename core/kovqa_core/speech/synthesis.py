"""A text as sound: VITS (MMS-TTS) and what else transformers' own pipeline speaks with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kovqa_core.errors import DataError, MachineError, ModelError
from kovqa_core.messages import message
from kovqa_core.speech.sound_file import Samples, write_sound
from kovqa_core.speech.speech_folder import (
    OPTIONS,
    answering,
    load_speech_network,
    opening,
    read_speech_config,
    speech_device,
    transformers,
)

_INSTALL = {"uroman": "'kovqa[speech]'"}  # what brings a library
_SEED = 0  # VITS draws its voice: the same text is the same sound


@dataclass(frozen=True)
class Voice:
    """A loaded model that speaks.

    Attributes:
        folder: that it came from.
        pipeline: transformers', from a text to samples.
    """

    folder: Path
    pipeline: Any


def load_voice(folder: Path, device: torch.device | None = None) -> Voice:
    """A model that speaks.

    Args:
        folder: as transformers saves it.
        device: where it computes; None: this machine's GPU if it has one, else its CPU.

    Raises:
        ModelError: the folder has none, it needs more than a text, or is damaged.
        MachineError: its letters come from a program that is not installed.
    """
    config, device = read_speech_config(folder), device or speech_device()
    if type(config) not in transformers.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING:
        raise ModelError(
            message(
                "speech.speaks-not", "{folder} is a {model_type}, which turns no text into sound by itself",
                folder=folder, model_type=config.model_type,
            ),
            message("speech.speaks-not.hint", "name a VITS, such as facebook/mms-tts-kor"),
        )  # fmt: skip
    net = load_speech_network(folder, transformers.AutoModelForTextToWaveform, device)
    with opening(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OPTIONS)
        _require_letters(folder, tokenizer)
        pipeline = transformers.TextToAudioPipeline(model=net, tokenizer=tokenizer, device=device)
    return Voice(folder, pipeline)


def _require_letters(folder: Path, tokenizer: Any) -> None:
    """See that what writes Hangul in a voice's own letters is installed; transformers only logs that it is not.

    Raises:
        MachineError: it is not.
    """
    for setting, library in (("is_uroman", "uroman"), ("phonemize", "phonemizer")):
        if getattr(tokenizer, setting, False) and find_spec(library) is None:
            raise MachineError(
                message(
                    "speech.no-romaniser", "{folder} reads Latin letters, and {library}, which writes Hangul in them, is "
                    "not installed", folder=folder, library=library,
                ),
                message("speech.no-romaniser.hint", "pip install {library}", library=_INSTALL.get(library, library)),
            )  # fmt: skip


def speak(voice: Voice, text: str, output: Path) -> list[str]:
    """Write a text as a WAV.

    Args:
        voice: that speaks.
        text: to be read out.
        output: the file.

    Returns:
        The letters of the text that the voice does not know, and leaves out.

    Raises:
        DataError: it knows none of them.
        ModelError: its settings do not go with its network.
        SettingsError, MachineError: the file cannot be written.
    """
    unknown = _unknown_letters(voice, text)
    if len(unknown) == len(set(_letters(text))):  # also of a text without any
        raise DataError(
            message(
                "speech.unreadable-text",
                "{model} knows no letter of {text!r}",
                model=voice.folder.name,
                text=text,
            ),
            message("speech.unreadable-text.hint", "take a voice for the language of the answer"),
        )
    with torch.random.fork_rng(), torch.inference_mode(), answering(voice.folder):
        torch.manual_seed(_SEED)
        spoken = voice.pipeline(text)
    samples: Samples = np.asarray(spoken["audio"], np.float32).reshape(-1)
    write_sound(output, samples, int(spoken["sampling_rate"]))
    return unknown


def _letters(text: str) -> list[str]:
    return [letter for letter in text if letter.isalnum()]


def _unknown_letters(voice: Voice, text: str) -> list[str]:
    """The letters and digits of which a voice's tokenizer leaves nothing, each once."""
    tokenizer, letters = voice.pipeline.tokenizer, list(dict.fromkeys(_letters(text)))
    if not isinstance(tokenizer, transformers.VitsTokenizer):  # of others nothing is left out
        return []
    if tokenizer.is_uroman:  # takes its time to start: asked once
        return [] if tokenizer.prepare_for_tokenization(text)[0].strip() else letters
    return [letter for letter in letters if not tokenizer.prepare_for_tokenization(letter)[0].strip()]
