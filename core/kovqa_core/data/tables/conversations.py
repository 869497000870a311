"""Conversations about an image as rows: LLaVA's `conversations` (KoLLaVA too), and OpenAI's `messages`.

    {"id": 7, "image": "a.jpg", "conversations": [
        {"from": "human", "value": "<image>\\n무엇인가요?"}, {"from": "gpt", "value": "고양이"},
        {"from": "human", "value": "무슨 색?"}, {"from": "gpt", "value": "흰색"}]}

Each question with its answer is a row of its own, with the ids 7/1 and 7/2; what was said before is not part
of a later question. What a system says is left out. (LLaVA's docs/Finetune_Custom_Data.md)
"""

from __future__ import annotations

from collections.abc import Iterator

from kovqa_core.data.json_values import JsonRecord, JsonValue
from kovqa_core.data.tables.json_rows import number_rows
from kovqa_core.data.tables.webdataset import KEY_COLUMN, PROBLEM_COLUMN, several_images

_CONVERSATION_KEYS = ("conversations", "messages")
_QUESTIONERS = ("human", "user")
_ANSWERERS = ("gpt", "assistant")
_IMAGE_MARKERS = ("<image>", "<Image>", "<|image|>")


def split_conversations(rows: Iterator[tuple[int, JsonValue]]) -> Iterator[tuple[int, JsonValue]]:
    """Rows as they are, and a conversation as a row for each of its questions; with their line numbers."""
    for line, id, row in number_rows(rows):
        # Asked by hand: the usual row is none, and there may be millions.
        if isinstance(row, dict) and ("conversations" in row or "messages" in row):
            yield from ((line, each) for each in _split_conversation(row, id))
        else:
            yield line, row


def _split_conversation(row: JsonRecord, own_id: str) -> Iterator[JsonRecord]:
    """The questions of a conversation, each a row with `id`, `image`, `question` and, if it is there, `answer`.

    Args:
        row: of a table; one without a conversation is handed on as it is.
        own_id: the id of a row without one.
    """
    key = next((key for key in _CONVERSATION_KEYS if _is_conversation(row.get(key))), None)
    if key is None or "question" in row:
        yield row
        return
    turns = list(_pair_turns(row[key]))
    image = row.get("image") or _only(row.get("images")) or _image_in(row[key])
    others = {name: value for name, value in row.items() if name not in (key, "image", "images")}
    if not image and isinstance(row.get("images"), list) and len(row["images"]) > 1:
        others[PROBLEM_COLUMN] = several_images(len(row["images"]))
    for number, turn in enumerate(turns, 1):
        own = f"/{number}" if len(turns) > 1 else ""
        if (
            row.get("id") in (None, "") and KEY_COLUMN in row
        ):  # of a webdataset, whose reader knows it by that
            yield {**others, KEY_COLUMN: f"{row[KEY_COLUMN]}{own}", "image": image or "", **turn}
            continue
        id = row.get("id") if row.get("id") not in (None, "") else own_id
        yield {**others, "id": f"{id}{own}" if own else id, "image": image or "", **turn}


def _is_conversation(value: JsonValue) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and ("from" in turn or "role" in turn) for turn in value
    )


def _pair_turns(turns: list[JsonRecord]) -> Iterator[JsonRecord]:
    question: str | None = None
    for turn in turns:
        speaker = str(turn.get("from", turn.get("role"))).lower()
        text = _turn_text(turn.get("value", turn.get("content")))
        if speaker in _QUESTIONERS:
            if question is not None:
                yield {"question": question}
            question = text
        elif speaker in _ANSWERERS and question is not None:
            yield {"question": question, "answer": text}
            question = None
    if question is not None:
        yield {"question": question}


def _turn_text(value: JsonValue) -> str:
    """What is said, without the marker of the image."""
    if isinstance(value, list):
        value = "\n".join(part["text"] for part in value if isinstance(part, dict) and part.get("text"))
    text = str(value or "")
    for marker in _IMAGE_MARKERS:
        text = text.replace(marker, "")
    return text.strip()


def _only(images: JsonValue) -> JsonValue:
    return images[0] if isinstance(images, list) and len(images) == 1 else None


def _image_in(turns: list[JsonRecord]) -> JsonValue:
    """The path of the one image that the turns themselves name."""
    contents = [turn.get("content") for turn in turns]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return _only([part["image"] for part in parts if isinstance(part, dict) and part.get("image")])
