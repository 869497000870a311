"""kovqa submit: predictions -> the file a challenge takes; Dacon's can be sent, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import options


def complete_challenge(incomplete: str) -> list[str]:
    """Names of challenges that begin like this."""
    return [name for name in ("vqav2", "coco", "dacon", "csv") if name.startswith(incomplete)]


def submit(
    challenge: Annotated[
        str,
        typer.Argument(
            help="vqav2, coco (captions), dacon, or csv: any contest that hands out a sample.",
            autocompletion=complete_challenge,
            metavar="NAME",
        ),
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions", help="Predictions file (kovqa predict, kovqa caption).", metavar="FILE"
        ),
    ],
    sample: Annotated[
        Path,
        typer.Option(
            "--sample",
            help="Which ids: the challenge's own JSON file or an index split (.jsonl); "
            "dacon, csv: the sample submission.",
            metavar="FILE",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="FILE")],
    *,
    fill: Annotated[
        str, typer.Option("--fill", help="The answer where a prediction is missing or empty.", metavar="TEXT")
    ] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="csv: the sample's column of id or answer, where it is not found by its name. Repeatable.",
            metavar="OURS=THEIRS",
        ),
    ] = None,
    answers_as: Annotated[
        str,
        typer.Option(
            "--answers-as",
            help="csv: how answers to questions with choices are written: text, letter, number, number-from-0. "
            "auto: as the sample has them.",
            metavar="NAME",
        ),
    ] = "auto",
    upload: Annotated[
        bool, typer.Option("--upload", help="dacon: send it, once. The token is read from DACON_API_TOKEN.")
    ] = False,
    team: Annotated[
        str,
        typer.Option(
            "--team",
            help="Your team's name, exactly as on Dacon.",
            envvar="KOVQA_DACON_TEAM",
            metavar="NAME",
        ),
    ] = "",
    memo: Annotated[
        str, typer.Option("--memo", help="A note for your list of submissions.", metavar="TEXT")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Send a file that was sent before.")] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write the file that a challenge or contest takes; send Dacon's with --upload."""
    from kovqa_core.submit import submission

    from kovqa_cli.output import submit as output_submit

    if upload and challenge != "dacon":
        raise SettingsError(
            message("cli.no-upload", "{challenge} takes no uploads from here", challenge=challenge),
            message("cli.no-upload.hint", "hand the file in on its page"),
        )
    columns = options.parse_columns(column)
    written = submission.write_submission(challenge, predictions, sample, output, fill, columns, answers_as)
    if not upload:
        output_submit.print_submission(written, as_json=json, quiet=quiet)
        return
    output_submit.print_notes(output_submit.submission_notes(written), quiet=json or quiet)
    _upload_submission(output, team, memo, force=force, json=json, quiet=quiet)


def _upload_submission(file: Path, team: str, memo: str, *, force: bool, json: bool, quiet: bool) -> None:
    from kovqa_core.progress import Progress
    from kovqa_core.submit import dacon_upload

    from kovqa_cli.output import console, progress
    from kovqa_cli.output import submit as output_submit

    note = output_submit.quota_note(dacon_upload.quota_today())
    output_submit.print_notes([note], quiet=json or quiet)
    try:
        with progress.show_progress(json or quiet) as on_progress:
            on_progress(Progress(message("cli.waiting-for-dacon", "waiting for Dacon's answer")))
            attempt = dacon_upload.upload_to_dacon(file, team, memo, force=force)
    except KeyboardInterrupt:
        console.print_note(
            message(
                "cli.upload-stopped",
                "stopped: whether Dacon has the file is unknown → look at your submissions on {page}",
                page=dacon_upload.COMPETITION_PAGE,
            )
        )
        raise
    output_submit.print_receipt(
        attempt, dacon_upload.quota_today(), dacon_upload.ledger_file(), as_json=json, quiet=quiet
    )
