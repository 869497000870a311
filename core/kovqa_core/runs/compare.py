"""Two runs side by side; and a run beside what this machine has today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kovqa_core.machine.versions import engine_git_state, package_versions
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.runs import manifest
from kovqa_core.runs.log_file import read_evaluations
from kovqa_core.runs.manifest import GitStates, IndexFacts, RunLaunch
from kovqa_core.runs.summary import flatten_settings
from kovqa_core.settings.run import RUN_FILE, Run, read_run

COMPARED_SECTIONS = ("recipe", "profile", "batch", "data", "versions", "git", "machine")
RunFacts = Mapping[str, Mapping[str, object]]  # section -> key -> a JSON value


@dataclass(frozen=True)
class RunDifference:
    """One fact that is not the same on both sides."""

    section: str  # one of COMPARED_SECTIONS
    key: str
    a: object  # JSON values; None: not known, or not there
    b: object


@dataclass(frozen=True)
class RunComparison:
    """Two runs: what differs, and their scores."""

    differences: list[RunDifference]
    scores: list[tuple[int, float | None, float | None]]  # step, score of each where it was evaluated


def compare_runs(a: Path, b: Path) -> RunComparison:
    """What differs between two run folders.

    Raises:
        KovqaError: one of them has no readable settings.
    """
    facts = [_run_facts(folder) for folder in (a, b)]
    scores = [{event.step: event.score for event in read_evaluations(folder)} for folder in (a, b)]
    steps = sorted({*scores[0], *scores[1]})
    return RunComparison(
        [*_fact_differences(*facts), *_split_differences(a, b)],
        [(step, scores[0].get(step), scores[1].get(step)) for step in steps],
    )


@dataclass(frozen=True)
class DifferingFact:
    """One fact that is not the same for all of several runs.

    Attributes:
        section: one of `COMPARED_SECTIONS`.
        values: JSON values, one a run; None: not known, or not there.
    """

    section: str
    key: str
    values: Sequence[object]


def differing_facts(folders: Sequence[Path]) -> list[DifferingFact]:
    """What is not the same in all of these run folders.

    Raises:
        KovqaError: one of them has no readable settings.
    """
    facts = [_run_facts(folder) for folder in folders]
    differing = []
    for section in COMPARED_SECTIONS:
        for key in sorted({key for each in facts for key in each[section]}):
            values = [each[section].get(key) for each in facts]
            if any(value != values[0] for value in values):
                differing.append(DifferingFact(section, key, values))
    return differing


def changed_since(folder: Path) -> list[RunDifference]:
    """What is not as it was when a run was last launched: data, versions, the engine's code.

    Data not known then is a difference; other facts not known then are not one.
    """
    launch = _last_launch(folder)
    index = read_run(folder / RUN_FILE).recipe.data.index
    now: RunFacts = {
        "data": _data_facts(manifest.index_facts(index)),
        "versions": package_versions(),
        "git": _git_facts(GitStates(engine_git_state())),
    }
    then: RunFacts = {
        "data": _data_facts(launch.data),
        "versions": launch.versions or now["versions"],
        "git": _git_facts(GitStates(launch.git.engine)) if launch.git else now["git"],
    }
    return list(_fact_differences(then, now))


@dataclass(frozen=True)
class BatchSplit:
    """How the global batch was split from a step on: a resumed run may have another split than it began with."""

    from_step: int  # optimizer steps done before
    profile: str
    processes: int
    micro_batch: int
    accumulate: int

    def is_like(self, other: BatchSplit) -> bool:
        """Is it the same but for the step?"""
        return replace(self, from_step=other.from_step) == other


def batch_splits(folder: Path) -> list[BatchSplit]:
    """The splits by which the steps of a run were made, as its launches say, oldest first."""
    splits: list[BatchSplit] = []
    for launch in manifest.read_launches(folder):
        # What a launch did after the checkpoint from which the next one goes on, was done again.
        while splits and splits[-1].from_step >= launch.from_step:
            splits.pop()
        split = BatchSplit(
            launch.from_step, launch.profile, launch.processes, launch.micro_batch, launch.accumulate
        )
        # Earlier versions did not write how a launch split the batch.
        if launch.micro_batch and not (splits and split.is_like(splits[-1])):
            splits.append(split)
    return splits


def batch_splits_text(splits: Sequence[BatchSplit]) -> Message:
    """The splits of a run, each with its first step: processes × micro-batch × accumulation."""
    return join_messages(
        ", ",
        (
            message(
                "runs.batch-split",
                "from step {step:,}: {processes} × {micro_batch} × {accumulate} on {profile}",
                step=split.from_step + 1,
                processes=split.processes,
                micro_batch=split.micro_batch,
                accumulate=split.accumulate,
                profile=split.profile,
            )
            for split in splits
        ),
    )


def _split_differences(a: Path, b: Path) -> Iterator[RunDifference]:
    """That launches split the batch otherwise; where each run has one split, its settings say it already."""
    splits = batch_splits(a), batch_splits(b)
    if max(map(len, splits)) > 1 and splits[0] != splits[1]:
        yield RunDifference("batch", "launches", *(batch_splits_text(each) or None for each in splits))


def _last_launch(folder: Path) -> RunLaunch:
    """The newest launch of a run; one that knows nothing where none was written down."""
    launches = manifest.read_launches(folder)
    return launches[-1] if launches else RunLaunch()


def _run_facts(folder: Path) -> RunFacts:
    run, launch = read_run(folder / RUN_FILE), _last_launch(folder)
    return {
        "recipe": flatten_settings(run.recipe.model_dump(mode="json")),
        "profile": flatten_settings(run.profile.model_dump(mode="json")),
        "batch": _batch_facts(run),
        "data": _data_facts(launch.data),
        "versions": launch.versions,
        "git": _git_facts(launch.git),
        "machine": asdict(launch.machine) if launch.machine else {},
    }


def _batch_facts(run: Run) -> dict[str, int]:
    return {
        "processes": run.profile.processes,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
    }


def _data_facts(data: IndexFacts) -> dict[str, str | None]:
    """The fingerprint alone: the same index may lie elsewhere."""
    return {"fingerprint": data.fingerprint}


def _git_facts(git: GitStates | None) -> dict[str, object]:
    states = asdict(git) if git else {}
    return flatten_settings({place: state for place, state in states.items() if state})


def _fact_differences(a: RunFacts, b: RunFacts) -> Iterator[RunDifference]:
    for section in (name for name in COMPARED_SECTIONS if name in a):
        for key in sorted({*a[section], *b[section]}):
            fact_a, fact_b = a[section].get(key), b[section].get(key)
            if fact_a != fact_b:
                yield RunDifference(section, key, fact_a, fact_b)
