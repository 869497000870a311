"""kovqa tokenizer: killed and resumed, encoding, inspecting, extending, and what a user does wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from kovqa_core.tokenizer.card import TokenizerCard, card_path
from kovqa_core.tokenizer.train import train_tokenizer

from tests.cli.test_index import error as error_with_code
from tests.conftest import Kovqa, Small, clean_env, command


def error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The line of an error, without its KOVQA-number."""
    return re.sub(r" \[KOVQA-\d+\]", "", error_with_code(done, code))


FIXTURES = Path(__file__).parents[1] / "fixtures" / "tokenizer"
THEIRS, REVIEWS = FIXTURES / "smp.model", FIXTURES / "reviews.txt"
QUESTION = "강아지가 몇 마리인가요?"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real text in eighty files."""
    folder = tmp_path_factory.mktemp("글")
    reviews = REVIEWS.read_bytes().splitlines(keepends=True)[:2400]
    paths = [folder / f"{n:03}.txt" for n in range(80)]
    for n, path in enumerate(paths):
        path.write_bytes(b"".join(reviews[n::80]))
    return paths


@pytest.fixture(scope="module")
def undisturbed(texts: list[Path]) -> Path:
    """The model of it."""
    train_tokenizer(texts, texts[0].parent / "whole.model", 2000)
    return texts[0].parent / "whole.model"


def interrupted(words: list[object], work: Path, kind: signal.Signals) -> tuple[int, str, int]:
    """Start a command and send it a signal when some pieces are there: exit code, stderr, pieces then."""
    process = subprocess.Popen(
        command(words), env=clean_env(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(work.glob("*/*.txt")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, kind)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, len(list(work.glob("*/*.txt")))


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_what_was_stopped_goes_on_to_the_same_model(
    kovqa: Kovqa, texts: list[Path], undisturbed: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    output, work = tmp_path / "cut.model", tmp_path / "cut.model.work"
    words = ["tokenizer", "train", *texts, "--vocab-size", "2000", "-o", output]
    code, said, there = interrupted(words, work, kind)
    assert code == (130 if kind == signal.SIGINT else -signal.SIGKILL), said
    assert ("run the same command again" in said) == (kind == signal.SIGINT)
    assert 0 < there < len(texts)
    assert not output.exists()
    done = kovqa(*words)
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
    assert output.read_bytes() == undisturbed.read_bytes()
    cards = [json.loads(card_path(path).read_text("utf-8")) for path in (output, undisturbed)]
    assert {**cards[0], "date": ""} == {**cards[1], "date": ""}
    assert not work.exists()


def test_ids_are_those_beit3_reads(kovqa: Kovqa, tmp_path: Path) -> None:
    ids = "256 78 2158 1286 2524 22 16 318 1729"  # recorded from the original, docs/sources/beit3.md, B22
    words = ["tokenizer", "encode", "--tokenizer", THEIRS]
    assert kovqa(*words, QUESTION).stdout == f"{ids}\n"
    assert kovqa(*words, QUESTION, "--pieces").stdout == "▁강 아 지가 ▁몇 ▁마리 인 가 요 ?\n"
    told = json.loads(kovqa(*words, QUESTION, "--json").stdout)
    assert (told["schema"], told["text"], " ".join(map(str, told["ids"]))) == (1, QUESTION, ids)
    for encoding in ("utf-8-sig", "cp949"):
        done = subprocess.run(
            command(words), input=f"{QUESTION}\r\n\r\n{QUESTION}".encode(encoding), env=clean_env(),
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout.decode().splitlines() == [ids, "", ids]


def test_two_models_stand_side_by_side(kovqa: Kovqa, small: Small) -> None:
    words = ["tokenizer", "inspect", THEIRS, small.tokenizer, "--text", small.root / "text.txt"]
    shown = kovqa(*words).stdout
    (heading,) = (line.split() for line in shown.splitlines() if "smp.model" in line)
    assert heading == ["smp.model", "tokenizer.model"]
    told = json.loads(kovqa(*words, "--json").stdout)["models"]
    assert [model["pieces"] for model in told] == [10_000, 500]
    (row,) = (line.split() for line in shown.splitlines() if "tokens per word" in line)
    assert row[-2:] == [f"{model['text']['pieces_per_word']:.3f}" for model in told]
    assert kovqa(*words, "-q").stdout.split() == [f"{model['text']['pieces_per_word']:.4f}" for model in told]


def test_a_model_is_extended(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    done = kovqa(
        "tokenizer", "extend", THEIRS, "--with", small.tokenizer, "-o", "new.model", "--pieces", "20"
    )
    assert (done.returncode, done.stdout) == (0, "new.model\n"), done.stderr
    assert "20 Korean tokens added to 10,000" in done.stderr
    assert "10,000 + 20 tokens" in kovqa("tokenizer", "inspect", "new.model").stdout


def test_what_does_not_fit_the_published_table_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kovqa_core.tokenizer import sentencepiece_model

    from kovqa_cli.output import tokenizer

    notes: list[str] = []
    for name in ("kovqa_cli.output.tokenizer.print_note", "kovqa_cli.output.console.print_note"):
        monkeypatch.setattr(name, notes.append)
    most = sentencepiece_model.MAX_VOCAB_SIZE
    card = TokenizerCard(most + 1, "", {}, "", settings={"vocab_size": 64_009}, lines=9)
    tokenizer.print_trained_tokenizer(tmp_path, card, as_json=False, quiet=False)
    assert "64,009 tokens do not fit BEiT-3's published text table" in notes[0]
    tokenizer.print_trained_tokenizer(tmp_path, replace(card, pieces=most), as_json=False, quiet=False)
    assert len(notes) == 3  # the two lines about the tokens, one warning


# ---------------------------------------------------------------------------------- bad inputs


def test_texts_that_are_none(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "빈.txt").touch()
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)))
    (tmp_path / "utf16.txt").write_text("한글 abc\n", "utf-16-le")
    (tmp_path / "broken.txt").write_bytes("한글\n".encode() + b"\xff\xff\n")
    for name, said in {
        "빈.txt": "빈.txt is empty → give text",
        "blank.txt": "no text in blank.txt →",
        "picture.png": "picture.png is an image (PNG), not text →",
        "utf16.txt": "utf16.txt is a binary file, or UTF-16 without a byte-order mark → give text in UTF-8",
        "broken.txt": "broken.txt:2: damaged UTF-8: byte 7 (0xFF) fits no letter → mend this line",
        "nowhere.txt": "cannot read nowhere.txt: No such file",
        ".": ". is a folder, and not an index → name an index folder, or the files: ./*",
    }.items():
        assert said in error(kovqa("tokenizer", "train", name, "-o", "new.model"), 3)
    assert not (tmp_path / "new.model").exists()


def test_too_few_pieces_say_how_many_are_needed(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    words = ["tokenizer", "train", small.root / "text.txt", "-o", "new.model", "--vocab-size"]
    line = error(kovqa(*words, "100"), 2)
    assert "100 tokens are too few for this text → ask for " in line
    assert kovqa(*words, line.split("ask for ")[1].split()[0]).returncode == 0


def test_nothing_is_overwritten_that_is_read(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("한글\n", "utf-8")
    assert "글.txt is an input" in error(kovqa("tokenizer", "train", "글.txt", "-o", "./글.txt"), 2)
    assert "tokenizer.model is an input" in error(
        kovqa("tokenizer", "extend", small.tokenizer, "--with", "글.txt", "-o", small.tokenizer), 2
    )
    (tmp_path / "m.work").mkdir()
    (tmp_path / "m.work" / "thesis.txt").touch()
    assert "m.work holds files that kovqa did not write" in error(
        kovqa("tokenizer", "train", "글.txt", "-o", "m"), 2
    )
    assert ". is a folder" in error(kovqa("tokenizer", "train", "글.txt", "-o", "."), 2)


def test_models_that_are_none_of_ours(kovqa: Kovqa, tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        input=str(REVIEWS), model_prefix=str(tmp_path / "pad"), vocab_size=2000, minloglevel=2,
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, input_sentence_size=500,
    )  # fmt: skip
    (tmp_path / "text.model").write_text("\n이것은 모델이 아니다\n", "utf-8")
    (tmp_path / "empty.model").touch()
    encode = ["tokenizer", "encode", "한글", "--tokenizer"]
    for words in encode, ["tokenizer", "extend", "--with", REVIEWS, "-o", "new.model"]:
        line = error(kovqa(*words, "pad.model"), 3)
        assert "must be unk, bos, eos and none may be pad; here unk is 1, bos 2, eos 3, pad 0 → train" in line
    for name in "text.model", "empty.model":
        assert f"{name} is not a SentencePiece model → train one" in error(kovqa(*encode, name), 3)
    assert "cannot read nowhere" in error(kovqa(*encode, "nowhere"), 3)
    assert "text.model is not a SentencePiece model" in error(kovqa("tokenizer", "inspect", "text.model"), 3)
    assert "not XLM-R's" in kovqa("tokenizer", "inspect", "pad.model").stdout
