"""How a model that writes freely is to answer: greedily, drawn, from a list, or by the letter of a choice."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import read_text, to_nfc

CHOICE_LETTERS = string.ascii_uppercase
CHOICE_COLUMNS = ("choices", "options")  # of a table: what a row's answer is one of


@dataclass(frozen=True)
class DecodingOptions:
    """How answers are found; at most one way differs from greedy.

    Attributes:
        answers: the only answers there are, the likeliest is given; empty: any text.
        choices: every question brings its own answers, chosen by the likelihood of their letters.
        temperature: tokens are drawn, below 1 sharper, above 1 flatter; 0: the likeliest.
        seed: of the draws, which depend on it and the question's id alone.
    """

    answers: tuple[str, ...] = ()
    choices: bool = False
    temperature: float = 0.0
    seed: int = 0

    def stamp(self) -> dict[str, Any]:
        """What another prediction must have in common to be mixed with this one."""
        listed = hashlib.sha256("\n".join(self.answers).encode()).hexdigest() if self.answers else None
        return {
            "answers": listed,
            "choices": self.choices,
            "temperature": self.temperature,
            "seed": self.seed,
        }


GREEDY_DECODING = DecodingOptions()


def decoding_from_options(
    answers: Path | None, choices: bool, temperature: float | None, seed: int | None
) -> DecodingOptions:
    """What the options of a command ask for.

    Args:
        answers: see `read_list`.
        choices, temperature, seed: see `Decoding`; None: not given.

    Raises:
        SettingsError: two ways at once, or a seed and nothing is drawn.
        DataError: the list cannot be read.
    """
    given = {"--answers": answers, "--choices": choices, "--temperature": temperature}
    ways = [name for name, value in given.items() if value]
    if len(ways) > 1:
        raise SettingsError(f"{' and '.join(ways)} are two ways to answer", "give one of them")
    if seed is not None and not temperature:
        raise SettingsError("--seed is the seed of drawn answers", "give --temperature, too: 0.7")
    listed = () if answers is None else read_answer_list(answers)
    return DecodingOptions(listed, choices, temperature or 0.0, seed or 0)


def read_answer_list(path: Path) -> tuple[str, ...]:
    """The answers of a list: one a line, blank lines and repetitions aside; or an index's.

    Args:
        path: a text file, an `answers.txt`, or the folder of an index.

    Raises:
        DataError: it cannot be read, or lists nothing.
    """
    file = path / "answers.txt" if path.is_dir() else path
    text = read_text(file)
    lines = read_answers(file) if text.startswith("{") else text.splitlines()
    found = tuple(dict.fromkeys(answer for line in lines if (answer := to_nfc(line).strip())))
    if not found:
        raise DataError(f"{file} lists no answers", "write one a line")
    return found


def parse_choices(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The answers a row of a table offers: a JSON list, or a text with | between them.

    Raises:
        DataError: none, one, one twice or more than there are letters; `where` names the row.
    """
    value = next((record[name] for name in CHOICE_COLUMNS if record.get(name) not in (None, "")), None)
    if isinstance(value, str):
        value = _try_parse_json(value)
    if not isinstance(value, list):
        raise DataError(f"{where}: no choices", 'column choices: ["빨강", "파랑"] or 빨강|파랑')
    found = tuple(to_nfc(str(choice)).strip() for choice in value)
    if not 2 <= len(found) <= len(CHOICE_LETTERS) or len(set(found)) < len(found) or "" in found:
        raise DataError(
            f"{where}: {len(found)} choices: {', '.join(found) or 'none'}",
            f"two to {len(CHOICE_LETTERS)} different ones",
        )
    return found


def _try_parse_json(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    return value if isinstance(value, list) else text.split("|")
