"""A `tokenizer.json`, looked at before the tokenizers' library reads it: at some damage that ends the whole process."""

from __future__ import annotations

import os
from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.closed_folder import error_reason, read_model_json


def require_tokenizer_json(file: Path) -> None:
    """See that the tokenizers' library survives a tokenizer's file; one that is not there is none of its folder's files.

    Raises:
        ModelError: it would not; names the file, and the key where it is known.
        DataError: no JSON.
    """
    if not os.path.lexists(file):
        return
    values = read_model_json(file)
    model = values.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("type", ""), str):
        raise _damaged(file, message("models.tokenizer-model", "model: not an object with a type"))
    _require_whole_merges(file, model)


def require_readable_tokenizer(file: Path) -> None:
    """See that the tokenizers' library reads a tokenizer's file; as `require_tokenizer_json`, which comes first."""
    require_tokenizer_json(file)
    if not os.path.lexists(file):
        return
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise _damaged(file, error_reason(error)) from None


def _require_whole_merges(file: Path, model: dict[str, object]) -> None:
    """A merge has two parts, the second with the prefix: the library raises nothing that can be caught where it lacks."""
    prefix, merges = model.get("continuing_subword_prefix"), model.get("merges")
    if not isinstance(prefix, str) or not prefix or not isinstance(merges, list):
        return
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not str(parts[1]).startswith(prefix):
            raise _damaged(
                file,
                message(
                    "models.tokenizer-prefix",
                    "model.continuing_subword_prefix: {prefix!r} does not begin the second part of the merge {merge}",
                    prefix=prefix,
                    merge=merge,
                ),
            )


def _damaged(file: Path, reason: Message | str) -> ModelError:
    return ModelError(
        message(
            "models.damaged-tokenizer",
            "{file} is damaged, or not a tokenizer.json ({reason})",
            file=file,
            reason=reason,
        ),
        message("models.damaged-tokenizer.hint", "fetch it again"),
    )
