"""Two runs side by side; and a run beside what this machine has today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.machine.versions import engine_git_state, package_versions
from kovqa_core.runs import manifest
from kovqa_core.runs.summary import flatten_settings, read_evaluations
from kovqa_core.settings.run import RUN_FILE, Run, read_run

COMPARED_SECTIONS = ("recipe", "profile", "batch", "data", "versions", "git", "machine")


@dataclass(frozen=True)
class RunDifference:
    """One fact that is not the same on both sides."""

    section: str  # one of SECTIONS
    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class RunComparison:
    """Two runs: what differs, and what came of it."""

    differences: list[RunDifference]
    scores: list[tuple[int, float | None, float | None]]  # step, score of each where it was evaluated


def compare_runs(a: Path, b: Path) -> RunComparison:
    """What differs between two run folders.

    Raises:
        KovqaError: one of them has no readable settings.
    """
    sides = [_run_facts(folder) for folder in (a, b)]
    scored = [{row["step"]: row.get("score") for row in read_evaluations(folder)} for folder in (a, b)]
    scores = [(step, scored[0].get(step), scored[1].get(step)) for step in sorted({*scored[0], *scored[1]})]
    return RunComparison(list(_fact_differences(*sides)), scores)


def changed_since(folder: Path) -> list[RunDifference]:
    """What is not as it was when a run was launched last: data, versions, the engine's code.

    Data not known then is a difference; other facts not known then are none.
    """
    launches = manifest.read_launches(folder)
    then = launches[-1] if launches else {}
    index = read_run(folder / RUN_FILE).recipe.data.index
    now = {
        "data": _data_fingerprint({"data": manifest.index_facts(index)}),
        "versions": package_versions(),
        "git": _git_commits({"engine": engine_git_state()}),
    }
    was = {
        "data": _data_fingerprint(then),
        "versions": then.get("versions") or now["versions"],
        "git": _git_commits({"engine": then["git"].get("engine")}) if then.get("git") else now["git"],
    }
    return list(_fact_differences(was, now))


def _run_facts(folder: Path) -> dict[str, Mapping[str, Any]]:
    run, launches = read_run(folder / RUN_FILE), manifest.read_launches(folder)
    launch = launches[-1] if launches else {}
    return {
        "recipe": flatten_settings(run.recipe.model_dump(mode="json")),
        "profile": flatten_settings(run.profile.model_dump(mode="json")),
        "batch": _batch_facts(run),
        "data": _data_fingerprint(launch),
        "versions": launch.get("versions") or {},
        "git": _git_commits(launch.get("git") or {}),
        "machine": launch.get("machine") or {},
    }


def _batch_facts(run: Run) -> dict[str, int]:
    return {
        "processes": run.profile.processes,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
    }


def _git_commits(git: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    return flatten_settings({place: state for place, state in git.items() if state})


def _data_fingerprint(launch: Mapping[str, Any]) -> dict[str, Any]:
    return {"fingerprint": (launch.get("data") or {}).get("fingerprint")}


def _fact_differences(
    a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]
) -> Iterator[RunDifference]:
    for section in (name for name in COMPARED_SECTIONS if name in a):
        for key in sorted({*a[section], *b[section]}):
            one, other = a[section].get(key), b[section].get(key)
            if one != other:
                yield RunDifference(section, key, one, other)
