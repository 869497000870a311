"""Questions and annotations of one data set lie in two files: the rows of both that belong together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import cell_text

QuestionKey = tuple[str, str]  # question_id, image_id


def join_by_question(
    rows: Iterator[JsonRecord],
    partners: Iterator[JsonRecord],
    on_unused: Callable[[JsonRecord], object] = lambda partner: None,
) -> Iterator[tuple[JsonRecord, JsonRecord]]:
    """Every row with its partner of the other file; with {} where it has none.

    Both name the question and its image, for some data sets number their questions per image: `question_id` alone
    would give an image the question of another. A partner that names no image is joined by its `question_id`.

    Args:
        rows: of the one file, in its order.
        partners: of the other; mostly in the same order, so that few of them wait in memory for their row.
        on_unused: called with each partner that no row has asked for: with a second one for a question, at once.
    """
    waiting: dict[QuestionKey, JsonRecord] = {}
    for row in rows:
        key = _question_key(row)
        any_image = (key[0], "")
        # Only as far as this row needs: both files pass by once, row beside row.
        while key not in waiting and any_image not in waiting:
            partner = next(partners, None)
            if partner is None:
                break
            if (its_key := _question_key(partner)) in waiting:
                on_unused(partner)
            else:
                waiting[its_key] = partner
        yield row, waiting.pop(key if key in waiting else any_image, {})
    for partner in itertools.chain(waiting.values(), partners):
        on_unused(partner)


def _question_key(record: JsonRecord) -> QuestionKey:
    return cell_text(record["question_id"]), cell_text(record.get("image_id"))
