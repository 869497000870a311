"""What AI-Hub means by an answer that is not data, and what to do. Source: docs/sources/datasets.md, D6."""

from __future__ import annotations

import os
import re

import httpx2

from kovqa_core.download.checks import is_web_page
from kovqa_core.errors import AssetError
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import Interrupted

# The form of AI-Hub's keys: any is masked, in case a page repeats ours spelled otherwise.
_UUID_PATTERN = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# Refusal -> words of its text, tried in this order: the last pattern is so wide that it must come last.
_REFUSAL_PATTERNS = {
    "expired": "유효기간.*만료|만료.*유효기간|expired",
    "old_version": "aihubshell|최신 ?버전|새로운 버전|newer version",
    "not_approved": "신청.*승인|승인.*신청|approv",
    "no_such_file": "존재하지|찾을 수 없|not found|no such",
    "bad_key": "인증|권한|api|키|key",
}

# These say nothing about the user or the file, so time may mend them.
_TRANSIENT_REFUSALS = {"html", "empty", "unknown"}


def classify_aihub_answer(status: int, body: bytes) -> str:
    """What an answer that is not data means (docs/sources/datasets.md, D6): the status says little, the text decides."""
    # A status is the last resort: 502 comes with good answers and with refusals alike.
    by_status = {401: "bad_key", 403: "no_such_file", 404: "no_such_file"}.get(status, "")
    if not body.strip():
        return by_status or "empty"
    if is_web_page(body):
        return "html"
    text = to_nfc(_decode_body(body)).lower()
    for refusal, pattern in _REFUSAL_PATTERNS.items():
        if re.search(pattern, text):
            return refusal
    return by_status or "unknown"


def _explain_refusal(refusal: str, page: str) -> tuple[Message, Message]:
    """What a refusal means, and what to do."""
    return {**_access_explanations(page), **_service_explanations(page)}[refusal]


def _access_explanations(page: str) -> dict[str, tuple[Message, Message]]:
    """Refusals that are about this user: refusal -> what it means, what to do."""
    return {
        "expired": (
            message("download.aihub-expired", "the approval has run out"),
            message("download.aihub-expired.hint", "apply again at {page}", page=page),
        ),
        "not_approved": (
            message("download.aihub-not-approved", "you are not approved for this data set"),
            message(
                "download.aihub-not-approved.hint",
                "log in, apply and wait for the approval at {page}",
                page=page,
            ),
        ),
        "bad_key": (
            message("download.aihub-bad-key", "the API key was refused"),
            message(
                "download.aihub-bad-key.hint",
                "see that AIHUB_APIKEY is the key AI-Hub mailed to you; ask for a new one at {page}",
                page=page,
            ),
        ),
    }


def _service_explanations(page: str) -> dict[str, tuple[Message, Message]]:
    """Refusals that are about the service or the file: refusal -> what it means, what to do."""
    return {
        "old_version": (
            message(
                "download.aihub-old-version",
                "AI-Hub wants a newer protocol than {version}",
                version=protocol_version(),
            ),
            message(
                "download.aihub-old-version.hint",
                "set KOVQA_AIHUB_VERSION to the version of the newest aihubshell, or update kovqa",
            ),
        ),
        "no_such_file": (
            message("download.aihub-no-file", "withdrawn, not open, or no such file"),
            message("download.aihub-no-file.hint", "see whether it is still offered at {page}", page=page),
        ),
        "html": (
            message("download.aihub-page", "a web page came instead of data"),
            message(
                "download.aihub-page.hint",
                "AI-Hub may be under maintenance; look at {page} and run the same command again",
                page=page,
            ),
        ),
        "empty": (
            message("download.aihub-empty", "an empty answer"),
            message("download.aihub-empty.hint", "run the same command again later; see {page}", page=page),
        ),
        "unknown": (
            message("download.aihub-unknown", "an answer that is not data"),
            message("download.aihub-unknown.hint", "see {page}, and run the same command again", page=page),
        ),
    }


def aihub_refusal_error(key: int, response: httpx2.Response, body: bytes, secret: str) -> AssetError:
    """The error for an answer that is not data: `Interrupted` where time may mend it. Never shows the key."""
    refusal = classify_aihub_answer(response.status_code, body)
    meaning, hint = _explain_refusal(refusal, dataset_page(key))
    page = _mask_keys(page_text(_decode_body(body).encode()), secret)
    text = message(
        "download.aihub-refused",
        "AI-Hub {key}: {meaning} ({kind}, status {status}){page}",
        key=key,
        meaning=meaning,
        kind=refusal,
        status=response.status_code,
        page=f": {page}" if page else "",
    )
    # An empty answer, or a page with 5xx, is a gateway's trouble; with another status it is AI-Hub's own answer.
    is_transient = refusal in _TRANSIENT_REFUSALS and (refusal == "empty" or response.status_code >= 500)
    return Interrupted(text, hint=hint) if is_transient else AssetError(text, hint)


def _decode_body(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        # CP949 where it is not UTF-8. The text is only searched and quoted, so what fits neither is replaced.
        return body.decode("cp949", "replace")


def _mask_keys(text: str, secret: str) -> str:
    """A text without anything that looks like a key, in case the service repeats ours."""
    return _UUID_PATTERN.sub("***", text.replace(secret, "***") if secret else text)


def protocol_version() -> str:
    """The version of aihubshell whose protocol is spoken."""
    return os.environ.get("KOVQA_AIHUB_VERSION", "0.6")


def dataset_page(key: int) -> str:
    """Where people apply for a data set, and see whether it is offered."""
    return f"https://aihub.or.kr/aihubdata/data/dwld.do?dataSetSn={key}"
