"""The card beside a tokenizer: what it was made of, by which versions, and the hash of the model it is about."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kovqa_core import __version__
from kovqa_core.errors import DataError
from kovqa_core.files import atomic_file, read_bytes, read_json, write_json
from kovqa_core.messages import message
from kovqa_core.tokenizer.sentencepiece_model import load_xlmr_processor

TrainerSettings = Mapping[str, str | int | float | bool]  # SentencePiece's own names


@dataclass(frozen=True)
class TokenizerCard:
    """What a card says; `None` where it does not apply. JSON has the same keys, without those.

    Attributes:
        pieces: tokens of the model.
        sha256: of the model file.
        versions: of kovqa and sentencepiece.
        date: ISO 8601, UTC.
        sources: of each input its path, bytes, sha256, licence and, of a dump, what it says of itself.
        corpus_sha256, lines, characters: of the cleaned lines.
        left_out: lines that nothing can be learned from, by reason.
        lines_given: to the trainer.
        settings: of the trainer.
        old: of an extended model, the one it was made from: path, sha256, pieces.
        with_: of an extended model, where the new tokens come from (`with` in JSON).
        added: tokens of an extended model that are new.
    """

    pieces: int
    sha256: str
    versions: Mapping[str, str]
    date: str
    sources: Sequence[Mapping[str, Any]] | None = None
    corpus_sha256: str | None = None
    lines: int | None = None
    characters: int | None = None
    left_out: Mapping[str, int] | None = None
    lines_given: int | None = None
    settings: TrainerSettings | None = None
    old: Mapping[str, Any] | None = None
    with_: Mapping[str, Any] | None = None
    added: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The card as it stands in its file."""
        values = {name.rstrip("_"): value for name, value in asdict(self).items() if value is not None}
        return {"schema": 1, **values}


def describe_model(model: bytes, **about: Any) -> TokenizerCard:
    """The card of a model made now.

    Args:
        about: the fields that say what it was made of.
    """
    return TokenizerCard(
        pieces=load_xlmr_processor(model, "the model").get_piece_size(),
        sha256=hashlib.sha256(model).hexdigest(),
        versions={"kovqa": __version__, "sentencepiece": importlib.metadata.version("sentencepiece")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
    )


def card_path(model: Path) -> Path:
    """Where a model's card lies."""
    return model.with_name(model.name + ".json")


def read_card(model: Path) -> Mapping[str, Any] | None:
    """What stands in a model's card, as JSON; None where there is none. It may be another model's."""
    path = card_path(model)
    card = read_json(path) if path.is_file() else None
    if card is not None and not isinstance(card, dict):
        raise DataError(
            message("tokenizer.damaged-card", "{path}: not a JSON object", path=path),
            message("tokenizer.damaged-card.hint", "remove it: the model is read without its card"),
        )
    return card


def read_card_of(model: Path) -> Mapping[str, Any] | None:
    """The card that is about the very bytes of a model; None where there is none."""
    sha256 = hashlib.sha256(read_bytes(model)).hexdigest()
    for path in (card_path(model), _next_card_path(model)):
        card = read_json(path) if path.is_file() else None
        if isinstance(card, dict) and card.get("sha256") == sha256:
            return card
    return None


def _next_card_path(model: Path) -> Path:
    """Where the card waits while its model is written."""
    return model.with_name(f".{card_path(model).name}.next")


def write_sentencepiece_model(output: Path, model: bytes, card: TokenizerCard) -> None:
    """Write a model and its card, each whole; killed between the two, the model is still known as ours."""
    next_card = _next_card_path(output)
    write_json(next_card, card.to_json())
    try:
        with atomic_file(output) as stream:
            stream.write(model)
        next_card.replace(card_path(output))
    except BaseException:  # Ctrl-C too
        next_card.unlink(missing_ok=True)
        raise
