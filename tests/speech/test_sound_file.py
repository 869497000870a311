"""Sound files: every form of WAV, other rates, and what is no sound."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.errors import DataError, MachineError
from kovqa_core.speech.sound_file import MAX_SOUND_SECONDS, Samples, read_sound, resample, write_sound

RATE = 16_000


def tone(hertz: float, rate: int = RATE, seconds: float = 0.4) -> Samples:
    """A tone that begins and ends softly."""
    times = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times) * np.sin(np.pi * times / seconds) ** 2).astype(np.float32)


def wav(samples: Samples, *, rate: int = RATE, width: int = 2, channels: int = 1) -> bytes:
    """Samples as a WAV, the same in every channel."""
    values = np.repeat(samples.astype(np.float64)[:, None], channels, axis=1).reshape(-1)
    whole = np.round(values * (2 ** (8 * width - 1) - 1)).astype("<i8")
    whole += 128 if width == 1 else 0
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    return stream.getvalue()


@pytest.mark.parametrize(("width", "error"), [(1, 1 / 127), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
def test_every_width_of_pcm_and_the_mean_of_all_channels(width: int, error: float) -> None:
    samples = tone(440)
    for channels in (1, 2, 6):
        heard = read_sound(wav(samples, width=width, channels=channels), RATE)
        assert heard.dtype == np.float32
        np.testing.assert_allclose(heard, samples, atol=error)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_another_rate_keeps_what_both_can_hold_and_folds_nothing_back(rate: int) -> None:
    """Against the same tone drawn at the new rate; a tone above half of that rate is gone, not a lower one."""
    heard = resample(tone(440, rate), rate, RATE)
    np.testing.assert_allclose(heard, tone(440), atol=1e-5)
    if rate > RATE:
        assert np.abs(resample(tone(0.45 * rate, rate), rate, RATE)).max() < 1e-5
    beginning = resample(
        np.r_[tone(440, rate), np.zeros(rate // 2, np.float32)].astype(np.float32), rate, RATE
    )
    assert np.abs(beginning[-RATE // 4 :]).max() < 1e-4, "the end does not hear the beginning"


def test_what_is_written_is_read_again_and_a_loud_sound_is_not_cut(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", tone(440), RATE)
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav", RATE), tone(440), atol=1e-4)
    write_sound(tmp_path / "b.wav", 6 * tone(440), RATE)
    loud = read_sound(tmp_path / "b.wav", RATE)
    np.testing.assert_allclose(loud, tone(440) / np.abs(tone(440)).max(), atol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_what_a_pipe_wrote_says_no_length_and_is_read() -> None:
    """ffmpeg and arecord cannot go back to their header, and leave the greatest length there."""
    data = bytearray(wav(tone(440)))
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFF_FFFF)
    assert len(read_sound(bytes(data), RATE)) == len(tone(440))


LONG = np.zeros(int(RATE * (MAX_SOUND_SECONDS + 1)), np.float32) + 0.1
GOOD = wav(tone(440))
HEADER = bytearray(GOOD)
BAD_SOUNDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "speech.unreadable"),
    "text": ("소리가 아니다".encode(), "speech.unreadable"),
    "a telephone's": (b"\0\0\0\x1cftypM4A \0\0\0\0", "speech.unreadable"),
    "flac": (b"fLaC\0\0\0\x22" + bytes(34), "speech.no-soundfile"),
    "mp3": (b"\xff\xfb\x90\x64" + bytes(64), "speech.no-soundfile"),
    "cut off": (GOOD[: len(GOOD) // 2], "speech.unreadable"),
    "header alone": (GOOD[:44], "speech.unreadable"),
    "too long": (wav(LONG), "speech.too-long"),
    "too short": (wav(tone(440)[:100]), "speech.too-short"),
    "no samples": (wav(tone(440)[:0]), "speech.too-short"),
    "silent": (wav(np.zeros(RATE, np.float32)), "speech.silent"),
    "hiss": (wav(tone(440) * np.float32(0.001)), "speech.silent"),
    "one sample a second": (wav(tone(440), rate=1), "speech.unreadable"),
    "billions a second": (wav(tone(440), rate=2**29), "speech.unreadable"),
    "65,535 channels": (GOOD[:22] + b"\xff\xff" + GOOD[24:], "speech.unreadable"),
    "no channels": (GOOD[:22] + b"\0\0" + GOOD[24:], "speech.no-soundfile"),
    "float": (GOOD[:20] + b"\3\0" + GOOD[22:], "speech.no-soundfile"),
}


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_what_is_no_question_is_one_error(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, key = BAD_SOUNDS[name]
    monkeypatch.setattr("kovqa_core.speech.sound_file.find_spec", lambda library: None)
    (tmp_path / "질문.wav").write_bytes(data)
    for source in (data, tmp_path / "질문.wav"):
        with pytest.raises((DataError, MachineError)) as caught:
            read_sound(source, RATE)
        assert getattr(caught.value.message, "key", "") == key
        assert caught.value.hint
        assert source is data or "질문.wav" in caught.value.message


def test_every_cut_of_a_file_is_one_error(tmp_path: Path) -> None:
    for length in range(0, len(GOOD) - 1, 97):
        with pytest.raises((DataError, MachineError)):
            read_sound(GOOD[:length], RATE)


def test_a_pipe_and_a_folder_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, tmp_path / "nothing.wav"):
        with pytest.raises(DataError):
            read_sound(path, RATE)


def test_what_espeak_says_in_korean(tmp_path: Path) -> None:
    if not shutil.which("espeak-ng"):
        pytest.skip("no espeak-ng here: apt-get install espeak-ng")
    subprocess.run(
        ["espeak-ng", "-v", "ko", "-w", tmp_path / "q.wav", "이 그림에 무엇이 있나요?"], check=True
    )
    with wave.open(str(tmp_path / "q.wav")) as sound:
        own_rate, frames = sound.getframerate(), sound.getnframes()
    heard = read_sound(tmp_path / "q.wav", RATE)
    assert own_rate != RATE
    assert len(heard) == -(-frames * RATE // own_rate)
    assert 0.1 < np.abs(heard).max() <= 1.05


def test_flac_ogg_and_float_wav_are_read_by_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="no soundfile here: pip install 'kovqa[speech]'")
    for name, subtype, error in (
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.05),
        ("a.wav", "FLOAT", 1e-6),
    ):
        soundfile.write(tmp_path / name, tone(440), RATE, subtype=subtype)
        np.testing.assert_allclose(read_sound(tmp_path / name, RATE), tone(440), atol=error)
        whole = (tmp_path / name).read_bytes()
        with pytest.raises(DataError):
            read_sound(whole[:40], RATE)
    soundfile.write(tmp_path / "long.flac", LONG, RATE)
    with pytest.raises(DataError, match="longer than"):
        read_sound(tmp_path / "long.flac", RATE)
