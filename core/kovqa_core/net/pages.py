"""What an error page of a server says, in one line."""

from __future__ import annotations

import html
import re


def page_text(body: bytes, max_chars: int = 200) -> str:
    """What a page says, on one line: S3's code and message, a title with its first text, or plain text."""
    text = body.decode("utf-8", errors="replace")
    s3_error = [
        match[1] for tag in ("Code", "Message") if (match := re.search(rf"<{tag}>(.*?)</{tag}>", text))
    ]
    if not s3_error:
        # What no reader sees: scripts, styles, comments; with their contents.
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->", " ", text)
        # The end of a block ends a sentence: the page becomes one line.
        text = re.sub(r"(?i)</(title|p|h\d|div)>", ". ", text)
        # `>?`: the body may be cut inside its last tag.
        text = html.unescape(re.sub(r"<[^>]*>?", " ", text))
    else:
        text = ": ".join(s3_error)
    # Printable only: a page must not steer the terminal it is quoted on.
    text = "".join(c if c.isprintable() else " " for c in text)
    text = re.sub(r"\s+", " ", re.sub(r"[\s.]*\.\s+\.", ".", text)).strip(" .")
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
