"""Two runs side by side; and a run beside what this machine has today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.machine.versions import engine_git, versions
from kovqa_core.runs import manifest
from kovqa_core.runs.summary import evaluations, flat
from kovqa_core.settings.run import FILE, Run, read_run

SECTIONS = ("recipe", "profile", "batch", "data", "versions", "git", "machine")


@dataclass(frozen=True)
class Difference:
    """One fact that is not the same on both sides."""

    section: str  # one of SECTIONS
    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparison:
    """Two runs: what differs, and what came of it."""

    differences: list[Difference]
    scores: list[tuple[int, float | None, float | None]]  # step, score of each where it was evaluated


def compare(a: Path, b: Path) -> Comparison:
    """What differs between two run folders.

    Raises:
        KovqaError: one of them has no readable settings.
    """
    sides = [_facts(folder) for folder in (a, b)]
    scored = [{row["step"]: row.get("score") for row in evaluations(folder)} for folder in (a, b)]
    scores = [(step, scored[0].get(step), scored[1].get(step)) for step in sorted({*scored[0], *scored[1]})]
    return Comparison(list(_differences(*sides)), scores)


def changed_since(folder: Path) -> list[Difference]:
    """What is not as it was when a run was launched last: data, versions, the engine's code.

    Data not known then is a difference; other facts not known then are none.
    """
    launches = manifest.launches(folder)
    then = launches[-1] if launches else {}
    index = read_run(folder / FILE).recipe.data.index
    now = {
        "data": _fingerprint({"data": manifest.data(index)}),
        "versions": versions(),
        "git": _commits({"engine": engine_git()}),
    }
    was = {
        "data": _fingerprint(then),
        "versions": then.get("versions") or now["versions"],
        "git": _commits({"engine": then["git"].get("engine")}) if then.get("git") else now["git"],
    }
    return list(_differences(was, now))


def _facts(folder: Path) -> dict[str, Mapping[str, Any]]:
    run, launches = read_run(folder / FILE), manifest.launches(folder)
    launch = launches[-1] if launches else {}
    return {
        "recipe": flat(run.recipe.model_dump(mode="json")),
        "profile": flat(run.profile.model_dump(mode="json")),
        "batch": _cut(run),
        "data": _fingerprint(launch),
        "versions": launch.get("versions") or {},
        "git": _commits(launch.get("git") or {}),
        "machine": launch.get("machine") or {},
    }


def _cut(run: Run) -> dict[str, int]:
    return {
        "processes": run.profile.processes,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
    }


def _commits(git: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    return flat({place: state for place, state in git.items() if state})


def _fingerprint(launch: Mapping[str, Any]) -> dict[str, Any]:
    return {"fingerprint": (launch.get("data") or {}).get("fingerprint")}


def _differences(
    a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    for section in (name for name in SECTIONS if name in a):
        for key in sorted({*a[section], *b[section]}):
            one, other = a[section].get(key), b[section].get(key)
            if one != other:
                yield Difference(section, key, one, other)
