"""The lower bounds in pyproject.toml, held against what the libraries here ask for."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

HERE = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}


def lowest(name: str) -> Version:
    """The oldest version that pyproject.toml allows."""
    return min(Version(s.version) for s in ASKED[name].specifier if s.operator == ">=")


def test_protobuf_is_new_enough_for_the_message_of_sentencepiece() -> None:
    """Generated code refuses a protobuf older than the one that generated it."""
    generated = Path(
        str(distribution("sentencepiece").locate_file("sentencepiece/sentencepiece_model_pb2.py"))
    )
    told = re.search(
        r"^# Protobuf Python Version: (\S+)$", generated.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert told is not None
    assert lowest("protobuf") >= Version(told[1])


def test_the_versions_tested_are_allowed() -> None:
    lines = (HERE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    refused = [n for n, r in ASKED.items() if n in tested and not r.specifier.contains(tested[n])]
    assert refused == []


def test_transformers_is_new_enough_for_questions_as_plain_text() -> None:
    """Before 5.23 `apply_chat_template` raises ValueError at `sanitize_control_tokens`, which every chat passes."""
    assert lowest("transformers") >= Version("5.23")


# Modules that a library of pyproject.toml brings along, and that we use beside it.
BROUGHT_ALONG = {
    "h11": "uvicorn", "markupsafe": "jinja2", "pydantic_core": "pydantic", "tokenizers": "transformers",
    "torchvision": "timm",
}  # fmt: skip


def test_whatever_is_imported_is_asked_for() -> None:
    """What happens to lie in an environment need not lie in another."""
    names: dict[str, str] = {}
    for path in sorted([*(HERE / "core").rglob("*.py"), *(HERE / "kovqa_cli").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.append(node.module)
            names |= {module.partition(".")[0]: str(path.relative_to(HERE)) for module in modules}
    extras = [r for extra in PROJECT["optional-dependencies"].values() for r in map(Requirement, extra)]
    distributions = {name.lower().replace("-", "_") for name in [*ASKED, *(r.name for r in extras)]}
    modules_of = {
        "pil": "pillow", "yaml": "pyyaml", "google": "protobuf", "multipart": "python_multipart", "mlflow": "mlflow_skinny",
    }  # fmt: skip
    ours = {"kovqa", "kovqa_core", "kovqa_cli", *BROUGHT_ALONG, *sys.stdlib_module_names}
    missing = {
        name: path
        for name, path in names.items()
        if name not in ours and modules_of.get(name.lower(), name.lower()) not in distributions
    }
    assert not missing


def test_small_installations_are_parts_of_the_whole_one() -> None:
    """`requirements/` has the bounds of pyproject.toml, and each family's packages are in what is installed for it."""
    from kovqa_core.missing_packages import FAMILY_PACKAGES, REQUIREMENTS

    parts = {}
    for path in sorted((HERE / "requirements").glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        asked = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]
        assert [str(each) for each in asked] == [str(ASKED[each.name]) for each in asked]
        parts[path.stem] = {each.name.lower() for each in asked}
    assert set(parts) == {"beit3", "no-models"}
    assert not parts["beit3"] & parts["no-models"]
    beit3 = {REQUIREMENTS[module].lower() for module in FAMILY_PACKAGES["beit3"]}
    assert beit3 <= parts["beit3"] | parts["no-models"]
    assert {name.lower() for name in ASKED} - parts["beit3"] - parts["no-models"] == {
        "transformers",
        "peft",
        "timm",
    }
    assert {REQUIREMENTS[module] for packages in FAMILY_PACKAGES.values() for module in packages} <= {
        *ASKED, *BROUGHT_ALONG
    }  # fmt: skip
