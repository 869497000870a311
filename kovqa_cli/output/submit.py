"""What `kovqa submit` shows: what the file is like, the day's quota, Dacon's receipt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_note, print_outcome, short_path

if TYPE_CHECKING:
    from kovqa_core.submit.dacon_upload import DailyQuota, UploadAttempt
    from kovqa_core.submit.submission import WrittenSubmission


def print_submission(written: WrittenSubmission, *, as_json: bool, quiet: bool) -> None:
    """A file for a challenge, and what its texts are like."""
    fields = {**asdict(written), "path": str(written.path)}
    print_outcome(str(written.path), fields, submission_notes(written), as_json=as_json, quiet=quiet)


def submission_notes(written: WrittenSubmission) -> list[str]:
    """What a submission's texts are like."""
    notes: list[str] = [
        *written.notes,
        message(
            "cli.submission-rows",
            "{rows:,} rows, every id once, none empty; {distinct:,} different texts",
            rows=written.rows,
            distinct=written.distinct,
        ),
    ]
    if written.columns:
        notes.append(
            message(
                "cli.submission-columns", "ids in column {id}, answers in column {answer}",
                id=written.columns[0], answer=written.columns[1],
            )
        )  # fmt: skip
    if written.filled:
        notes.append(
            message(
                "cli.submission-filled",
                "warning: {count:,} of them had no prediction and were filled",
                count=written.filled,
            )
        )
    if written.filled_empty:
        notes.append(
            message(
                "cli.submission-filled-empty",
                "warning: {count:,} of them had an empty prediction and were filled",
                count=written.filled_empty,
            )
        )
    if written.missing_words:
        notes.append(
            message(
                "cli.submission-missing-words",
                "warning: {count:,} of them say nan, null, None, n/a or the like (first: id {id}): is that an answer?",
                count=written.missing_words,
                id=written.first_missing_word,
            )
        )
    notes.append(
        message(
            "cli.submission-texts",
            "most frequent: {texts}; longest: {longest} ({length:,} characters)",
            texts=", ".join(f"{text} ({count:,})" for text, count in written.frequent),
            longest=written.longest,
            length=len(written.longest),
        )
    )
    return notes


def print_notes(notes: list[str], *, quiet: bool) -> None:
    """Lines worth knowing, unless nobody wants them."""
    for note in notes if not quiet else ():
        print_note(note)


def quota_note(today: DailyQuota) -> str:
    """The day's quota, as far as it can be known."""
    unknown = message("cli.quota-unknown", ", {count} unknown", count=today.unknown) if today.unknown else ""
    return message(
        "cli.quota",
        "sent from here since 00:00 KST: {accepted} accepted{unknown}; Dacon's daily quota resets at {time}",
        accepted=today.accepted,
        unknown=unknown,
        time=f"{today.resets:%Y-%m-%d %H:%M %Z}",
    )


def print_receipt(
    attempt: UploadAttempt, today: DailyQuota, ledger: Path, *, as_json: bool, quiet: bool
) -> None:
    """A submission that Dacon has accepted."""
    from kovqa_core.submit.dacon_upload import state_text

    receipt = message(
        "cli.dacon-receipt",
        "{state} {time} by Dacon {competition} for team {team}: {file}, {size:,} bytes, SHA-256 {sha256}",
        state=state_text(attempt.state),
        time=attempt.time,
        competition=attempt.competition,
        team=attempt.team,
        file=attempt.file,
        size=attempt.size,
        sha256=attempt.sha256,
    )
    day = {**asdict(today), "resets": today.resets.isoformat()}
    fields = {"path": attempt.file, "receipt": asdict(attempt), "today": day, "ledger": str(ledger)}
    notes = [
        quota_note(today),
        message("cli.dacon-ledger", "written down in {ledger}", ledger=short_path(ledger)),
    ]
    print_outcome(attempt.state if quiet else receipt, fields, notes, as_json=as_json, quiet=quiet)
