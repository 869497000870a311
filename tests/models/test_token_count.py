"""A tokenizer that hardly knows the language of an index is said to, with figures, by every family."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
from kovqa_core.data.example import Example
from kovqa_core.messages import Message
from kovqa_core.models import text_warnings, token_count
from kovqa_core.models.beit3.caption import Beit3CaptionProcessor
from kovqa_core.models.beit3.config import ModelConfig as Beit3Config
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor
from kovqa_core.models.fusion.config import ModelConfig as FusionConfig
from kovqa_core.models.fusion.tokenizer import FastTokenizer
from kovqa_core.models.fusion.vqa import FusionProcessor
from kovqa_core.models.token_count import TokenCount, describe_unknown_text, sample_examples
from kovqa_core.models.vlm.config import ModelConfig as VlmConfig
from kovqa_core.models.vlm.processor import VlmProcessor
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, load_xlmr_tokenizer
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.tokenizer.train import train_tokenizer

KOREAN = ["이 사진에 무엇이 있나요?", "고양이는 무슨 색인가요?", "사람이 몇 명 있나요?", "밖인가요 안인가요?"]
ENGLISH = [
    "What is in this picture?",
    "What colour is the cat?",
    "How many people are there?",
    "Inside or outside?",
]


def examples(texts: list[str]) -> list[Example]:
    return [Example(str(n), "x.png", text, {text: 1.0}, captions=[text]) for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model that has seen English alone."""
    folder = tmp_path_factory.mktemp("english")
    (folder / "text.txt").write_text("\n".join(ENGLISH * 9), encoding="utf-8")
    options = {"model_prefix": folder / "spm", "vocab_size": 45, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(input=folder / "text.txt", **options)
    return folder / "spm.model"


def word_piece(*words: str) -> FastTokenizer:
    model = {"type": "WordPiece", "vocab": {w: i for i, w in enumerate(["[UNK]", *words])}, "unk_token": "[UNK]",
             "continuing_subword_prefix": "##", "max_input_chars_per_word": 99}  # fmt: skip
    plain = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    return FastTokenizer(json.dumps(plain | empty).encode(), "tokenizer.json")


def processors(tokenizer: XlmrTokenizer) -> dict[str, tuple[str, Any]]:
    """A processor of each family and task, with a tokenizer."""
    beit3, data = Beit3Config(size="tiny", vocab_size=1000, num_classes=2), DataSettings()
    hf = SimpleNamespace(
        tokenizer=SimpleNamespace(
            encode=lambda text, add_special_tokens: tokenizer.encode(text), unk_token_id=3,
            convert_ids_to_tokens=lambda ids: [tokenizer.vocab[id] for id in ids],
        )
    )  # fmt: skip
    return {
        "questions": ("beit3", Beit3VqaProcessor(beit3, tokenizer, ["예", "아니요"], data)),
        "captions": ("beit3", Beit3CaptionProcessor(beit3, tokenizer, data)),
        "fusion": ("fusion", FusionProcessor(FusionConfig(), tokenizer, ["예"], data)),
        "vlm": ("vlm", VlmProcessor(hf, VlmConfig(base="x"), {2})),  # type: ignore[arg-type]
    }


def unknown_text(name: str, processor: Any, rows: list[Example]) -> Message | None:
    """What a start says of text that a tokenizer does not know."""
    said = text_warnings.text_warnings(name, processor, rows)
    return next((warning for warning in said if warning.key != "models.cut-texts"), None)


@pytest.mark.parametrize("name", ["questions", "captions", "fusion", "vlm"])
def test_every_family_says_what_its_tokenizer_does_not_know(name: str, english: Path) -> None:
    of, processor = processors(load_xlmr_tokenizer(english))[name]
    warning = unknown_text(of, processor, examples(KOREAN))
    assert warning is not None
    assert "4 of 4 sampled texts" in warning
    assert warning.fields["share"] == pytest.approx(0.5, abs=0.2)  # every word is one run of unknown letters
    assert unknown_text(of, processor, examples(ENGLISH)) is None


@pytest.mark.parametrize(("korean", "is_said"), [(0, False), (1, True), (4, True)])
def test_a_few_unknown_words_are_not_worth_a_warning(english: Path, korean: int, is_said: bool) -> None:
    """One foreign word in a hundred texts passes, one foreign text in ten does not."""
    of, processor = processors(load_xlmr_tokenizer(english))["questions"]
    texts = [*(ENGLISH * 25)[: 100 - 10 * korean], *(KOREAN * 3)[: 10 * korean], "What is 뷁?"]
    assert (unknown_text(of, processor, examples(texts)) is not None) == is_said


def test_tokenizers_of_hugging_face() -> None:
    """WordPiece by its unknown token; what a question looked like before it was cut; composed or not."""
    tokenizer = word_piece("고", "##양", "##이")
    tokenizer.encode_with_specials("고양이", 2)
    assert tokenizer.count_tokens(["고양이 뷁", "고"]) == TokenCount(2, 5, 1, 0, 1)
    assert tokenizer.count_tokens(["고양이"]) == TokenCount(1, 3, 0, 0, 0)
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]], "byte_fallback": False}
    whole = json.loads(word_piece().model_bytes) | {"model": unigram}
    assert FastTokenizer(json.dumps(whole).encode(), "x").count_tokens(["ab a"]).unknown == 1
    pairs = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": None, "unk_token": None, "fuse_unk": False,
             "continuing_subword_prefix": None, "end_of_word_suffix": None}  # fmt: skip
    whole["model"] = pairs
    assert FastTokenizer(json.dumps(whole).encode(), "x").count_tokens(["a"]).unknown == 0


