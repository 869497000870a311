"""Text -> tokens: what is cleaned, what is trained, what is added to another model."""

from __future__ import annotations

import bz2
import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from kovqa_core.errors import DataError, ModelError, SettingsError
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer
from kovqa_core.tokenizer import corpus as corpora
from kovqa_core.tokenizer import sentencepiece_model, text_file
from kovqa_core.tokenizer.card import card_path
from kovqa_core.tokenizer.corpus import chunk_lines, clean_corpus, corpus_chunks, sample_lines
from kovqa_core.tokenizer.extend import extend_tokenizer
from kovqa_core.tokenizer.inspect import inspect_tokenizers
from kovqa_core.tokenizer.train import check_output_free, train_tokenizer

from tests.conftest import Small

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tokenizer"
THEIRS, REVIEWS = FIXTURES / "smp.model", FIXTURES / "reviews.txt"
ENGLISH = Path(__file__).parents[2] / "LICENSE"


def inspected(models: list[Path], text: Path) -> list[dict[str, Any]]:
    """The reports as `--json` prints them."""
    return [report.to_json() for report in inspect_tokenizers(models, text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews to learn from and reviews held out; `ours.model` of the first, with KoBEiT3's 10,000 pieces."""
    folder = tmp_path_factory.mktemp("영화 평")
    reviews = REVIEWS.read_text("utf-8").splitlines()
    random.Random(0).shuffle(reviews)
    (folder / "held_out.txt").write_text("\n".join(reviews[:600]), "utf-8")
    (folder / "train.txt").write_text("\n".join(reviews[600:]), "utf-8")
    train_tokenizer([folder / "train.txt"], folder / "ours.model", 10_000)
    return folder


# ------------------------------------------------------------------------------------ cleaning


def read(path: Path) -> list[str]:
    return [line for piece in corpus_chunks(path) for line in chunk_lines(piece)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_a_file_in_many_chunks_has_the_lines_of_one(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ["latin first " * 30, *(f"  {n}번째 줄, 가각간  " for n in range(300)), "", "끝"]
    (tmp_path / "글.txt").write_bytes("\r\n".join(text).encode(encoding))
    whole = read(tmp_path / "글.txt")
    assert whole == [line.strip() for line in text if line]
    monkeypatch.setattr(text_file, "CHUNK_BYTES", 500)
    assert len(corpus_chunks(tmp_path / "글.txt")) > 10
    assert read(tmp_path / "글.txt") == whole


def test_macos_spelling_becomes_ours(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("\u1112\u1161\u11ab\u1100\u1173\u11af", "utf-8")
    assert read(tmp_path / "글.txt") == ["한글"]


def test_long_lines_are_cut_at_blanks_and_nothing_is_lost(tmp_path: Path) -> None:
    words, one_word = " ".join(f"낱말{n}" for n in range(9000)), "가" * 9000
    (tmp_path / "글.txt").write_text(f"{words}\n{one_word}\n", "utf-8")
    cut = read(tmp_path / "글.txt")
    assert max(len(line.encode()) for line in cut) <= corpora.MAX_LINE_BYTES
    assert " ".join(cut).startswith(words)
    assert "".join(cut).endswith(one_word)
    assert len(cut) < 15


def test_a_broken_letter_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "CHUNK_BYTES", 64)
    (tmp_path / "글.txt").write_bytes("한글\n".encode() * 50 + b"\xed\x95\n" + "한글\n".encode() * 50)
    with pytest.raises(DataError, match=r"글.txt:51: damaged UTF-8"):
        read(tmp_path / "글.txt")


def test_finished_chunks_are_kept_and_those_of_other_text_are_not(tmp_path: Path) -> None:
    texts = [tmp_path / f"{n}.txt" for n in range(3)]
    for text in texts:
        text.write_text(f"{text.stem}번 글\n둘째 줄\n", "utf-8")
    first = clean_corpus(texts, tmp_path / "work")
    assert first.sha256 == hashlib.sha256(b"".join(text.read_bytes() for text in texts)).hexdigest()
    assert (first.lines, first.characters) == (6, 3 * (4 + 4))
    first.chunk_files[1].unlink()
    times = [first.chunk_files[n].stat().st_mtime_ns for n in (0, 2)]
    assert clean_corpus(texts, tmp_path / "work") == first
    assert [first.chunk_files[n].stat().st_mtime_ns for n in (0, 2)] == times
    texts[0].write_text("다른 글\n", "utf-8")
    other = clean_corpus(texts, tmp_path / "work")
    assert next(sample_lines(other, 9)) == "다른 글"
    assert not first.chunk_files[0].exists()


def test_lines_are_drawn_evenly_in_order_and_always_the_same(tmp_path: Path) -> None:
    text = tmp_path / "글.txt"
    text.write_text("".join(f"{n}\n" for n in range(5000)), "utf-8")
    corpus = clean_corpus([text], tmp_path / "work")
    drawn = [int(line) for line in sample_lines(corpus, 1000)]
    assert len(drawn) == 1000
    assert drawn == sorted(set(drawn)) == [int(line) for line in sample_lines(corpus, 1000)]
    assert 2300 < sum(drawn) / 1000 < 2700
    assert len([*sample_lines(corpus, 5000)]) == len([*sample_lines(corpus, 9999)]) == 5000


def test_a_dump_is_known_by_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = "".join(
        f"<page><title>{n}</title><ns>0</ns><id>{n}</id><revision><id>{n}</id><model>wikitext</model>"
        f"<text>'''한국어'''는 [[한반도|반도]]의 말이고 이것은 {n}번 문서이다.</text></revision></page>\n"
        for n in range(1, 41)
    )
    xml = (
        f"<mediawiki version='0.11'><siteinfo><sitename>위키백과</sitename></siteinfo>\n{pages}</mediawiki>\n"
    )
    dump, text = tmp_path / "kowiki-20231101.txt", tmp_path / "글.xml.bz2"
    dump.write_bytes(bz2.compress(xml.encode()))
    text.write_text("낱말\n", "utf-8")
    corpus = clean_corpus([dump, text], tmp_path / "work")
    expected = [f"한국어는 반도의 말이고 이것은 {n}번 문서이다." for n in range(1, 41)]
    assert [*sample_lines(corpus, 99)] == [*expected, "낱말"]
    about, plain = corpus.sources
    assert (about["kind"], about["name"], about["date"]) == ("dump", "위키백과", "2023-11-01")
    assert "CC BY-SA" in about["licence"]
    assert (plain["kind"], plain["licence"]) == ("text", None)
    dump.write_text(xml, "utf-8")
    monkeypatch.setattr(text_file, "CHUNK_BYTES", 1000)
    assert len(corpus_chunks(dump)) > 5
    assert read(dump) == expected
    dump.write_bytes(bz2.compress(xml.encode())[:-20])
    with pytest.raises(DataError, match="ends too early"):
        clean_corpus([dump], tmp_path / "work")


# ------------------------------------------------------------------------------------ training


def test_fewer_tokens_than_kobeit3s_on_text_never_seen(folder: Path) -> None:
    ours, theirs = inspected([folder / "ours.model", THEIRS], folder / "held_out.txt")
    assert ours["pieces"] == theirs["pieces"] == 10_000
    assert ours["text"]["pieces_per_character"] < 0.85 * theirs["text"]["pieces_per_character"]
    assert ours["text"]["unknown_rate"] == 0 < theirs["text"]["unknown_rate"]


def test_the_card_says_what_a_model_was_made_of(folder: Path) -> None:
    card = json.loads((folder / "ours.model.json").read_text("utf-8"))
    text = (folder / "train.txt").read_bytes()
    assert card["sources"][0]["sha256"] == hashlib.sha256(text).hexdigest()
    assert card["sources"][0]["bytes"] == len(text)
    assert card["sha256"] == hashlib.sha256((folder / "ours.model").read_bytes()).hexdigest()
    assert (card["pieces"], card["settings"]["vocab_size"]) == (10_000, 10_000)
    assert (
        card["lines"]
        == card["lines_given"]
        == len([line for line in text.decode().splitlines() if line.strip()])
    )
    assert card["versions"]["sentencepiece"] == sentencepiece.__version__
    assert not (folder / "ours.model.work").exists()


def test_the_text_decides_on_the_model_not_its_place_or_chunks(tmp_path: Path) -> None:
    text = REVIEWS.read_bytes().split(b"\n")[:600]
    (tmp_path / "all.txt").write_bytes(b"\n".join(text))
    (tmp_path / "one.txt").write_bytes(b"\n".join(text[:250]))
    (tmp_path / "two.txt").write_bytes(b"\n".join(text[250:]))
    one = train_tokenizer([tmp_path / "all.txt"], tmp_path / "a.model", 1500, sentences=400)
    two = train_tokenizer(
        [tmp_path / "one.txt", tmp_path / "two.txt"], tmp_path / "b.model", 1500, sentences=400
    )
    assert one.corpus_sha256 == two.corpus_sha256
    assert one.lines_given == 400 < one.lines
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


# ----------------------------------------------------------------------------------- extending


@pytest.fixture(scope="module")
def english(folder: Path) -> Path:
    """An English model, which spells Hangul in bytes."""
    train_tokenizer([ENGLISH], folder / "english.model", 800)
    return folder / "english.model"


def test_korean_needs_fewer_tokens_and_english_stays(folder: Path, english: Path) -> None:
    card = extend_tokenizer(english, folder / "train.txt", folder / "both.model", 3000).to_json()
    old, new = load_xlmr_tokenizer(english), load_xlmr_tokenizer(folder / "both.model")
    assert card["added"] == 3000
    assert (card["old"]["sha256"], card["sha256"]) == (old.sha256, new.sha256)
    for line in [*ENGLISH.read_text().splitlines(), "¡Olé! 漢字 ☃ 12,345\t2²", "<s> a <mask>"]:
        assert [*map(str, new.tokenize(line))] == old.tokenize(line)
        assert [i for i in new.encode(line) if i != new.mask_id] == [
            i for i in old.encode(line) if i != old.mask_id
        ]
    before, after = inspected([english, folder / "both.model"], folder / "held_out.txt")
    assert after["text"]["pieces"] < before["text"]["pieces"] / 3
    assert after["scripts"]["Hangul"] == 3000
    assert {**after["scripts"], "Hangul": 0} == before["scripts"]
    assert not (folder / "both.model.work").exists()


def test_tokens_come_from_a_model_too(folder: Path) -> None:
    """KoBEiT3's own model with our pieces: its Hangul is scored as ours, so that theirs and ours mix."""
    card = extend_tokenizer(THEIRS, folder / "ours.model", folder / "more.model", 4000).to_json()
    theirs = (folder / "more.model").read_bytes()
    old, new = (
        sentencepiece_model.parse_model_proto(THEIRS.read_bytes()),
        sentencepiece_model.parse_model_proto(theirs),
    )
    assert [piece.piece for piece in new.pieces][:10_000] == [piece.piece for piece in old.pieces]
    assert card["pieces"] == len(new.pieces) == 14_000
    assert new.normalizer_spec == old.normalizer_spec
    added = [piece.piece for piece in new.pieces[10_000:]]
    assert all(re.fullmatch("▁?[가-힣ᄀ-ᇿ]+", piece) for piece in added)
    theirs, more = inspected([THEIRS, folder / "more.model"], folder / "held_out.txt")
    assert more["text"]["pieces"] < 0.85 * theirs["text"]["pieces"]
    assert more["text"]["unknown_rate"] < theirs["text"]["unknown_rate"]


def test_a_model_of_another_kind_is_not_extended(folder: Path, tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        input=str(ENGLISH),
        model_prefix=str(tmp_path / "bpe"),
        model_type="bpe",
        vocab_size=200,
        minloglevel=2,
    )
    with pytest.raises(ModelError, match=r"bpe.model is not a unigram model"):
        extend_tokenizer(tmp_path / "bpe.model", folder / "ours.model", tmp_path / "new.model")
    with pytest.raises(DataError, match="has no Korean token"):
        extend_tokenizer(THEIRS, ENGLISH, tmp_path / "new.model")
    assert not (tmp_path / "new.model").exists()


# ---------------------------------------------------------------------------------- inspecting


def test_a_fit_is_counted_by_hand(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("강아지가 몇 마리인가요?\n\n漢☃\n", "utf-8")
    (report,) = inspected([THEIRS], tmp_path / "글.txt")
    encoded = sentencepiece.SentencePieceProcessor(model_file=str(THEIRS)).encode(
        ["강아지가 몇 마리인가요?", "漢☃"]
    )
    fit, ids = report["text"], [i for line in encoded for i in line]
    assert (fit["lines"], fit["words"], fit["characters"]) == (2, 4, 13)
    assert fit["pieces"] == len(ids)
    assert fit["unknown_rate"] == ids.count(0) / len(ids) > 0
    assert fit["characters_covered"] == pytest.approx(12 / 13)  # 漢 is a piece, a snowman is none
    assert fit["pieces_per_word"] == len(ids) / 4
    assert sum(report["scripts"].values()) == report["pieces"] == 10_000


def test_a_tokenizer_takes_the_place_of_its_own_kind_only(small: Small, tmp_path: Path) -> None:
    """Trained again from the same text; not over one of another text, of others, or over anything else."""
    model, text, other = tmp_path / "t.model", tmp_path / "text.txt", tmp_path / "other.txt"
    shutil.copy(small.root / "text.txt", text)
    shutil.copy(small.tokenizer, model)
    shutil.copy(card_path(small.tokenizer), card_path(model))
    other.write_text("다른 글\n", "utf-8")
    check_output_free(model, [text])
    for inputs in ([other], [text, other]):
        with pytest.raises(SettingsError, match="was not made of this text"):
            check_output_free(model, inputs)
    shutil.copy(THEIRS, model)  # the card is another's
    with pytest.raises(SettingsError, match="was not made of this text"):
        check_output_free(model, [text])
    with pytest.raises(SettingsError, match="was not made of this text"):
        check_output_free(other, [text])
    with pytest.raises(SettingsError, match="was not made of this text"):
        extend_tokenizer(THEIRS, small.tokenizer, other)
    assert other.read_text("utf-8") == "다른 글\n"
