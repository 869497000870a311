"""What is said in a sound: Whisper and its like, and CTC models (wav2vec 2.0), by transformers' own pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kovqa_core.errors import DataError, ModelError
from kovqa_core.messages import message
from kovqa_core.speech.sound_file import SoundSource, read_sound
from kovqa_core.speech.speech_folder import (
    OPTIONS,
    answering,
    load_speech_network,
    opening,
    read_speech_config,
    speech_device,
    transformers,
)

LANGUAGE = "ko"  # as in SpeechVQAPipeline (docs/sources/hub_models.md, H20)


@dataclass(frozen=True)
class SpeechRecogniser:
    """A loaded model of speech.

    Attributes:
        folder: that it came from.
        pipeline: transformers', from samples to a text.
        rate: samples a second that it hears.
        generate: what its `generate` gets: Korean, where it knows several languages.
    """

    folder: Path
    pipeline: Any
    rate: int
    generate: dict[str, object]


def load_recogniser(folder: Path, device: torch.device | None = None) -> SpeechRecogniser:
    """A model of speech.

    Args:
        folder: as transformers saves it.
        device: where it computes; None: this machine's GPU if it has one, else its CPU.

    Raises:
        ModelError: the folder has none, or it is damaged.
    """
    config, device = read_speech_config(folder), device or speech_device()
    if type(config) in transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
        model_class = transformers.AutoModelForSpeechSeq2Seq
    elif type(config) in transformers.MODEL_FOR_CTC_MAPPING:
        model_class = transformers.AutoModelForCTC
    else:
        raise ModelError(
            message(
                "speech.writes-no-text", "{folder} is a {model_type}, which writes down no speech",
                folder=folder, model_type=config.model_type,
            ),
            message("speech.writes-no-text.hint", "name a Whisper, or another model for speech recognition"),
        )  # fmt: skip
    net = load_speech_network(folder, model_class, device)
    with opening(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **OPTIONS)
        hearing = transformers.AutoFeatureExtractor.from_pretrained(folder, **OPTIONS)
        pipeline = transformers.AutomaticSpeechRecognitionPipeline(
            model=net, tokenizer=tokenizer, feature_extractor=hearing, device=device
        )
    # Where its file is missing, transformers makes a tokenizer of nothing but special tokens, and goes on.
    tokens, known = getattr(net.config, "vocab_size", 0), len(tokenizer)
    if 2 * known < tokens:
        raise ModelError(
            message(
                "speech.tokenizer-missing", "{folder} has a tokenizer of {known:,} tokens for a network of {tokens:,}",
                folder=folder, known=known, tokens=tokens,
            ),
            message("speech.fetch-again.hint", "fetch it again"),
        )  # fmt: skip
    return SpeechRecogniser(folder, pipeline, int(hearing.sampling_rate), _language_options(net, tokenizer))


def _language_options(net: Any, tokenizer: Any) -> dict[str, object]:
    """That Korean is spoken, for a Whisper of several languages; one that guesses takes short questions for others.

    Models that were tuned before 2023's end have generation settings without a list of languages, and `generate`
    refuses a language then: the list is made of the tokenizer's, which has one token for each.
    """
    if net.config.model_type != "whisper":
        return {}
    settings, vocabulary = net.generation_config, tokenizer.get_vocab()
    korean, transcribe = vocabulary.get(f"<|{LANGUAGE}|>"), vocabulary.get("<|transcribe|>")
    if korean is None or transcribe is None:  # a Whisper of English alone
        return {}
    if not getattr(settings, "lang_to_id", None):
        settings.lang_to_id = {f"<|{LANGUAGE}|>": korean}
        settings.task_to_id = {"transcribe": transcribe}
        settings.no_timestamps_token_id = vocabulary.get("<|notimestamps|>")
        settings.is_multilingual = True
    settings.forced_decoder_ids = None  # the old way of the same, which `language` replaces
    return {"language": LANGUAGE, "task": "transcribe"}


def transcribe(recogniser: SpeechRecogniser, sound: SoundSource) -> str:
    """What is said, without spaces around it.

    Raises:
        DataError: see `read_sound`; or nothing is understood.
        ModelError: its settings do not go with its network.
        MachineError: see `read_sound`.
    """
    samples = read_sound(sound, recogniser.rate)
    asked = {"raw": samples, "sampling_rate": recogniser.rate}
    with answering(recogniser.folder):
        heard = recogniser.pipeline(asked, generate_kwargs=recogniser.generate)
    text = " ".join(str(heard["text"]).split())
    if not text:
        raise DataError(
            message(
                "speech.nothing-understood", "{model} understands no word of it", model=recogniser.folder.name
            ),
            message("speech.silent.hint", "record the question again, nearer to the microphone"),
        )
    return text
