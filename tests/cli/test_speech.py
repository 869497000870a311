"""kovqa predict --speech and --speak: what is said, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index

from tests.conftest import Kovqa, Small
from tests.speech.test_sound_file import tone, wav
from tests.speech.tiny_models import save_voice, save_whisper


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("speech") / "whisper", said="이것은 무엇인가요?")


def test_a_spoken_question_and_a_spoken_answer(
    kovqa: Kovqa, small: Small, trained: Path, hearing: Path, tmp_path: Path
) -> None:
    (tmp_path / "q.wav").write_bytes(wav(tone(440)))
    letters = "".join(sorted(set("".join(open_index(small.index).answers()))))
    voice = save_voice(tmp_path / "voice", letters)
    image = next((small.root / "images").glob("*.png"))
    words = ["predict", "--model", trained, "-i", image]
    variables = {"KOVQA_SPEECH_MODEL": str(hearing), "KOVQA_SPEAK_MODEL": str(voice)}
    done = kovqa(*words, "--speech", "q.wav", "--speak", "a.wav", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in open_index(small.index).answers()
    assert done.stderr.splitlines()[0] == "heard: 이것은 무엇인가요?"
    assert "read out in a.wav" in done.stderr
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"

    mute = save_voice(tmp_path / "mute", "xyz")
    asked = ["--speech", "q.wav", "--speech-model", hearing, "--speak", "b.wav", "--speak-model", mute]
    silent = kovqa(*words, *asked, "--json")
    document = json.loads(silent.stdout)  # the answer is there, whatever becomes of its sound
    assert (document["question"], document["answer"]) == ("이것은 무엇인가요?", done.stdout.strip())
    assert "sound" not in document
    assert silent.returncode == 3
    assert "knows no letter" in silent.stderr
    assert "heard" not in silent.stderr
    assert not (tmp_path / "b.wav").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-i", "x.png", "--speech", "q.wav"), 2, "--speech-model openai/whisper-small"),
        (("-i", "x.png", "--speech", "q.wav", "--question", "뭐?"), 2, "or --speech q.wav"),
        (("--speech", "q.wav"), 2, "or --speech q.wav"),
        (("--input", "t.csv", "-o", "p.csv", "--speech", "q.wav"), 2, "or --speech q.wav"),
        (("--input", "t.csv", "-o", "p.csv", "--speak", "a.wav"), 2, "--speak reads out the answer to one question"),
        (("-i", "x.png", "--question", "뭐?", "--speak", "a.mp3"), 2, "--speak writes WAV"),
        (("-i", "x.png", "--question", "뭐?", "--speak", "a.wav"), 2, "--speak-model facebook/mms-tts-kor"),
        (("-i", "x.png", "--speech", "q.wav", "--speak", "./q.wav"), 2, "q.wav is an input"),
        (("-i", "x.wav", "--question", "뭐?", "--speak", "x.wav"), 2, "x.wav is an input"),
        (("-i", "x.png", "--speech", "q.wav", "--speech-model", "."), 3, "no speech model"),
        (("-i", "x.png", "--speech", "q.wav", "--speech-model", "MODEL"), 3, "q.wav"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_one_line(
    kovqa: Kovqa, hearing: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = kovqa("predict", *(hearing if word == "MODEL" else word for word in words))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
