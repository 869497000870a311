"""SentencePiece tokens <-> ids in XLM-R's layout.

| id | token |
|---|---|
| 0, 1, 2, 3 | `<s>`, `<pad>`, `</s>`, `<unk>` |
| k >= 4 | SentencePiece's k - 1 (its 0, 1, 2 are unk, bos, eos) |
| its size + 1 | `<mask>` |

fairseq shifted SentencePiece's ids by one to put its own special tokens in front; weights trained that way
keep that layout (docs/sources/beit3.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import ModelError
from kovqa_core.files import read_bytes
from kovqa_core.messages import message
from kovqa_core.models.byte_tokens import count_torn_bytes, fallback_byte
from kovqa_core.models.token_count import TokenCount, count_tokens
from kovqa_core.tokenizer import sentencepiece_model

if TYPE_CHECKING:
    from torch import Tensor

BOS_ID, PAD_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
_SPECIAL_TOKENS = {"<s>": BOS_ID, "<pad>": PAD_ID, "</s>": EOS_ID, "<unk>": UNK_ID}
_SPECIAL_PATTERN = re.compile(r"(<s>|<pad>|</s>|<unk>|\s*<mask>)")  # `<mask>` swallows the blanks before it


class XlmrTokenizer:
    """A SentencePiece model read with XLM-R's rules.

    Args:
        model_bytes: a SentencePiece model.
        name: what to call it in errors.
        with_specials: `<mask>` and the like in a text are special tokens, as in BEiT-3; else text is text.

    Raises:
        ModelError: not a SentencePiece model, or one whose special tokens lie elsewhere.
    """

    def __init__(self, model_bytes: bytes, name: str = "tokenizer", *, with_specials: bool = True) -> None:
        self.model_bytes, self.with_specials = model_bytes, with_specials
        self.sha256 = hashlib.sha256(model_bytes).hexdigest()
        self._sentencepiece = sentencepiece_model.load_xlmr_processor(model_bytes, name)
        # SentencePiece ids move up by one, so the last is its size; `<mask>` comes after all of them.
        self.mask_id = self._sentencepiece.get_piece_size() + 1

    @property
    def vocab_size(self) -> int:
        """Number of ids, `<mask>` included."""
        return self.mask_id + 1

    @property
    def vocab(self) -> list[str]:
        """The token of every id."""
        tokens = [self._sentencepiece.id_to_piece(i) for i in range(UNK_ID, self.mask_id - 1)]
        return [*_SPECIAL_TOKENS, *tokens, "<mask>"]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `<s>` and `</s>` around it."""
        ids: list[int] = []
        for chunk in _SPECIAL_PATTERN.split(text) if self.with_specials else [text]:
            if self.with_specials and chunk in _SPECIAL_TOKENS:
                ids.append(_SPECIAL_TOKENS[chunk])
            elif self.with_specials and chunk.endswith("<mask>"):
                ids.append(self.mask_id)
            elif chunk:
                # SentencePiece's unk is 0, XLM-R's is 3; all others move up by one.
                ids += [UNK_ID if token == 0 else token + 1 for token in self._sentencepiece.encode(chunk)]
        return ids

    def count_tokens(self, texts: Iterable[str], max_length: int | None = None) -> TokenCount:
        """What this tokenizer makes of texts, of which `encode_with_specials` may keep so many tokens."""
        return count_tokens(
            texts,
            self.encode,
            unknown_id=UNK_ID,
            is_byte=lambda id: UNK_ID < id < self.mask_id and self._sentencepiece.is_byte(id - 1),
            max_length=max_length,
            specials=2,
        )

    def encode_with_specials(self, text: str, max_length: int) -> list[int]:
        """`<s>`, at most `max_length` - 2 ids of the text, `</s>`."""
        return [BOS_ID, *self.encode(text)[: max_length - 2], EOS_ID]

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, special tokens whole."""
        tokens: list[str] = []
        for chunk in _SPECIAL_PATTERN.split(text):
            if chunk in _SPECIAL_TOKENS or chunk.endswith("<mask>"):
                tokens.append(chunk.strip())
            elif chunk:
                tokens += self._sentencepiece.encode(chunk, out_type=str)
        return tokens

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out, and so are bytes at the end that are half a character."""
        # Special tokens begin and end the ids of this layout; what lies between is SentencePiece's, moved up by one.
        spm_ids = [i - 1 for i in ids if UNK_ID < i < self.mask_id]
        # A caption of full length may end within a syllable that is written byte by byte.
        ending = b""
        for spm_id in reversed(spm_ids):
            byte = fallback_byte(self._sentencepiece.id_to_piece(spm_id))
            if byte is None:
                break
            ending = bytes([byte]) + ending
        whole_ids = spm_ids[: len(spm_ids) - count_torn_bytes(ending)]
        text: str = self._sentencepiece.decode(whole_ids).strip()
        for mark in ".?!,":
            text = text.replace(f" {mark}", mark)
        return text


def pad_token_ids(texts: Sequence[list[int]], pad: int = PAD_ID) -> tuple[Tensor, Tensor | None]:
    """Ids of B texts, [B, T], T that of the longest; and where they are padding, [B, T], None when nowhere.

    None matters: attention without a mask runs on faster kernels.
    """
    import torch  # here: `kovqa tokenizer encode` does without

    longest = max(map(len, texts))
    tokens = torch.full((len(texts), longest), pad)
    for row, ids in enumerate(texts):
        tokens[row, : len(ids)] = torch.tensor(ids)
    padding = torch.arange(longest) >= torch.tensor([len(ids) for ids in texts])[:, None]
    return tokens, padding if bool(padding.any()) else None


def require_same_tokenizer(sha256: str, expected: str | None, name: str) -> None:
    """See that a tokenizer is the one a model was trained with.

    Args:
        sha256: of the tokenizer's file.
        expected: what the model remembers; None: nothing.
        name: what to call the tokenizer in errors.

    Raises:
        ModelError: another one: its ids mean other tokens, and nothing else would notice.
    """
    if expected not in (None, sha256):
        raise ModelError(
            message(
                "models.other-tokenizer",
                "{name} is not the tokenizer this model was trained with (its SHA-256 is another)",
                name=name,
            ),
            message("models.other-tokenizer.hint", "put back the file that was saved with the model"),
        )


def load_xlmr_tokenizer(path: Path, *, with_specials: bool = True) -> XlmrTokenizer:
    """Read a SentencePiece model file; arguments and errors as of `XlmrTokenizer`."""
    return XlmrTokenizer(read_bytes(path), str(path), with_specials=with_specials)
