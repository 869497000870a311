"""Tokenizers of question encoders: SentencePiece by XLM-R's rule, or a Hugging Face `tokenizer.json`.

User text is text: a literal `</s>` in a question never becomes the special token (docs/sources/vqa_nia.md, N25).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from kovqa_core.errors import ModelError
from kovqa_core.files import read_bytes
from kovqa_core.models.fusion.config import SENTENCEPIECE_FILES
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer, require_same_tokenizer


class QuestionTokenizer(Protocol):
    """What a question encoder needs of a tokenizer.

    Attributes:
        model: its file's bytes; the file itself may be gone when they are saved.
        sha256: of those.
    """

    model: bytes
    sha256: str

    @property
    def size(self) -> int:
        """Number of ids."""

    def frame(self, text: str, longest: int) -> list[int]:
        """Ids of a text with those that begin and end it, at most `longest`."""


class FastTokenizer:
    """A `tokenizer.json`, with the framing it states itself.

    Raises:
        ModelError: not such a file.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self.model = read_bytes(path)
        self.sha256 = hashlib.sha256(self.model).hexdigest()
        try:
            self._tokenizer = Tokenizer.from_str(self.model.decode())
        except Exception as error:  # the library raises nothing more special
            raise ModelError(f"{path} is no tokenizer.json ({error})", "fetch it again") from None
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()

    @property
    def size(self) -> int:
        """Number of ids."""
        return self._tokenizer.get_vocab_size()

    def frame(self, text: str, longest: int) -> list[int]:
        """Ids of a text with those that begin and end it, at most `longest`."""
        self._tokenizer.enable_truncation(longest)
        return self._tokenizer.encode(text).ids


def open_question_tokenizer(path: Path, sha256: str | None) -> QuestionTokenizer:
    """Read a tokenizer's file.

    Args:
        path: SentencePiece model or tokenizer.json.
        sha256: what it must be; None: anything.

    Raises:
        ModelError: unreadable, or another than the model was trained with.
    """
    found: QuestionTokenizer = (
        FastTokenizer(path) if path.suffix == ".json" else load_xlmr_tokenizer(path, special=False)
    )
    require_same_tokenizer(found.sha256, sha256, str(path))
    return found


def saved_tokenizer_name(text: QuestionTokenizer) -> str:
    """What a tokenizer's file is called in a checkpoint."""
    return "tokenizer.json" if isinstance(text, FastTokenizer) else SENTENCEPIECE_FILES[-1]
