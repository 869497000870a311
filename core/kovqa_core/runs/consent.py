"""What the settings of a run can make a machine execute, and whether this user agreed to it.

Shell lines before the workers, their Python, their variables: whoever may write into a shared folder could put
them there, and `kovqa train --resume` or `kovqa runs rerun` would execute them. So a run whose settings have any
gets a random id when it is made, and its user's own kovqa folder (never the run folder) a file of that id and of
a digest of those settings. Other settings, and another user, find no such file.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.files import write_json
from kovqa_core.messages import Message, message
from kovqa_core.messages.one_line import cut_value
from kovqa_core.paths import kovqa_home
from kovqa_core.runs.events import report_warning
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import RUN_FILE, Run
from kovqa_core.settings.strict_yaml import inline_yaml

TRUSTED_RUNS_FOLDER = "trusted-runs"  # in the user's kovqa folder
_MAX_NAMED_VALUE = 80  # letters of a setting in an error; a plan shows it whole


def code_settings(profile: Profile) -> dict[str, object]:
    """The settings that can lead to code which kovqa does not know, by their dotted keys; only those that are set.

    Among them two that do not look like it: torchrun's nodes exchange pickles at `rendezvous`
    (`torch.distributed.elastic`), and DeepSpeed's own file names modules and folders.
    """
    slurm = profile.slurm
    settings: dict[str, object] = {
        "profile.setup": profile.setup,
        "profile.command_prefix": profile.command_prefix,
        "profile.python": profile.python,
        "profile.slurm.options": slurm.options,
        "profile.slurm.srun_options": slurm.srun_options,
        "profile.slurm.node_setup": slurm.node_setup,
        "profile.deepspeed": profile.deepspeed,
        "profile.rendezvous": profile.rendezvous,
        **{f"profile.env.{name}": value for name, value in sorted(profile.env.items())},
    }
    return {key: value for key, value in settings.items() if value or key.startswith("profile.env.")}


def new_run_id() -> str:
    """A random id, which nobody can guess."""
    return secrets.token_hex(16)


def is_trusted_run(run: Run) -> bool:
    """Did this user make the run, or allow it, with the code settings that it has now?"""
    try:
        return _consent_file(run).is_file()
    except (OSError, RuntimeError):  # no home that can be read
        return False


def remember_run(run: Run) -> None:
    """Note in the user's kovqa folder that a run's code settings are the user's own, or were allowed."""
    settings = code_settings(run.profile)
    if not settings or is_trusted_run(run):
        return
    try:
        write_json(_consent_file(run), {"schema": 1, "folder": str(run.folder), "settings": settings})
    except (KovqaError, OSError, RuntimeError) as error:
        problem = error.message if isinstance(error, KovqaError) else str(error)
        report_warning(
            message(
                "runs.consent-not-kept",
                "{problem}: to go on with {folder} will need --trust-run (KOVQA_HOME names another folder)",
                problem=problem,
                folder=run.folder,
            )
        )


def _consent_file(run: Run) -> Path:
    # Runs of earlier versions have no id: their folder stands for it.
    key = run.id or hashlib.sha256(os.fsencode(run.folder)).hexdigest()[:32]
    settings = json.dumps(code_settings(run.profile), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:32]
    return kovqa_home() / TRUSTED_RUNS_FOLDER / f"{key}-{digest}.json"


def foreign_code_settings(run: Run, profile: Profile, *, typed_profile: bool) -> dict[str, object]:
    """Code settings of a launch that come from a `run.yaml` which is not known as this user's; empty: none.

    Args:
        run: as it is stored.
        profile: with which it is launched now; what was typed over the stored ones is the user's.
        typed_profile: was the whole profile typed?
    """
    if is_trusted_run(run):
        return {}
    stored = code_settings(run.profile)
    return {
        key: value
        for key, value in code_settings(profile).items()
        if stored.get(key) == value and not (typed_profile and key.startswith("profile."))
    }


def require_trusted(
    run: Run, settings: Mapping[str, object], *, trust_run: bool, other_profile: bool
) -> None:
    """See that the code settings of a stored run may be used.

    Args:
        run: as it is stored.
        settings: those of them that this user neither made nor typed.
        trust_run: did the user allow them in this command?
        other_profile: does the command take `-p`, too?

    Raises:
        SettingsError: they may not; names them.
    """
    if settings and not trust_run:
        raise SettingsError(_foreign_run_text(run, settings), _trust_hint(other_profile=other_profile))


def foreign_run_warning(settings: Mapping[str, object]) -> Message:
    """For a dry run: what will not start without --trust-run."""
    return message(
        "runs.foreign-run",
        "this run is not known here as yours: without --trust-run it does not start, for it has {keys}",
        keys=", ".join(settings),
    )


def code_setting_lines(run: Run) -> Iterator[Message]:
    """A run's code settings for a plan, whole: one line for each of a list."""
    for key, value in code_settings(run.profile).items():
        for each in value if isinstance(value, list) else [value]:
            yield message("runs.code-setting", "{key}: {value}", key=key, value=inline_yaml(each))


def _foreign_run_text(run: Run, settings: Mapping[str, object]) -> Message:
    """That a run's code settings are nobody's that is known here; names them."""
    return message(
        "runs.not-your-run",
        "{file} is not known here as yours, and would run: {settings}",
        file=run.folder / RUN_FILE,
        settings=", ".join(
            f"{key} {cut_value(inline_yaml(value), _MAX_NAMED_VALUE)}" for key, value in settings.items()
        ),
    )


def _trust_hint(*, other_profile: bool) -> Message:
    if other_profile:
        return message(
            "runs.not-your-run.resume-hint",
            "read it; then add --trust-run to go on with it (asked once), or name a machine of your own with -p",
        )
    return message("runs.not-your-run.hint", "read it; then add --trust-run to run it (asked once)")
