"""Texts become the original's ids, and ids its texts."""

from __future__ import annotations

import functools
import re

from kovqa_core.models.xlmr_tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    UNK_ID,
    XlmrTokenizer,
    load_xlmr_tokenizer,
)

from tests import parity


@functools.cache
def tokenizer() -> XlmrTokenizer:
    return load_xlmr_tokenizer(parity.path("tokenizer.model"))


def test_parity_beit3_tokenizer_special_ids() -> None:
    about = parity.json_of("expected_tokenizer.json")
    assert (about["bos"], about["pad"], about["eos"], about["unk"]) == (BOS_ID, PAD_ID, EOS_ID, UNK_ID)
    assert (about["cls"], about["sep"]) == (BOS_ID, EOS_ID)
    assert about["mask"] == tokenizer().mask_id
    assert about["vocab_size"] == tokenizer().vocab_size


def test_parity_beit3_tokenizer_ids() -> None:
    for case in parity.json_of("expected_tokenizer.json")["cases"]:
        assert tokenizer().encode(case["text"]) == case["ids"], case["text"]


def test_parity_beit3_tokenizer_pieces() -> None:
    for case in parity.json_of("expected_tokenizer.json")["cases"]:
        assert tokenizer().tokenize(case["text"]) == case["pieces"], case["text"]


def test_parity_beit3_tokenizer_framed_sequences() -> None:
    """`<s>` text `</s>`, cut to a length; the recorded ones are padded to it, ours by batch."""
    framed = 0
    for case in parity.json_of("expected_tokenizer.json")["cases"]:
        for key, wanted in case.items():
            if not (match := re.fullmatch(r"len(\d+)", key)):
                continue
            longest = int(match[1])
            ids = tokenizer().encode_with_specials(case["text"], longest)
            assert len(ids) == wanted["num_tokens"], case["text"]
            assert ids + [PAD_ID] * (longest - len(ids)) == wanted["ids"], case["text"]
            assert [0] * len(ids) + [1] * (longest - len(ids)) == wanted["padding_mask"], case["text"]
            framed += 1
    assert framed


def test_parity_beit3_tokenizer_decode() -> None:
    for case in parity.json_of("expected_tokenizer_decode.json"):
        assert tokenizer().decode(case["ids"]) == case["text"]
