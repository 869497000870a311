"""Every kind of file with every damage: no traceback, no half file, an error that names the file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.fuzz.damages import DAMAGES
from tests.fuzz.file_kinds import FILE_KINDS, FileKind
from tests.fuzz.run_cases import Case, Fuzzer, draw_case

pytestmark = pytest.mark.xdist_group("fuzz")  # one base, one server
_CASES, _SOAK_CASES = 500, 5000


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    with Fuzzer() as fuzzer:
        yield fuzzer


def run(fuzzer: Fuzzer, cases: Iterator[Case]) -> None:
    failures = [str(failure) for case in cases if (failure := fuzzer.run(case))]
    assert not failures, f"{len(failures)} cases failed\n\n" + "\n\n".join(failures[:20])


def test_cases_end_as_they_should(fuzzer: Fuzzer) -> None:
    run(fuzzer, (draw_case(seed) for seed in range(_CASES)))


@pytest.mark.soak
def test_many_cases_end_as_they_should(fuzzer: Fuzzer) -> None:
    # Each run goes on where earlier ones were: the seconds since 1970 never come again.
    first = int(os.environ.get("FUZZ_SEED", time.time() * 1000))
    print("first seed", first)
    run(fuzzer, (draw_case(seed) for seed in range(first, first + _SOAK_CASES)))


@pytest.mark.soak
def test_each_damage_of_each_kind(fuzzer: Fuzzer) -> None:
    """The grid once, with a command of each kind in turn."""
    cases = (
        Case(kind.name, damage, number % len(kind.commands), 0)
        for kind in FILE_KINDS
        for number, damage in enumerate(DAMAGES)
    )
    run(fuzzer, cases)


@pytest.mark.soak
@pytest.mark.parametrize("kind", FILE_KINDS, ids=lambda kind: kind.name)
def test_whole_files_are_read(fuzzer: Fuzzer, kind: FileKind) -> None:
    for command in range(len(kind.commands)):
        ended = fuzzer.run_whole(kind, command)
        assert ended.code == kind.usual_code, ended.stderr
