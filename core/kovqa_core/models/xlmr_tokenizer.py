"""SentencePiece pieces -> ids in XLM-R layout, and back.

| id | meaning |
|---|---|
| 0, 1, 2, 3 | `<s>`, `<pad>`, `</s>`, `<unk>` |
| k >= 4 | piece k - 1 (pieces 0, 1, 2 are unk, bos, eos) |
| pieces + 1 | `<mask>` |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import ModelError
from kovqa_core.files import read_bytes
from kovqa_core.tokenizer import sentencepiece_model

if TYPE_CHECKING:
    from torch import Tensor

BOS_ID, PAD_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
_SPECIAL_TOKENS = {"<s>": BOS_ID, "<pad>": PAD_ID, "</s>": EOS_ID, "<unk>": UNK_ID}
_SPECIAL_PATTERN = re.compile(r"(<s>|<pad>|</s>|<unk>|\s*<mask>)")  # the mask swallows blanks to its left


class XlmrTokenizer:
    """A SentencePiece model read with XLM-R's rules.

    Args:
        model: the bytes of a SentencePiece model.
        name: what to call it in errors.
        special: `<mask>` and its like in a text are special tokens, as in BEiT-3; else text is text.

    Raises:
        ModelError: not a SentencePiece model, or one whose special pieces lie elsewhere.
    """

    def __init__(self, model: bytes, name: str = "tokenizer", special: bool = True) -> None:
        self.model, self.special = model, special
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._pieces = sentencepiece_model.load_xlmr_processor(model, name)
        self.mask = self._pieces.get_piece_size() + 1

    @property
    def size(self) -> int:
        """Number of ids, `<mask>` included."""
        return self.mask + 1

    @property
    def vocabulary(self) -> list[str]:
        """The piece of every id."""
        pieces = [self._pieces.id_to_piece(i) for i in range(UNK_ID, self.mask - 1)]
        return [*_SPECIAL_TOKENS, *pieces, "<mask>"]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `<s>` and `</s>`."""
        ids: list[int] = []
        for part in _SPECIAL_PATTERN.split(text) if self.special else [text]:
            if self.special and part in _SPECIAL_TOKENS:
                ids.append(_SPECIAL_TOKENS[part])
            elif self.special and part.endswith("<mask>"):
                ids.append(self.mask)
            elif part:
                ids += [UNK_ID if piece == 0 else piece + 1 for piece in self._pieces.encode(part)]
        return ids

    def frame(self, text: str, longest: int) -> list[int]:
        """`<s>`, at most `longest` - 2 ids of the text, `</s>`."""
        return [BOS_ID, *self.encode(text)[: longest - 2], EOS_ID]

    def pieces(self, text: str) -> list[str]:
        """The text as SentencePiece cuts it, special tokens whole."""
        found: list[str] = []
        for part in _SPECIAL_PATTERN.split(text):
            if part in _SPECIAL_TOKENS or part.endswith("<mask>"):
                found.append(part.strip())
            elif part:
                found += self._pieces.encode(part, out_type=str)
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out."""
        text = self._pieces.decode([i - 1 for i in ids if UNK_ID < i < self.mask]).strip()
        for mark in ".?!,":
            text = text.replace(f" {mark}", mark)
        return text


def pad_token_ids(texts: Sequence[list[int]], pad: int = PAD_ID) -> tuple[Tensor, Tensor | None]:
    """Ids of many texts, [B, T], as long as the longest; where they are padding, None when nowhere."""
    import torch  # here: `kovqa tokenizer encode` has no need of it

    longest = max(map(len, texts))
    tokens = torch.full((len(texts), longest), pad)
    for row, ids in enumerate(texts):
        tokens[row, : len(ids)] = torch.tensor(ids)
    padding = torch.arange(longest) >= torch.tensor([len(ids) for ids in texts])[:, None]
    return tokens, padding if bool(padding.any()) else None


def require_same_tokenizer(sha256: str, known: str | None, name: str) -> None:
    """See that a tokenizer is the one a model was trained with; None: it knows of none.

    Raises:
        ModelError: it is another: ids would mean other pieces, and nothing else would tell.
    """
    if known not in (None, sha256):
        raise ModelError(
            f"{name} is not the tokenizer this model was trained with (its SHA-256 is another)",
            "put back the file that was saved with it",
        )


def load_xlmr_tokenizer(path: Path, special: bool = True) -> XlmrTokenizer:
    """Read a SentencePiece model file."""
    return XlmrTokenizer(read_bytes(path), str(path), special)
