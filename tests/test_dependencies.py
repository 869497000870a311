"""The lower bounds in pyproject.toml, held against what the libraries here ask for."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

HERE = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}


def lowest(name: str) -> Version:
    """The oldest version that pyproject.toml allows."""
    return min(Version(s.version) for s in ASKED[name].specifier if s.operator == ">=")


def test_protobuf_is_new_enough_for_the_message_of_sentencepiece() -> None:
    """Generated code refuses a protobuf older than the one that generated it."""
    generated = Path(
        str(distribution("sentencepiece").locate_file("sentencepiece/sentencepiece_model_pb2.py"))
    )
    told = re.search(
        r"^# Protobuf Python Version: (\S+)$", generated.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert told is not None
    assert lowest("protobuf") >= Version(told[1])


def test_the_versions_tested_are_allowed() -> None:
    lines = (HERE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    refused = [n for n, r in ASKED.items() if n in tested and not r.specifier.contains(tested[n])]
    assert refused == []


def test_transformers_is_new_enough_for_questions_as_plain_text() -> None:
    """Before 5.23 `apply_chat_template` raises ValueError at `sanitize_control_tokens`, which every chat passes."""
    assert lowest("transformers") >= Version("5.23")
