"""Predictions and the rows they answer, joined by image and id where the ids alone do not meet.

An id that repeats is qualified by its image (`data/row_ids.py`), in an index and in a predictions file alike. But
another program names the same image otherwise (`1` for `동물/1.jpg`), and an id that repeats in the one need not
repeat in the other, which may have fewer rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from kovqa_core.data.answers import tidy_answer
from kovqa_core.data.row_ids import ID_MARK, unqualified_id
from kovqa_core.files import to_nfc


def join_by_image(
    ids: Iterable[str], image_of: Mapping[str, str], rows: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Id of a prediction -> id of the row with its image and its own id; those with no such row, or several, are missing.

    Args:
        ids: of predictions.
        image_of: the image of a prediction by its id, where its file says so.
        rows: id and image of the rows that are answered.
    """
    row_ids: dict[tuple[str, str], list[str]] = {}
    for id, image in rows:
        own_id = unqualified_id(id, image)
        for name in {to_nfc(image), _bare_name(image)}:
            row_ids.setdefault((name, own_id), []).append(id)
    joined: dict[str, str] = {}
    for id in ids:
        # The whole path before the bare name, which images in several folders may share.
        found = (row_ids.get(pair, []) for pair in _possible_pairs(id, image_of.get(id, "")))
        if len(same := next(filter(None, found), [])) == 1:
            joined[id] = same[0]
    # Two predictions for one row: nobody knows which of them is meant.
    times = Counter(joined.values())
    return {id: row_id for id, row_id in joined.items() if times[row_id] == 1}


def join_by_text(questions: Mapping[str, str], row_questions: Mapping[str, str]) -> dict[str, str | None]:
    """Numbered id of a prediction -> id of the row that asks the same, None: there is no such row.

    Several questions with one id under one image are numbered in the order of their file (`1.jpg#7#2`), and another
    file may have another order.

    Args:
        questions: of predictions, by their numbered ids.
        row_questions: of the rows that are answered, by theirs.
    """
    id_of = {(without_number(id), tidy_answer(text)): id for id, text in row_questions.items()}
    return {id: id_of.get((without_number(id), tidy_answer(text))) for id, text in questions.items()}


def is_numbered(id: str) -> bool:
    """May a number at the end of an id tell questions about one image apart?"""
    return id.count(ID_MARK) > 1 and id.rpartition(ID_MARK)[2].isdecimal()


def without_number(id: str) -> str:
    """The image and the own id of a numbered id."""
    return id.rpartition(ID_MARK)[0]


def _possible_pairs(id: str, image: str) -> Iterator[tuple[str, str]]:
    """Image and own id that a prediction's id may stand for, the likeliest first."""
    if image:
        own_id = unqualified_id(id, image)
        pairs = [(image, own_id)]
    else:
        # Where the image ends is not known: its name may have the mark too.
        marks = [place for place, letter in enumerate(id) if letter == ID_MARK]
        pairs = [(id[:place], id[place + 1 :]) for place in marks]
    yield from ((to_nfc(name), own_id) for name, own_id in pairs)
    yield from ((_bare_name(name), own_id) for name, own_id in pairs)


def _bare_name(image: str) -> str:
    """An image's name without folder and suffix."""
    name = to_nfc(image).replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    # `a.b` is a name: only a short suffix of letters and digits is one.
    return stem if dot and stem and len(suffix) <= 4 and suffix.isalnum() else name
