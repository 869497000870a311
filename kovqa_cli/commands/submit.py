"""kovqa submit: predictions -> the file a challenge takes; Dacon's can be sent, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError

from kovqa_cli import options


def complete_challenge(incomplete: str) -> list[str]:
    """Names of challenges that begin like this."""
    return [name for name in ("vqav2", "coco", "dacon") if name.startswith(incomplete)]


def submit(
    challenge: Annotated[
        str, typer.Argument(help="vqav2, coco (captions) or dacon.", autocompletion=complete_challenge)
    ],
    predictions: Annotated[
        Path, typer.Option("--predictions", help="Predictions file (kovqa predict, kovqa caption).")
    ],
    sample: Annotated[
        Path,
        typer.Option(
            "--sample",
            help="Which ids: the challenge's own JSON file or an index split (.jsonl); "
            "dacon: sample_submission.csv.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    fill: Annotated[
        str, typer.Option("--fill", help="What to answer where a prediction is missing.", metavar="TEXT")
    ] = "",
    upload: Annotated[
        bool, typer.Option("--upload", help="dacon: send it, once. The token is read from DACON_API_TOKEN.")
    ] = False,
    team: Annotated[
        str,
        typer.Option("--team", help="Your team's name, exactly as on Dacon.", envvar="KOVQA_DACON_TEAM"),
    ] = "",
    memo: Annotated[str, typer.Option("--memo", help="A note for your list of submissions.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Send a file that was sent before.")] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write and check a submission file; nothing is sent anywhere without --upload."""
    from kovqa_core.submit import submission as work

    from kovqa_cli.output import console

    if upload and challenge != "dacon":
        raise SettingsError(f"{challenge} takes no uploads from here", "hand the file in on its page")
    written = work.write_submission(challenge, predictions, sample, output, fill)
    if upload:
        console.print_submission_notes(written, json or quiet)
        _upload_submission(output, team, memo, force, json, quiet)
    else:
        console.print_submission(written, json, quiet)


def _upload_submission(file: Path, team: str, memo: str, force: bool, json: bool, quiet: bool) -> None:
    from kovqa_core.submit import dacon_upload

    from kovqa_cli.output import console, progress

    console.print_quota(dacon_upload.quota_today(), json or quiet)
    try:
        with progress.stage_status(json or quiet) as told:
            if told:
                told("waiting for Dacon's answer", 0, 0)
            attempt = dacon_upload.upload_to_dacon(file, team, memo, force)
    except KeyboardInterrupt:
        console.print_note(
            f"stopped: if Dacon has it is unknown → look at your submissions on {dacon_upload.COMPETITION_PAGE}"
        )
        raise
    console.print_receipt(attempt, dacon_upload.quota_today(), dacon_upload.ledger_file(), json, quiet)
