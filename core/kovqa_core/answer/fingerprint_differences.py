"""In what two fingerprints of answers differ: in the model, the table, the kinds of questions, how they were made."""

from __future__ import annotations

from collections.abc import Mapping

from kovqa_core.messages import Message, message

# What a key of a fingerprint belongs to; all others are the model's.
_PART_OF_KEY = {
    "table": "table",
    "columns": "table",
    "kinds": "kinds",
    "beams": "decoding",
    "decoding": "decoding",
    "precision": "precision",
    "load": "load",
    "top_k": "top_k",
    "instruction": "decoding",
    "max_tokens": "decoding",
}
# Those by which only the table differs: which of its rows are the same, their digests say.
ROW_KEYS = tuple(key for key, part in _PART_OF_KEY.items() if part in ("table", "kinds"))


def name_differences(recorded: Mapping[str, object], fingerprint: Mapping[str, object]) -> list[Message]:
    """In what two fingerprints differ, in words; empty: answers under one are answers under the other.

    Args:
        recorded: of the answers that are there; earlier versions knew a model by its path.
        fingerprint: of now.
    """
    then, now = dict(recorded), dict(fingerprint)
    other_model = _other_model(then, now)
    for fields in (then, now):
        fields.pop("hub", None)  # only what it is called
    if "weights" in then and "weights" in now:  # then a path says nothing: the folder may have been moved
        then["model"] = now["model"]
    elif "weights" in now:
        del now["weights"]
    changed = {key for key in then.keys() | now.keys() if then.get(key) != now.get(key)}
    parts = {
        "model": other_model,
        "table": message("answer.other-table", "to another table"),
        "kinds": message("answer.other-kinds", "for other kinds of questions"),
        "decoding": message("answer.other-decoding", "decoded in another way"),
        "top_k": message(
            "answer.other-top-k",
            "with another number of the likeliest answers ({then}, not {now}; see --top-k)",
            then=then.get("top_k") or 1,
            now=now.get("top_k") or 1,
        ),
        "load": message(
            "answer.other-load",
            "with weights in another form ({then}, not {now}; see --load)",
            then=then.get("load") or "auto",
            now=now.get("load") or "auto",
        ),
        "precision": message(
            "answer.other-precision",
            "computed in another precision ({then}, not {now}; see --precision)",
            then=_precision(then),
            now=_precision(now),
        ),
    }
    found = {_PART_OF_KEY.get(key, "model") for key in changed}
    return [text for part, text in parts.items() if part in found]


def describe_differences(recorded: Mapping[str, object], fingerprint: Mapping[str, object]) -> Message:
    """The differences as one text; arguments as above."""
    first, *others = name_differences(recorded, fingerprint)
    for other in others:
        first = message("answer.two-differences", "{first} and {other}", first=first, other=other)
    return first


def _precision(fingerprint: Mapping[str, object]) -> str:
    """What answers were computed in; the model's own is noted nowhere."""
    recorded = fingerprint.get("precision")
    return str(recorded) if recorded else message("answer.own-precision", "the model's own, in most fp32")


def _other_model(then: Mapping[str, object], now: Mapping[str, object]) -> Message:
    before, after = (each.get("hub") or each.get("model") or each.get("served") for each in (then, now))
    if before is None:
        return message("answer.unknown-model", "of another model")
    if before == after:
        return message("answer.changed-model", "of {model} as it was before its files changed", model=before)
    return message("answer.other-model", "of another model ({then}, not {now})", then=before, now=after)
