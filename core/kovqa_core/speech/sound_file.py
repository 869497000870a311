"""Sound as it comes, read alike everywhere: one channel, float32, at the rate that a model wants; and written as WAV.

PCM in a WAV is read by Python itself; everything else (float WAV, FLAC, OGG, MP3) by libsndfile, which is an extra.
"""

from __future__ import annotations

import io
import math
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from kovqa_core.errors import DataError, MachineError
from kovqa_core.files import atomic_file, open_file
from kovqa_core.messages import Message, message

Samples = NDArray[np.float32]  # of one channel, (n,), in -1…1
SoundSource = Path | bytes  # a file's path, or a whole file's bytes

MAX_SOUND_SECONDS = (
    30.0  # what Whisper hears at once (docs/sources/hub_models.md, H21); a question is shorter
)
MIN_SOUND_SECONDS = 0.1
_QUIET_PEAK = 1e-3  # -60 dB: a microphone that is switched off, or the hiss of one that nobody speaks into
# What libsndfile reads begins so; an .m4a, a page or an empty file would not be helped by installing it.
_SOUND_HEADS = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b".snd", b"riff")
_RATES = range(1_000, 768_001)
_MAX_CHANNELS = 64
_UNKNOWN_LENGTH = (
    0x7FFF_0000  # bytes; what writes into a pipe cannot say how many will come, and says the most there are
)


def read_sound(source: SoundSource, rate: int) -> Samples:
    """The samples of a sound, its channels averaged.

    Args:
        source: a WAV; with soundfile installed also FLAC, OGG, MP3 and whatever else libsndfile reads.
        rate: samples a second that are wanted.

    Raises:
        DataError: missing, no sound, damaged, too long or too short, or silent.
        MachineError: it needs soundfile, which is not installed.
    """
    if isinstance(source, bytes):
        name: str = message("speech.sound-in-memory", "of {size:,} bytes", size=len(source))
        stream: io.BufferedIOBase = io.BytesIO(source)
    else:
        name, stream = str(source), open_file(source)
    with stream:
        if not stream.seekable():
            raise _unreadable(name, message("speech.not-a-file", "it is a pipe, not a file"))
        channels, own_rate = _read_channels(stream, name)
    samples = channels.mean(axis=1, dtype=np.float32)
    _require_speech(samples, own_rate, name)
    return resample(samples, own_rate, rate)


def _read_channels(stream: io.BufferedIOBase, name: str) -> tuple[Samples, int]:
    """The samples as (n, channels), and their rate; never more than one that is too long needs to be known as such."""
    head = stream.read(12)
    stream.seek(0)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        try:
            return _read_pcm(stream, name)
        except (wave.Error, EOFError):  # float, compressed, or damaged: libsndfile knows which
            stream.seek(0)
    if not (
        head.startswith(_SOUND_HEADS) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    ):  # the latter: MP3
        raise _unreadable(name, message("speech.no-sound", "it is neither WAV, FLAC, OGG, MP3 nor AIFF"))
    return _read_with_soundfile(stream, name)


