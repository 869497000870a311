"""A SentencePiece model file: read, and checked against the id rule of XLM-R (docs/sources/beit3.md, B16).

That rule moves every token up by one to make room for `<pad>` (`models/xlmr_tokenizer.py`), which only works
where tokens 0, 1, 2 are unk, bos, eos and none is pad: with the common pad 0, unk 1, bos 2, eos 3 an
unknown character would become `</s>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import ModelError
from kovqa_core.files import open_file, read_bytes
from kovqa_core.messages import message

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

_FIRST_BYTE = b"\n"  # the tag of the first token
MAX_VOCAB_SIZE = 64_008  # that the 64,010 rows of BEiT-3's published text table have room for


def load_spm_processor(model: bytes, name: str) -> SentencePieceProcessor:
    """The processor of a model, whatever its special tokens.

    Args:
        model: the bytes of a SentencePiece model.
        name: what to call it in errors.

    Raises:
        ModelError: not a SentencePiece model.
    """
    import sentencepiece

    try:
        if model:  # of an empty file sentencepiece makes a model without tokens
            return sentencepiece.SentencePieceProcessor(model_proto=model)
    except MemoryError:
        raise
    except Exception:  # its C++ raises whatever protobuf came upon
        pass
    raise _not_a_model(name)


def _not_a_model(name: str) -> ModelError:
    return ModelError(
        message("tokenizer.not-a-model", "{name} is not a SentencePiece model", name=name),
        message("tokenizer.not-a-model.hint", "train one: kovqa tokenizer train"),
    )


def id_rule_violation(processor: SentencePieceProcessor) -> str:
    """What breaks the id rule of XLM-R in a model; empty where it holds."""
    unk, bos, eos, pad = processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()
    if (unk, bos, eos) == (0, 1, 2) and pad < 0:
        return ""
    return message(
        "tokenizer.id-rule",
        "tokens 0, 1, 2 must be unk, bos, eos and none may be pad; here unk is {unk}, bos {bos}, eos {eos}, pad {pad}",
        unk=unk, bos=bos, eos=eos, pad=pad,
    )  # fmt: skip


def load_xlmr_processor(model: bytes, name: str) -> SentencePieceProcessor:
    """The processor of a model that follows the id rule.

    Raises:
        ModelError: not a SentencePiece model, or one whose special tokens lie elsewhere.
    """
    processor = load_spm_processor(model, name)
    if violation := id_rule_violation(processor):
        raise ModelError(
            message("tokenizer.broken-id-rule", "{name}: {violation}", name=name, violation=violation),
            message("tokenizer.broken-id-rule.hint", "train the tokenizer with kovqa tokenizer train"),
        )
    return processor


def parse_model_proto(model: bytes) -> ModelProto:
    """The whole content of a model, to look at or to change."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    return ModelProto.FromString(model)


def require_model_file(path: Path) -> None:
    """See that a file may be a SentencePiece model, before a training asks the library: by its first byte.

    Raises:
        ModelError: it is a folder, or begins otherwise.
        DataError: it cannot be read.
    """
    if path.is_file():
        with open_file(path) as stream:
            if stream.read(1) == _FIRST_BYTE:
                return
    raise _not_a_model(str(path))


def is_sentencepiece_model(path: Path) -> bool:
    """Is a file a SentencePiece model? One begins with the tag of its first token; a dump is not read through.

    Raises:
        DataError: it cannot be read.
    """
    with open_file(path) as stream:
        if stream.read(1) != _FIRST_BYTE:
            return False
    try:
        load_spm_processor(read_bytes(path), str(path))
    except ModelError:
        return False
    return True
