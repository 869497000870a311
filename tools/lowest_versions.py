"""The oldest versions that pyproject.toml allows, as constraints for pip; `make test-lowest` installs them.

    python tools/lowest_versions.py [--keep NAME …] > lowest.txt

A name given with --keep gets the version of constraints.txt instead: for a package whose oldest version
cannot be installed here (an old torch without a wheel for this Python, say). Libraries without a lower bound
are not constrained. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*>=\s*(?P<version>[\w.]+)")


def lowest_versions(pyproject: Path) -> dict[str, str]:
    """Library -> its lower bound: of the dependencies, and of the extras that the tests need."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["deepspeed"], *extras["serve"]]
    matches = (_REQUIREMENT.match(requirement) for requirement in requirements)
    return {match["name"]: match["version"] for match in matches if match}


def tested_versions(constraints: Path) -> dict[str, str]:
    """Library -> the version of constraints.txt."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def main() -> None:
    """Print the constraints."""
    parser = argparse.ArgumentParser(description="Oldest versions that pyproject.toml allows, for pip.")
    parser.add_argument("--keep", nargs="*", default=[], metavar="NAME", help="at constraints.txt's version")
    keep = parser.parse_args().keep
    tested = tested_versions(ROOT / "constraints.txt")
    for name, version in lowest_versions(ROOT / "pyproject.toml").items():
        print(f"{name}=={tested[name] if name in keep else version}")


if __name__ == "__main__":
    main()
