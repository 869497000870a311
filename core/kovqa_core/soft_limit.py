"""Limits of this process, as ulimit sets them."""

from __future__ import annotations

try:  # at the top: out of memory or files, nothing can be imported any more
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def soft_limit(name: str) -> int | None:
    """A limit of this process (setrlimit(2)); None: there is none.

    Args:
        name: of the limit: "RLIMIT_AS".
    """
    number = getattr(resource, name, None)  # macOS has not all of them, Windows none
    if number is None:
        return None
    soft = resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else int(soft)
