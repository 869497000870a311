"""Messages that went through a file or a pipe are translated as those of this process; without damage, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.errors import DataError
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.messages.languages import translate
from kovqa_core.messages.packed import pack_message, pack_texts, unpack_message, unpack_texts
from kovqa_core.runs.events import TrainStepEvent, WarningEvent, event_line, parse_event
from kovqa_core.runs.folder import RunError, error_values, read_error

from tests.messages.test_messages import message_calls, text_of


def problem_of(path: str = "index") -> Message:
    reason = message("files.is-folder", "it is a folder")
    return message("files.cannot-read", "cannot read {path}: {reason}", path=Path(path), reason=reason)


SIZE = message(
    "files.too-large", "{path} has {size:,} bytes, more than the {most:,} that such a file may have",
    path="새 파일", size=np.int64(12000), most=9000,
)  # fmt: skip
WARNING = message("cli.warning", "warning: {warning}", warning=DataError(problem_of(), "hint"))


@pytest.mark.parametrize(
    "text", [problem_of(), SIZE, WARNING, join_messages("; ", [SIZE, "x", problem_of()])]
)
def test_a_message_comes_back_whole(text: Message) -> None:
    packed = json.loads(json.dumps(pack_message(text)))
    unpacked = unpack_message(str(text), packed)
    assert unpacked == text
    assert translate(unpacked, "ko") == translate(text, "ko") != str(text)


def test_events_and_errors_keep_their_keys(tmp_path: Path) -> None:
    event = parse_event(event_line(WarningEvent(WARNING)))
    assert isinstance(event, WarningEvent)
    assert translate(event.note, "ko") == translate(WARNING, "ko")
    step = parse_event(event_line(TrainStepEvent(1, 1.0, 1.0, 1.0, 1.0, faults=["row 3", problem_of()])))
    assert isinstance(step, TrainStepEvent)
    assert [translate(fault, "ko") for fault in step.faults or ()] == ["row 3", translate(problem_of(), "ko")]
    values = error_values(DataError(problem_of(), "no message"))
    assert (values["message"], values["detail"]) == ("cannot read index: it is a folder", "no message")
    (tmp_path / "error.json").write_text(json.dumps({**values, "rank": 1}), "utf-8")
    error = read_error(tmp_path)
    assert error is not None
    assert translate(error.message, "ko") == translate(problem_of(), "ko")
    assert (error.detail, error.rank) == ("no message", 1)


def test_every_key_may_be_packed() -> None:
    for _, call in message_calls():
        packed = {"text": "m", "key": text_of(call.args[0]), "fields": {}}
        assert isinstance(unpack_message("m", packed), Message), packed


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "error.json").write_text(
        '{"kind": "DataError", "message": "m", "key": "a.b", "rank": 2}', "utf-8"
    )
    assert read_error(tmp_path) == RunError("DataError", "m", "", 2)


@pytest.mark.parametrize(
    "packed",
    [
        None, [], 1, {}, {"text": "other", "key": "files.empty", "fields": {"path": "x"}}, {"text": "m", "key": 3},
        {"text": "m", "key": "../../files.empty", "fields": {"path": "x"}}, {"text": "m", "key": "files.empty"},
        {"text": "m", "separator": "; ", "parts": ["a", "b"]}, {"text": "m", "key": "files.empty", "fields": {}},
        {"text": "m", "key": "files.too-large", "fields": {"path": "x", "size": "many", "most": None}},
    ],
)  # fmt: skip
def test_what_is_no_message_stays_the_text(packed: object) -> None:
    assert translate(unpack_message("m", packed), "ko") == "m"
    assert unpack_texts(["m"], packed) == ["m"]
    assert pack_texts(["m"]) is pack_texts("m") is None
