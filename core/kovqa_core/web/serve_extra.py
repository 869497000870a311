"""The libraries of a web server, which are not for everybody: an extra."""

from __future__ import annotations

from importlib.util import find_spec

from kovqa_core.errors import MachineError
from kovqa_core.messages import message

_LIBRARIES = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "duckdb": "duckdb",
}


def require_serve_extra() -> None:
    """See that they are installed.

    Raises:
        MachineError: one is missing.
    """
    for module, name in _LIBRARIES.items():
        if find_spec(module) is None:
            raise MachineError(
                message("web.missing-extra", "{library} is not installed", library=name),
                message("web.missing-extra.hint", "pip install 'kovqa[serve]'"),
            )