def test_text_that_is_spelled_in_bytes_is_said_too(tmp_path: Path) -> None:
    """No token is unknown then, and the model still has to learn every syllable from three numbers."""
    (tmp_path / "text.txt").write_text("\n".join(ENGLISH * 9), encoding="utf-8")
    train_tokenizer([tmp_path / "text.txt"], tmp_path / "spm.model", 320)
    of, processor = processors(load_xlmr_tokenizer(tmp_path / "spm.model"))["vlm"]
    warning = unknown_text(of, processor, examples(KOREAN))
    assert warning is not None
    assert warning.key == "models.text-in-bytes"
    assert warning.fields["share"] > 0.6
    assert unknown_text(of, processor, examples(ENGLISH)) is None


def test_a_sample_is_small_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_count, "_SAMPLE", 4)
    rows = examples(list("abcdefghij"))
    assert [row.id for row in sample_examples(rows)] == ["0", "2", "5", "7"]
    assert [row.id for row in sample_examples(rows[:3])] == ["0", "1", "2"]
    assert sample_examples([]) == []
    assert describe_unknown_text(TokenCount()) is None


@pytest.mark.parametrize("name", ["questions", "captions", "fusion", "vlm"])
def test_texts_that_are_cut_are_said(name: str, english: Path) -> None:
    """Of a sample above 1 %, of questions to be answered always; a vision language model cuts nothing."""
    of, processor = processors(load_xlmr_tokenizer(english))[name]
    max_text = processor.config.max_text
    letters = max_text - 2  # `<s>` and `</s>` count
    fits, cut = (" ".join("x" * count) for count in (letters // 2, letters))
    assert (
        len(load_xlmr_tokenizer(english).encode(fits))
        <= letters
        < len(load_xlmr_tokenizer(english).encode(cut))
    )
    said = [
        w for w in text_warnings.text_warnings(of, processor, examples([cut] * 3 + [fits] * 97)) if "cut" in w
    ]
    words = f"warning: 3 of 100 sampled training texts are longer than model.max_text={max_text} tokens and are cut"
    assert said == ([] if name == "vlm" else [words])
    assert not [
        w for w in text_warnings.text_warnings(of, processor, examples([cut] + [fits] * 99)) if "cut" in w
    ]
    answered = text_warnings.cut_questions_warning(of, processor, examples([cut] + [fits] * 999))
    assert (answered is None) == (name == "vlm")
    assert answered is None or "1 of 1,000 questions are longer" in answered
    assert text_warnings.cut_questions_warning(of, processor, examples([fits])) is None
