"""Tokens become text by whole characters, whatever the tokenizer writes byte by byte."""

from __future__ import annotations

import io
from typing import Any

import pytest
import sentencepiece
import torch
from kovqa_core.models.vlm import generation
from kovqa_core.models.vlm.decode_tokens import decode_token_ids
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer
from tokenizers import Tokenizer, decoders, models, normalizers

from tests.models.vlm.tiny_vlm import make_tokenizer

HEDGEHOG = "고슴도치입"  # a word that a tokenizer of few Korean tokens writes in bytes: three a syllable
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
CORPUS = ("무슨 색인가요? 빨간색 hello world 하나 둘",) * 20


def byte_fallback_tokenizer() -> Any:
    """As Llama's: texts with `▁` for blanks, and a token for every byte."""
    pieces = ["<unk>", "</s>", *BYTE_TOKENS, "▁", "색", "a", "b", "▁a"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"
    )


def byte_level_tokenizer() -> Any:
    """As Qwen's: every token is some bytes."""
    return make_tokenizer(CORPUS, ["<pad>", "</s>"], "</s>")


def xlmr_tokenizer() -> XlmrTokenizer:
    """As `kovqa tokenizer train` makes them: SentencePiece with byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=330, byte_fallback=True, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return XlmrTokenizer(model.getvalue())


@pytest.fixture(scope="module", params=[byte_fallback_tokenizer, byte_level_tokenizer])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.param()


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("text", [HEDGEHOG, "색 고양이", "a똠b방각하", "🦔🦔"])
def test_an_answer_cut_anywhere_keeps_its_whole_characters(tokenizer: Any, text: str) -> None:
    ids = encode(tokenizer, text)
    previous = ""
    for length in range(len(ids) + 1):
        decoded = decode_token_ids(tokenizer, ids[:length])
        assert text.startswith(decoded) and "\ufffd" not in decoded
        assert len(decoded) >= len(previous), "a token more never takes a character away"
        previous = decoded
    assert previous == text


def test_the_default_budget_ends_a_word_within_a_syllable() -> None:
    """The case of the report: ten syllables and a budget of 16 tokens."""
    tokenizer = byte_fallback_tokenizer()
    ids = encode(tokenizer, HEDGEHOG * 2)
    assert tokenizer.decode(ids[:16]) == "\ufffd" * 16, "else the library has been mended"
    assert decode_token_ids(tokenizer, ids[:16]) == HEDGEHOG
    assert decode_token_ids(tokenizer, ids[:14]) == HEDGEHOG[:4]


def test_a_replacement_character_that_was_written_stays(tokenizer: Any) -> None:
    for text in ("a\ufffdb", "고\ufffd", "\ufffd", f"\ufffd{HEDGEHOG}\ufffd"):
        assert decode_token_ids(tokenizer, encode(tokenizer, text)) == text
    torn = [*encode(tokenizer, "\ufffd"), *encode(tokenizer, "똠")[:-1]]
    assert decode_token_ids(tokenizer, torn) == "\ufffd"


def test_a_torn_syllable_in_the_middle_is_shown_and_leaves_its_neighbours(tokenizer: Any) -> None:
    ids = [
        *encode(tokenizer, "똠방"),
        *encode(tokenizer, "똠")[:-1],
        *encode(tokenizer, "a"),
        *encode(tokenizer, "똠"),
    ]
    assert decode_token_ids(tokenizer, ids) == "똠방\ufffda똠"


def test_ids_beyond_the_tokenizer_are_no_text(tokenizer: Any) -> None:
    """The table of a model may have more rows than its tokenizer has tokens."""
    ids = encode(tokenizer, HEDGEHOG)
    assert decode_token_ids(tokenizer, [*ids, len(tokenizer) + 7]) == HEDGEHOG


def test_a_text_that_looks_like_a_byte_token_is_text() -> None:
    """One `<0xEA>` in a vocabulary makes no byte fallback."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["<0xEA>"])
    assert decode_token_ids(tokenizer, encode(tokenizer, "a<0xEA>")) == "a<0xEA>"


def test_a_caption_cut_anywhere_keeps_its_whole_characters() -> None:
    tokenizer = xlmr_tokenizer()
    for text in (HEDGEHOG, "빨간색 고슴도치", "둘 🦔"):
        ids = tokenizer.encode(text)
        decoded = [tokenizer.decode(ids[:length]) for length in range(len(ids) + 1)]
        assert all(text.startswith(each) and "\ufffd" not in each for each in decoded)
        assert decoded[-1] == text
        assert tokenizer.decode([0, *ids[:-1], 2]) == decoded[-2]
    torn = tokenizer.encode("똠")[:-1]
    assert tokenizer.decode([*torn, *tokenizer.encode("색")]).startswith("\ufffd")


class ScriptedNet(torch.nn.Module):
    """A network that writes the same tokens after every prompt, as far as its budget goes."""

    def __init__(self, new_ids: list[int]) -> None:
        super().__init__()
        self.new_ids = new_ids

    def generate(
        self, input_ids: torch.Tensor, generation_config: Any, logits_processor: Any, **_: Any
    ) -> torch.Tensor:
        for token in self.new_ids[: generation_config.max_new_tokens]:
            scores = torch.full((len(input_ids), 1000), -20.0)
            scores[:, token] = 0
            for each in logits_processor:
                scores = each(input_ids, scores)
            input_ids = torch.cat([input_ids, scores.argmax(1, keepdim=True).to(input_ids)], 1)
        return input_ids


@pytest.mark.parametrize("rows", [1, 3])
def test_every_way_to_write_an_answer_keeps_whole_syllables_and_letters(tokenizer: Any, rows: int) -> None:
    ids = encode(tokenizer, f" OPEN  24H {HEDGEHOG}")
    net: Any = ScriptedNet(ids[:-1])
    generator = generation.TextGenerator(net, tokenizer, [tokenizer.eos_token_id], [], 64)
    prompts = {"input_ids": torch.zeros(rows, 2, dtype=torch.long)}
    greedy = generation.answer_greedily(generator, prompts)
    names = [str(n) for n in range(rows)]
    sampled = generation.answer_by_sampling(generator, prompts, names, seed=1, temperature=0.1)
    assert {answer.text for answer in (*greedy, *sampled)} == {f"OPEN 24H {HEDGEHOG[:-1]}"}


def test_an_end_that_is_no_special_token_is_no_part_of_an_answer() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["<end>"])
    end = tokenizer.convert_tokens_to_ids("<end>")
    net: Any = ScriptedNet([*encode(tokenizer, "색"), end, *encode(tokenizer, "둘")])
    generator = generation.TextGenerator(net, tokenizer, [end], [], 64)
    answer, *_ = generation.answer_greedily(generator, {"input_ids": torch.zeros(1, 2, dtype=torch.long)})
    assert answer.text == "색"
