"""kovqa: the command line. Every file here parses words, calls one core function, shows the result."""

from kovqa_core import __version__

__all__ = ["__version__"]
