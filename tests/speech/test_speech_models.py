"""Tiny random models through the whole way: a sound becomes a text, a text a sound; and folders that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.errors import AssetError, DataError, KovqaError, MachineError, ModelError
from kovqa_core.speech.recognition import SpeechRecogniser, load_recogniser, transcribe
from kovqa_core.speech.sound_file import read_sound
from kovqa_core.speech.speech_folder import find_speech_folder
from kovqa_core.speech.synthesis import load_voice, speak

from tests.speech.test_sound_file import tone, wav
from tests.speech.tiny_models import save_ctc, save_voice, save_whisper

SOUND = wav(tone(440))
CPU = torch.device("cpu")


def decoder_prompt(recogniser: SpeechRecogniser) -> list[str]:
    """The tokens that a Whisper's decoder begins with."""
    seen: list[torch.Tensor] = []
    decoder = recogniser.pipeline.model.model.decoder
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    transcribe(recogniser, SOUND)
    hook.remove()
    tokens: list[str] = recogniser.pipeline.tokenizer.convert_ids_to_tokens(seen[0][0].tolist())
    return tokens


@pytest.mark.parametrize("settings", [True, False], ids=["today", "tuned in 2023"])
def test_a_whisper_is_told_that_korean_is_spoken(tmp_path: Path, settings: bool) -> None:
    recogniser = load_recogniser(save_whisper(tmp_path / "w", said="빨간 별인가요?", settings=settings), CPU)
    assert transcribe(recogniser, SOUND) == "빨간 별인가요?"
    assert decoder_prompt(recogniser) == [
        "<|startoftranscript|>",
        "<|ko|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]


def test_a_whisper_of_one_language_and_a_ctc_model(tmp_path: Path) -> None:
    english = load_recogniser(save_whisper(tmp_path / "w", languages=False), CPU)
    assert transcribe(english, SOUND) == "무엇인가요?"
    assert decoder_prompt(english)[0] == "<|startoftranscript|>"
    assert "<|ko|>" not in decoder_prompt(english)
    assert transcribe(load_recogniser(save_ctc(tmp_path / "c"), CPU), wav(tone(440, 44_100), rate=44_100))


def test_nothing_understood_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="understands no word"):
        transcribe(load_recogniser(save_whisper(tmp_path / "w", said="  "), CPU), SOUND)


def test_a_voice_says_the_same_text_the_same_way_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    voice = load_voice(save_voice(tmp_path / "v"), CPU)
    before = torch.random.get_rng_state()
    assert speak(voice, "무엇인가요?", tmp_path / "a.wav") == []
    assert speak(voice, "무엇인가요?", tmp_path / "b.wav") == []
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert torch.equal(before, torch.random.get_rng_state()), "others' random numbers are as they were"
    assert (tmp_path / "a.wav").stat().st_size > 200
    assert speak(voice, "무엇 하나", tmp_path / "c.wav") == ["하", "나"]
    for text in ("yes", "?!", ""):
        with pytest.raises(DataError, match="knows no letter"):
            speak(voice, text, tmp_path / "d.wav")
    assert not (tmp_path / "d.wav").exists()


def test_a_voice_that_needs_latin_letters_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMS-TTS's Korean voice: without uroman transformers logs a warning, and every Hangul is left out."""
    folder = save_voice(tmp_path / "mms", "qxz ", is_uroman=True)
    monkeypatch.setattr("kovqa_core.speech.synthesis.find_spec", lambda library: None)
    with pytest.raises(MachineError, match="uroman") as caught:
        load_voice(folder, CPU)
    assert caught.value.hint == "pip install 'kovqa[speech]'"
    monkeypatch.setattr("kovqa_core.speech.synthesis.find_spec", lambda library: object())
    voice = load_voice(folder, CPU)
    with pytest.raises(DataError, match="knows no letter"):
        speak(voice, "별", tmp_path / "a.wav")  # whatever the reason


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "encoder" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "configuration of nothing": lambda folder: (folder / "config.json").write_text("{}"),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "weights cut off": cut_weights,
    "a weight missing": drop_weights,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "tokenizer of nothing": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "no feature extractor": lambda folder: (folder / "preprocessor_config.json").unlink(),
    "weights elsewhere": lambda folder: (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../../b.safetensors"}}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_error(tmp_path: Path, damage: str) -> None:
    folder = save_whisper(tmp_path / "w")
    DAMAGES[damage](folder)
    with pytest.raises(KovqaError) as caught:
        load_recogniser(folder, CPU)
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message


def test_settings_that_do_not_go_with_the_network_are_one_error(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "w")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "max_new_tokens": 256}))
    with pytest.raises(ModelError, match="fails"):
        transcribe(load_recogniser(folder, CPU), SOUND)


def test_folders_of_other_models_are_named(tmp_path: Path) -> None:
    whisper, voice = save_whisper(tmp_path / "w"), save_voice(tmp_path / "v")
    with pytest.raises(ModelError, match="is a vits, which writes down no speech"):
        load_recogniser(voice, CPU)
    with pytest.raises(ModelError, match="is a whisper, which turns no text into sound"):
        load_voice(whisper, CPU)
    with pytest.raises(ModelError, match="there is no speech model"):
        find_speech_folder(str(tmp_path / "nothing"))


def test_a_model_of_the_hub_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="openai/whisper-small") as caught:
        find_speech_folder("openai/whisper-small")
    assert "kovqa download hf:openai/whisper-small" in caught.value.hint
    snapshot = tmp_path / "models--openai--whisper-small/snapshots" / ("a" * 40)
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs/main").write_text("a" * 40)
    save_whisper(snapshot)
    assert find_speech_folder("openai/whisper-small") == snapshot


def test_what_a_voice_wrote_can_be_heard(tmp_path: Path) -> None:
    speak(load_voice(save_voice(tmp_path / "v"), CPU), "무엇인가요 " * 80, tmp_path / "a.wav")
    assert np.abs(read_sound(tmp_path / "a.wav", 16_000)).max() > 1e-3
