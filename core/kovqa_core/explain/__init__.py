"""Where an answer comes from. The names are here for the command line: nothing heavy."""

from __future__ import annotations

from kovqa_core.errors import unknown_name_error
from kovqa_core.messages import message

METHODS = ("auto", "occlusion", "rollout")


def require_method(method: str) -> None:
    """See that there is such a method.

    Raises:
        SettingsError: there is not; names the nearest.
    """
    if method not in METHODS:
        raise unknown_name_error(
            message("explain.unknown-method", "unknown method '{method}'", method=method), method, METHODS
        )
