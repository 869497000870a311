"""`kovqa submit dacon --upload`: one file, sent once, and a ledger that says so.

A submission costs one of the day's quota, and an answer that never comes leaves open whether it
did. So a line stands in the ledger before anything is sent, saying `unknown` until Dacon has
answered; nothing is ever sent again by itself. Protocol: docs/sources/datasets.md, D17 to D19.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx2

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import AssetError, DataError, KovqaError, SettingsError
from kovqa_core.files import disk_errors, read_bytes, read_text, to_nfc, write_text
from kovqa_core.messages import Message, message
from kovqa_core.messages.system_reasons import in_known_words
from kovqa_core.net.api_keys import read_api_key
from kovqa_core.net.hosts import require_private_channel
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import new_http_client
from kovqa_core.output_lock import output_lock
from kovqa_core.paths import kovqa_home

DACON_COMPETITION = "236118"
COMPETITION_PAGE = f"https://dacon.io/competitions/official/{DACON_COMPETITION}"
# Korea has no summer time, so a fixed offset needs no time zone data.
_KOREA_TIME = timezone(timedelta(hours=9), "KST")
_NOT_RECEIVED_STATES = ("quota", "not sent")  # Dacon does not have the file, for certain
# Raised before the first byte of the request goes out; every other error may come after Dacon counted it.
_NO_CONNECTION_ERRORS = (
    httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol, httpx2.InvalidURL
)  # fmt: skip
_MAX_ANSWER_BYTES = 1 << 16  # bytes of an answer that are read

_QUOTA_MESSAGES = {
    "day_max_count": message("submit.quota-of-day", "the day's submissions are used up"),
    "over_max_count": message("submit.quota-of-all", "all submissions are used up"),
}
_HEADER = message("submit.wrong-header", "header")
_UNREADABLE = message("submit.wrong-csv", "not readable as CSV")
_ROW_COUNT = message("submit.wrong-rows", "number of rows")
_VALUES = message("submit.wrong-values", "values")
_FORMAT_ERRORS = {
    1: _HEADER, 2: _UNREADABLE, 3: _ROW_COUNT, 4: _VALUES, 21: message("submit.wrong-type", "type of data"),
    901: _HEADER, 902: _UNREADABLE, 903: _ROW_COUNT, 904: _VALUES,
    9021: message("submit.wrong-text", "text where numbers are wanted"),
}  # fmt: skip


@dataclass(frozen=True)
class UploadAttempt:
    """A line of the ledger.

    Attributes:
        time: when it was sent, ISO 8601, KST.
        file: where the file lay.
        size: its bytes.
        state: accepted; unknown (whether Dacon counted it); wrong (its format was refused); quota;
            not sent (no connection came about).
        answer: what Dacon or the network said.
    """

    time: str
    competition: str
    team: str
    memo: str
    file: str
    size: int
    sha256: str
    state: str = "unknown"
    answer: str = "sending"


@dataclass(frozen=True)
class DailyQuota:
    """The day's quota, as far as this computer knows: Dacon's interface has no numbers.

    Attributes:
        accepted, unknown: submissions sent from here since 00:00 KST.
        resets: the next 00:00 KST, in local time.
    """

    accepted: int
    unknown: int
    resets: datetime


def upload_to_dacon(file: Path, team: str, memo: str = "", *, force: bool = False) -> UploadAttempt:
    """Send a submission to Dacon, once; the accepted attempt.

    The token is read from DACON_API_TOKEN or from `dacon.key` in the user's folder.

    Args:
        team: its name on Dacon, to the letter.
        memo: for the user's own list on Dacon.
        force: although this file was sent before.

    Raises:
        SettingsError: no token, no team, an address where others could read the token; the file was sent before.
        DataError: Dacon refuses the file's format; the ledger is damaged.
        AssetError: Dacon cannot be reached, the quota is used up, or it is unknown what Dacon did.
    """
    token = read_api_key("Dacon", "DACON_API_TOKEN", "dacon.key", COMPETITION_PAGE)
    if not team.strip():
        raise SettingsError(
            message("submit.no-team", "which team?"),
            message("submit.no-team.hint", "--team NAME or KOVQA_DACON_TEAM, exactly as on Dacon"),
        )
    require_private_channel(_submission_url(), message("submit.your-token", "your Dacon token"))
    content = read_bytes(file)
    attempt = UploadAttempt(
        datetime.now(_KOREA_TIME).isoformat(),
        DACON_COMPETITION,
        _printable_nfc(team),
        _printable_nfc(memo),
        _printable_nfc(str(file.resolve())),
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    with new_http_client() as client:
        # The ledger first: whatever happens from here on, it says that the file may have been sent.
        _update_ledger(lambda attempts: [*attempts, _require_unsent(attempt, attempts, force=force)])
        state, answer = _post_submission(client, attempt, content, token)
    # By equality with the line written before: its time and SHA-256 make it one of a kind.
    outcome = replace(attempt, state=state, answer=answer)
    _update_ledger(lambda attempts: [outcome if entry == attempt else entry for entry in attempts])
    if state != "accepted":
        raise _upload_error(outcome)
    return outcome


def _printable_nfc(text: str) -> str:
    """NFC; what UTF-8 cannot encode (half a character in a file's name) is spelt out."""
    return to_nfc(text).encode("utf-8", "backslashreplace").decode()


# ------------------------------------------------------------------------------------ ledger


def ledger_file() -> Path:
    """The ledger: in the user's folder and not beside the file, so that a copy of the file is recognised too."""
    return kovqa_home() / "submissions.jsonl"


def read_ledger() -> list[UploadAttempt]:
    """All attempts, oldest first.

    Raises:
        DataError: a line of the ledger is damaged.
    """
    path = ledger_file()
    lines = read_text(path).split("\n") if path.exists() else []
    try:
        return [UploadAttempt(**parse_json(line)) for line in lines if line]
    except (ValueError, TypeError):
        raise DataError(
            message("submit.ledger-damaged", "{path} is damaged", path=path),
            message(
                "submit.ledger-damaged.hint",
                "compare it with your list on {page} and mend it; without it a file could be sent twice",
                page=COMPETITION_PAGE,
            ),
        ) from None


def _update_ledger(change: Callable[[list[UploadAttempt]], list[UploadAttempt]]) -> None:
    """Write the ledger anew, one process at a time."""
    with disk_errors(ledger_file()), output_lock(ledger_file()):
        lines = [json.dumps(asdict(attempt), ensure_ascii=False) + "\n" for attempt in change(read_ledger())]
        write_text(ledger_file(), "".join(lines))


def _require_unsent(attempt: UploadAttempt, attempts: list[UploadAttempt], *, force: bool) -> UploadAttempt:
    """The attempt, unless its file may have reached Dacon before."""
    # By content: a copy under another name is the same submission.
    same_file = [a for a in attempts if (a.sha256, a.competition) == (attempt.sha256, attempt.competition)]
    earlier = next((a for a in reversed(same_file) if a.state not in _NOT_RECEIVED_STATES), None)
    if earlier and not force:
        raise SettingsError(
            message(
                "submit.sent-before",
                "{file} was sent to Dacon at {time}: {state} ({answer})",
                file=attempt.file,
                time=_local_minute(datetime.fromisoformat(earlier.time)),
                state=state_text(earlier.state),
                answer=earlier.answer,
            ),
            _look_hint(),
        )
    return attempt


def state_text(state: str) -> Message:
    """The state of an attempt, in words."""
    match state:
        case "accepted":
            return message("submit.state.accepted", "accepted")
        case "wrong":
            return message("submit.state.wrong", "wrong")
        case "quota":
            return message("submit.state.quota", "quota")
        case "not sent":
            return message("submit.state.not-sent", "not sent")
        case _:
            return message("submit.state.unknown", "unknown")


def quota_today() -> DailyQuota:
    """What went out since 00:00 KST, when Dacon's day began, and when the next one begins."""
    begin = datetime.now(_KOREA_TIME).replace(hour=0, minute=0, second=0, microsecond=0)
    states = [a.state for a in read_ledger() if datetime.fromisoformat(a.time) >= begin]
    resets = (begin + timedelta(days=1)).astimezone()
    return DailyQuota(states.count("accepted"), states.count("unknown"), resets)


# ---------------------------------------------------------------------------------- protocol


def _post_submission(
    client: httpx2.Client, attempt: UploadAttempt, content: bytes, token: str
) -> tuple[str, str]:
    """One POST; the state it leaves, and the answer, without the token.

    Only where no connection came about is it certain that Dacon has nothing: a connection that breaks, or an
    answer that does not come, may be one after the file was counted.
    """
    name = Path(attempt.file).name
    fields = {
        "cpt_id": attempt.competition, "team_name": attempt.team, "file_name": name, "memo": attempt.memo,
        "api_token": token, "api_version": "2.0",
    }  # fmt: skip
    try:
        # Never to another address: the token is a field of the body, which a redirect with 307 would send again.
        with client.stream(
            "POST", _submission_url(), data=fields, files={"file": (name, content)}, follow_redirects=False
        ) as response:
            state, answer = _classify_dacon_answer(response.status_code, _read_answer_head(response))
    except _NO_CONNECTION_ERRORS as error:
        state, answer = "not sent", in_known_words(str(error)) or type(error).__name__
    except httpx2.TimeoutException:
        state, answer = "unknown", message("submit.no-answer", "no answer in time")
    except httpx2.RequestError as error:
        state, answer = "unknown", in_known_words(str(error)) or type(error).__name__
    return state, _hide_token(answer, token)


def _submission_url() -> str:
    return os.environ.get("KOVQA_DACON_ENDPOINT", "https://openapi.dacon.io").rstrip("/") + "/submission"


def _read_answer_head(response: httpx2.Response) -> bytes:
    body = b""
    # An answer is a short JSON; a page of any length must not fill the memory.
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            break
    return body[:_MAX_ANSWER_BYTES]


def _classify_dacon_answer(status: int, body: bytes) -> tuple[str, str]:
    """The state an answer means: only what the table of docs/sources/datasets.md, D18 knows is certain."""
    try:
        answer = parse_json(body)
    except ValueError:
        answer = None
    # Only an object with status 200 is an answer of Dacon's own; a gateway's may hold the same words.
    answer = answer if isinstance(answer, dict) and status == 200 else {}
    verdict, code = answer.get("message"), answer.get("data")
    if verdict == "ok":
        return "accepted", "ok"
    if isinstance(verdict, str) and verdict in _QUOTA_MESSAGES:
        return "quota", _QUOTA_MESSAGES[verdict]
    # `type(code) is int`: True is an int too, and 1 is a code.
    if verdict == "wrong" and type(code) is int and code in _FORMAT_ERRORS:
        text = message(
            "submit.error-code", "{problem} (code {code})", problem=_FORMAT_ERRORS[code], code=code
        )
        return "wrong", text
    return "unknown", f"status {status}, {page_text(body, _MAX_ANSWER_BYTES) or 'no text'}"


def _hide_token(answer: str, token: str) -> str:
    """An answer without the token, should the service repeat it; cut only then."""
    # A page repeats it escaped for HTML, a JSON document escaped for JSON.
    hidden = str(answer)
    for spelling in (token, html.escape(token), json.dumps(token)[1:-1]):
        hidden = hidden.replace(spelling, "***")
    if hidden == answer and len(answer) <= 200:
        return answer  # a message of ours, with its key
    return hidden if len(hidden) <= 200 else hidden[:199] + "…"


def _upload_error(outcome: UploadAttempt) -> KovqaError:
    file, answer = outcome.file, outcome.answer
    if outcome.state == "wrong":
        return DataError(
            message("submit.format-refused", "Dacon refuses {file}: {answer}", file=file, answer=answer),
            message("submit.format-refused.hint", "check --sample and --predictions"),
        )
    if outcome.state == "quota":
        return AssetError(
            message("submit.quota", "Dacon did not take {file}: {answer}", file=file, answer=answer),
            message(
                "submit.quota.hint",
                "a new day begins for Dacon at {time}; the same command may be used again",
                time=_local_minute(quota_today().resets),
            ),
        )
    if outcome.state == "not sent":
        return AssetError(
            message("submit.not-sent", "Dacon cannot be reached, nothing was sent: {answer}", answer=answer),
            message("submit.not-sent.hint", "try again later"),
        )
    text = message(
        "submit.unknown",
        "{file} was sent, whether Dacon counted it is unknown: {answer}",
        file=file,
        answer=answer,
    )
    return AssetError(text, _look_hint())


def _look_hint() -> Message:
    return message(
        "submit.look.hint",
        "look at your submissions on {page}; --force sends it again",
        page=COMPETITION_PAGE,
    )


def _local_minute(moment: datetime) -> str:
    """A moment in local time."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")
