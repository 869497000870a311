"""`kovqa train --check` where workers start in a container, or with another Python: is all that they need there?

A few lines of standard Python run behind the same words as the workers will (docs/sources/launching.md, R30).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import REPORT_FILE
from kovqa_core.launch.launchers.protocol import LaunchPlan, lines_before
from kovqa_core.launch.plan import WORKER_FILE
from kovqa_core.machine.versions import package_versions
from kovqa_core.messages import Message, join_messages, message, shell_quote
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.runs.summary import flatten_settings
from kovqa_core.settings.run import Run

_MIN_PYTHON = (3, 11)
_TIMEOUT = 300.0  # seconds; a container may be unpacked first
_ANSWER_MARK = "kovqa-inside:"  # before the answer, for containers print, too
# For any Python 3: one that is too old is to be told so. What a user's folder holds must not stand in for an import.
_PROBE = """
import json, os, sys
sys.path[:] = [path for path in sys.path if path]
want = json.loads(sys.argv[1])
found = {"python": list(sys.version_info[:3]), "engine": "", "version": "", "problem": "", "lacks": []}
found["missing"] = [path for path in want["read"] if not os.path.exists(path)]
found["read_only"] = [path for path in want["write"] if not os.access(path, os.W_OK)]
try:
    import importlib.util
    from importlib.metadata import version
    found["lacks"] = [name for name in want["packages"] if importlib.util.find_spec(name) is None]
    engine = importlib.util.find_spec("kovqa_core")
    if engine is None:
        raise ImportError("no module kovqa_core")
    found["engine"] = os.path.dirname(os.path.realpath(engine.origin))
    import kovqa_core
    # A source tree has no metadata, and an older kovqa no such name.
    found["version"] = getattr(kovqa_core, "__version__", "") or version("kovqa")
except Exception as error:
    found["problem"] = "%s: %s" % (type(error).__name__, error)
print(want["mark"] + json.dumps(found))
"""
_PACKAGES = ("torch", "pydantic", "safetensors", "sentencepiece", "numpy", "PIL")


@dataclass(frozen=True)
class _InsideFacts:
    """What the probe found: version of Python, the engine's folder and version, what cannot be seen or written."""

    python: list[int]
    engine: str
    version: str
    problem: str
    lacks: list[str]
    missing: list[str]
    read_only: list[str]


def look_inside(run: Run, launch: LaunchPlan, environ: Mapping[str, str]) -> Message | None:
    """See that the workers' Python has kovqa, and sees the files of a run, where it is not simply the one that runs this.

    Args:
        run: its settings.
        launch: how it is started.
        environ: of this process: inside of a SLURM job the probe runs on the job's node, as the workers will.

    Returns:
        What was found; where it cannot be looked into from here, that; None: the workers' Python is this one.

    Raises:
        MachineError: something is missing there; names all of it.
    """
    profile = run.profile
    in_job = profile.launcher in ("srun", "sbatch") and bool(environ.get("SLURM_JOB_ID"))
    slurm_container = [option for option in profile.slurm.srun_options if option.startswith("--container")]
    if slurm_container and profile.launcher in ("srun", "sbatch") and not in_job:
        return message(
            "launch.inside-not-seen",
            "not looked inside: {option} takes effect in a job only; type the same --check inside salloc",
            option=slurm_container[0],
        )
    if not (profile.command_prefix or profile.python or profile.setup or slurm_container):
        return None
    place = message(
        "launch.inside", "inside `{command}`", command=" ".join(map(shell_quote, _workers_words(run)))
    )
    facts = _run_probe(run, launch, place, in_job=in_job)
    problems = list(_problems(facts))
    if problems:
        raise MachineError(
            message(
                "launch.inside-problems",
                "{place}: {problems}",
                place=place,
                problems=join_messages("; ", problems),
            ),
            message(
                "launch.inside-problems.hint",
                "install the same kovqa there, make these paths visible at the same place (apptainer --bind, docker -v), "
                "or see `python`, `setup` and `command_prefix` of the profile",
            ),
        )
    return message(
        "launch.inside-fits",
        "{place}: Python {python}, kovqa {version}, all {count} files and folders of the run are visible",
        place=place,
        python=".".join(map(str, facts.python)),
        version=facts.version,
        count=len(_paths_to_read(run)),
    )


