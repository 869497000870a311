"""What `kovqa view` prints: where the page is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_outcome

if TYPE_CHECKING:
    from kovqa_core.view.session import ViewSession


def print_view_ready(
    session: ViewSession, url: str, *, open_browser: bool, as_json: bool, quiet: bool
) -> None:
    """The address, once it answers; and the page in a browser, if that is wanted."""
    rows = {name: len(split) for name, split in session.inputs.splits.items()}
    notes = [
        message(
            "view.ready", "{rows:,} rows of {name}; Ctrl-C ends it", rows=sum(rows.values()), name=session.inputs.name
        )
    ]  # fmt: skip
    print_outcome(url, {"url": url, "rows": rows}, notes, as_json=as_json, quiet=quiet)
    if open_browser:
        import webbrowser

        webbrowser.open(url)
