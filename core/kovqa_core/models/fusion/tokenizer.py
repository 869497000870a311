"""Tokenizers of question encoders: SentencePiece by XLM-R's rule, a Hugging Face `tokenizer.json`, or BERT's words.

User text is text: a literal `</s>` in a question never becomes the special token (docs/sources/vqa_nia.md, N25).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import ModelError
from kovqa_core.files import read_bytes
from kovqa_core.messages import message
from kovqa_core.models.byte_tokens import fallback_byte
from kovqa_core.models.fusion.config import SENTENCEPIECE_FILES
from kovqa_core.models.fusion.wordpiece import build_wordpiece_json
from kovqa_core.models.token_count import TokenCount, count_tokens
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer, require_same_tokenizer


class QuestionTokenizer(Protocol):
    """What a question encoder needs of a tokenizer.

    Attributes:
        model_bytes: its file; the file itself may be gone by the time a checkpoint is saved.
        sha256: of those bytes.
    """

    model_bytes: bytes
    sha256: str

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def encode_with_specials(self, text: str, max_length: int) -> list[int]:
        """Ids of a text with those that begin and end it, at most `max_length`."""

    def count_tokens(self, texts: Iterable[str], max_length: int | None = None) -> TokenCount:
        """What this tokenizer makes of texts, of which `encode_with_specials` may keep so many tokens."""


class FastTokenizer:
    """A `tokenizer.json`, with the special tokens it states itself.

    Args:
        model_bytes: the file's content.
        name: what to call it in errors.

    Raises:
        ModelError: not such a file.
    """

    def __init__(self, model_bytes: bytes, name: str) -> None:
        from tokenizers import Tokenizer

        self.model_bytes = model_bytes
        self.sha256 = hashlib.sha256(self.model_bytes).hexdigest()
        try:
            self._tokenizer = Tokenizer.from_str(self.model_bytes.decode())
        except Exception as error:  # the library raises nothing more special
            raise ModelError(
                message(
                    "fusion.not-a-tokenizer",
                    "{path} is not a tokenizer.json ({error})",
                    path=name,
                    error=error,
                ),
                message("fusion.not-a-tokenizer.hint", "fetch it again"),
            ) from None
        # A question that holds `<s>` is text: its special tokens are encoded like any other characters.
        self._tokenizer.encode_special_tokens = True
        # The file may have been saved with padding switched on; batches are padded here.
        self._tokenizer.no_padding()

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._tokenizer.get_vocab_size()

    def encode_with_specials(self, text: str, max_length: int) -> list[int]:
        """Ids of a text with those that begin and end it, at most `max_length`."""
        self._tokenizer.enable_truncation(max_length)
        return self._tokenizer.encode(text).ids

    def count_tokens(self, texts: Iterable[str], max_length: int | None = None) -> TokenCount:
        """What this tokenizer makes of texts, of which `encode_with_specials` may keep so many tokens."""
        self._tokenizer.no_truncation()
        # WordPiece and BPE name the token that stands for what they do not know, Unigram its id.
        model = parse_json(self.model_bytes)["model"]
        unknown_id = model.get("unk_id")
        if model.get("unk_token") is not None:
            unknown_id = self._tokenizer.token_to_id(model["unk_token"])
        return count_tokens(
            texts,
            lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids,
            unknown_id=unknown_id,
            is_byte=lambda id: fallback_byte(self._tokenizer.id_to_token(id) or "") is not None,
            max_length=max_length,
            specials=self._tokenizer.num_special_tokens_to_add(False),
        )


def open_question_tokenizer(path: Path, sha256: str | None) -> QuestionTokenizer:
    """Read a tokenizer's file.

    Args:
        path: SentencePiece model, tokenizer.json, or the vocab.txt of a BERT.
        sha256: of the file the model was trained with; None: any will do.

    Raises:
        ModelError: unreadable, or another than the model was trained with.
    """
    tokenizer: QuestionTokenizer
    if path.suffix == ".json":
        tokenizer = FastTokenizer(read_bytes(path), str(path))
    elif path.suffix == ".txt":
        tokenizer = FastTokenizer(build_wordpiece_json(path).encode(), str(path))
    else:
        tokenizer = load_xlmr_tokenizer(path, with_specials=False)
    require_same_tokenizer(tokenizer.sha256, sha256, str(path))
    return tokenizer


def saved_tokenizer_name(tokenizer: QuestionTokenizer) -> str:
    """What a tokenizer's file is called in a checkpoint."""
    return "tokenizer.json" if isinstance(tokenizer, FastTokenizer) else SENTENCEPIECE_FILES[-1]
