"""Codes of errors: each message that an error carries has one, for good; the pages list them."""

from __future__ import annotations

from kovqa_core.errors import did_you_mean, unknown_name_error
from kovqa_core.messages import message
from kovqa_core.messages.error_codes import find_error_code

from kovqa_cli.output.console import error_line
from tools.error_codes import assign_codes, files_as_they_should_be, read_codes


def test_codes_and_pages_are_fresh() -> None:
    """`python tools/error_codes.py` writes them."""
    stale = [path.name for path, text in files_as_they_should_be().items() if path.read_text("utf-8") != text]
    assert not stale


def test_a_code_is_given_once() -> None:
    codes = read_codes()
    assert len(set(codes.values())) == len(codes)
    more = assign_codes({"zz.new": 3, "zz.other": 2}, codes)
    assert {key: more[key] for key in codes} == codes
    assert more["zz.new"] not in codes.values()


def test_a_message_around_another_has_its_code() -> None:
    problem = message("plan.steps", "{x}", x=1)
    problem.key = next(iter(read_codes()))
    code = read_codes()[problem.key]
    assert find_error_code(problem) == code
    assert find_error_code(did_you_mean(problem, ["a", "b"])) == code
    assert find_error_code(unknown_name_error(problem, "x", ["xx"]).message) == code
    assert find_error_code("no message") == ""
    assert error_line(problem, "look") == f"kovqa: 1 [{code}] → look"
    assert error_line("no message") == "kovqa: no message"
