"""A SentencePiece model file: read, and seen to follow the id rule of XLM-R (docs/sources/beit3.md, B16).

That rule moves every piece up by one to make room for `<pad>` (`models/text.py`), which only works
where pieces 0, 1, 2 are unk, bos, eos and none is pad: with the common pad 0, unk 1, bos 2, eos 3 an
unknown character would become `</s>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import DataError, ModelError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

MAX_VOCAB_SIZE = 64_008  # that the 64,010 rows of BEiT-3's published text table have room for


def load_spm_processor(model: bytes, name: str) -> SentencePieceProcessor:
    """What encodes with a model, whatever its special pieces.

    Args:
        model: the bytes of a SentencePiece model.
        name: what to call it in errors.

    Raises:
        ModelError: not a SentencePiece model.
    """
    import sentencepiece

    try:
        if model:  # of none it makes a model without pieces
            return sentencepiece.SentencePieceProcessor(model_proto=model)
    except Exception:
        pass
    raise ModelError(f"{name} is no SentencePiece model", "train one: kovqa tokenizer train")


def id_rule_violation(pieces: SentencePieceProcessor) -> str:
    """What the id rule of XLM-R misses in a model; empty where it holds."""
    unk, bos, eos, pad = pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()
    if (unk, bos, eos) == (0, 1, 2) and pad < 0:
        return ""
    return f"pieces 0, 1, 2 must be unk, bos, eos and none may be pad, found unk {unk}, bos {bos}, eos {eos}, pad {pad}"


def load_xlmr_processor(model: bytes, name: str) -> SentencePieceProcessor:
    """What encodes with a model that follows the id rule.

    Raises:
        ModelError: not a SentencePiece model, or one whose special pieces lie elsewhere.
    """
    pieces = load_spm_processor(model, name)
    if broken := id_rule_violation(pieces):
        raise ModelError(f"{name}: {broken}", "train the tokenizer with kovqa tokenizer train")
    return pieces


def parse_model_proto(model: bytes) -> ModelProto:
    """The whole content of a model, to look at or to change."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    return ModelProto.FromString(model)


def is_sentencepiece_model(path: Path) -> bool:
    """Is a file a SentencePiece model? One begins with the mark of its first piece; a dump is not read through.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(1) != b"\n":
                return False
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from None
    try:
        load_spm_processor(path.read_bytes(), str(path))
    except ModelError:
        return False
    return True