def _read_pcm(stream: io.BufferedIOBase, name: str) -> tuple[Samples, int]:
    with wave.open(cast(IO[bytes], stream)) as sound:
        channels, width, rate, frames = sound.getparams()[:4]
        _require_plausible(rate, channels, name)
        wanted = min(frames, _too_many_frames(rate))
        data = sound.readframes(wanted)
    frame_bytes = channels * width
    is_cut = len(data) < wanted * frame_bytes
    if is_cut and frames * frame_bytes < _UNKNOWN_LENGTH:
        raise _unreadable(name, message("speech.cut-off", "it is cut off"))
    data = data[: len(data) // frame_bytes * frame_bytes]
    return _pcm_values(data, width).reshape(-1, channels), rate


def _pcm_values(data: bytes, width: int) -> Samples:
    """PCM of a WAV as -1…1: 8 bits are unsigned, all others signed and little-endian."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    # The bytes of a value are the upper ones of four: so 3 bytes, which numpy has no type for, are as easy as 2.
    values = np.zeros((len(data) // width, 4), np.uint8)
    values[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return values.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def _read_with_soundfile(stream: io.BufferedIOBase, name: str) -> tuple[Samples, int]:
    if find_spec("soundfile") is None:
        raise MachineError(
            message(
                "speech.no-soundfile", "sound {file} is not a WAV of plain PCM, and soundfile, which reads others, is not "
                "installed",
                file=name,
            ),
            message("speech.no-soundfile.hint", "pip install 'kovqa[speech]'; or write it as a WAV of 16 bits"),
        )  # fmt: skip
    import soundfile

    try:
        with soundfile.SoundFile(stream) as sound:
            _require_plausible(sound.samplerate, sound.channels, name)
            wanted = min(sound.frames, _too_many_frames(sound.samplerate))
            samples: Samples = sound.read(wanted, dtype="float32", always_2d=True)
            return samples, sound.samplerate
    except soundfile.SoundFileError as error:
        problem = str(error).rpartition(": ")[2].strip(" .")
        raise _unreadable(name, message("speech.library-says", "{problem}", problem=problem)) from None


def _too_many_frames(rate: int) -> int:
    return int(MAX_SOUND_SECONDS * rate) + 1


def _require_plausible(rate: int, channels: int, name: str) -> None:
    if rate not in _RATES or not 1 <= channels <= _MAX_CHANNELS:
        raise _unreadable(
            name,
            message(
                "speech.odd-header", "it says {rate:,} samples a second and {channels} channels",
                rate=rate, channels=channels,
            ),
        )  # fmt: skip


def _require_speech(samples: Samples, rate: int, name: str) -> None:
    """See that a question can be in it.

    Raises:
        DataError: too long, too short, silent, or not finite.
    """
    seconds = len(samples) / rate
    if seconds > MAX_SOUND_SECONDS:
        raise DataError(
            message(
                "speech.too-long", "sound {file} is longer than {most:g} s, and a spoken question is not",
                file=name, most=MAX_SOUND_SECONDS,
            ),
            message("speech.too-long.hint", "cut out the question"),
        )  # fmt: skip
    if not np.isfinite(samples).all():
        raise _unreadable(name, message("speech.not-finite", "some of its values are not finite"))
    peak = float(np.abs(samples).max(initial=0.0))
    if seconds < MIN_SOUND_SECONDS or peak < _QUIET_PEAK:
        problem = message("speech.silent", "sound {file} is silent", file=name)
        if seconds < MIN_SOUND_SECONDS:
            problem = message(
                "speech.too-short", "sound {file} has but {seconds:.2f} s", file=name, seconds=seconds
            )
        raise DataError(
            problem, message("speech.silent.hint", "record the question again, nearer to the microphone")
        )


def _unreadable(name: str, problem: Message | str) -> DataError:
    return DataError(
        message("speech.unreadable", "sound {file} cannot be read ({problem})", file=name, problem=problem),
        message("speech.unreadable.hint", "record it again, or write it as a WAV of 16 bits"),
    )


def resample(samples: Samples, own_rate: int, rate: int) -> Samples:
    """The same sound at another rate: what both rates can hold is kept, and nothing above is folded back.

    By the spectrum (the discrete Fourier transform, as `scipy.signal.resample`), with silence around it, because
    a spectrum takes the end to lie beside the beginning.

    Args:
        samples: (n,).
        own_rate, rate: samples a second that they have, and that are wanted.

    Returns:
        (ceil(n * rate / own_rate),).
    """
    if own_rate == rate or not len(samples):
        return samples
    shared = math.gcd(own_rate, rate)
    step, new_step = own_rate // shared, rate // shared  # so many samples become so many
    count = math.ceil(len(samples) * rate / own_rate)
    margin = math.ceil(own_rate / 20 / step)  # steps in a twentieth of a second
    steps = math.ceil(len(samples) / step) + 2 * margin
    padded = np.zeros(steps * step, np.float32)
    padded[margin * step : margin * step + len(samples)] = samples
    spectrum = np.fft.rfft(padded)
    kept = (min(len(padded), steps * new_step) + 1) // 2  # below half of either rate
    resampled = np.fft.irfft(spectrum[:kept], steps * new_step) * (rate / own_rate)
    return resampled[margin * new_step :][:count].astype(np.float32)


def write_sound(path: Path, samples: Samples, rate: int) -> None:
    """Write samples as a WAV of 16 bits, whole or not at all; louder ones than 1 make all of it quieter."""
    peak = float(np.abs(samples).max(initial=0.0))
    scaled = np.round(samples / max(1.0, peak) * 32767).astype("<i2")
    with atomic_file(path) as stream, wave.open(stream) as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(scaled.tobytes())