def _workers_words(run: Run) -> list[str]:
    return [*run.profile.command_prefix, run.profile.python or sys.executable]


def _run_probe(run: Run, launch: LaunchPlan, place: Message, *, in_job: bool) -> _InsideFacts:
    profile = run.profile
    wanted = {
        "read": _paths_to_read(run),
        "write": [_existing_folder(run.folder)],
        "packages": _PACKAGES,
        "mark": _ANSWER_MARK,
    }
    words = [*_workers_words(run), "-c", _PROBE, json.dumps(wanted)]
    if in_job:
        words = ["srun", "--nodes=1", "--ntasks=1", "--overlap", *profile.slurm.srun_options, *words]
    argv = lines_before(profile.setup, words)
    try:
        done = subprocess.run(
            argv, env={**os.environ, **launch.env}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT, check=False,
        )  # fmt: skip
        answers = [line for line in done.stdout.splitlines() if line.startswith(_ANSWER_MARK)]
        if answers:
            return _InsideFacts(**parse_json(answers[-1].removeprefix(_ANSWER_MARK)))
        problem = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()),
            message("launch.no-message", "no message"),
        )
    except OSError as error:
        problem = message(
            "launch.command-problem", "{command}: {problem}", command=argv[0], problem=system_reason(error)
        )
    except subprocess.TimeoutExpired:
        problem = message("launch.inside-timeout", "no answer after {seconds:.0f} s", seconds=_TIMEOUT)
    raise MachineError(
        message(
            "launch.inside-fails", "{place}: Python does not start: {problem}", place=place, problem=problem
        ),
        message(
            "launch.inside-fails.hint",
            "see `python`, `setup` and `command_prefix` of the profile; where only the nodes have them, type the same "
            "--check inside salloc",
        ),
    )


def _problems(facts: _InsideFacts) -> Iterator[Message]:
    if tuple(facts.python) < _MIN_PYTHON:
        yield message(
            "launch.inside-python",
            "Python {version} (kovqa needs {needed})",
            version=".".join(map(str, facts.python)),
            needed=".".join(map(str, _MIN_PYTHON)),
        )
    here = package_versions(["kovqa"])["kovqa"]
    if facts.problem:
        yield message("launch.inside-no-kovqa", "kovqa cannot be imported ({problem})", problem=facts.problem)
    elif facts.version != here:
        yield message(
            "launch.inside-version", "kovqa {version}, here {here}", version=facts.version, here=here
        )
    if facts.engine and Path(facts.engine) != WORKER_FILE.parent:
        yield message(
            "launch.inside-engine",
            "kovqa is in {engine}, and not, as here, in {here}",
            engine=facts.engine,
            here=WORKER_FILE.parent,
        )
    if facts.lacks:
        yield message("launch.inside-lacks", "no {packages}", packages=", ".join(facts.lacks))
    if facts.missing:
        yield message("launch.inside-missing", "not visible: {paths}", paths=", ".join(facts.missing))
    if facts.read_only:
        yield message("launch.inside-read-only", "not writable: {paths}", paths=", ".join(facts.read_only))


def _paths_to_read(run: Run) -> list[str]:
    """The engine, and whatever the run's settings name that is here: index, images, tokenizer, weights, folders."""
    values = [*flatten_settings(run.recipe.model_dump(mode="json")).values(), run.profile.deepspeed]
    paths = [value for value in values if isinstance(value, str) and os.sep in value and Path(value).exists()]
    index, images = run.recipe.data.index, run.recipe.data.images
    if index:
        paths.append(str(Path(index) / REPORT_FILE))  # an empty folder may be there in place of the index
    if index and not images:
        with contextlib.suppress(KovqaError):  # no images here: the plan says so itself
            paths.append(str(open_index(Path(index)).images))
    return [str(WORKER_FILE), _existing_folder(run.folder), *paths]


def _existing_folder(folder: Path) -> str:
    """The run folder, or the one above in which it will be made."""
    return str(next(path for path in (folder, *folder.parents) if path.exists()))
