"""A model folder never decides that its code runs: a setting of this very command does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.plan.input_checks import require_typed_code_consent
from kovqa_core.settings.resolve import find_settings, resolve_settings
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings, parse_yaml
from safetensors.torch import save_file

from tests.conftest import VLM, Kovqa, Small, sets
from tests.tools.forked_commands import Ended, ForkedCommands

pytestmark = pytest.mark.xdist_group("remote-code")  # one run

# Harmless, and it says that it ran.
CODE = """
import os
from pathlib import Path
from transformers import LlavaConfig, LlavaForConditionalGeneration
Path(os.environ["KOVQA_TEST_MARKER"]).touch()
class OwnConfig(LlavaConfig):
    model_type = "own"
class OwnModel(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""
ALLOWED = "model.trust_remote_code=true"


class RemoteCodeCase:
    """The files of these tests: a base with code of its own, a run on it, the marker."""

    def __init__(self, folder: Path, small: Small, commands: ForkedCommands) -> None:
        self.base, self.run, self.marker = folder / "base", folder / "run", folder / "ran"
        self.small, self.commands = small, commands
        self.env = {
            "HF_HOME": str(folder / "hf"), "KOVQA_TEST_MARKER": str(self.marker), "KOVQA_HOME": str(folder / "home"),
        }  # fmt: skip

    def kovqa(self, *arguments: object) -> Ended:
        """A command; whether code ran is seen from the marker."""
        self.marker.unlink(missing_ok=True)
        return self.commands.run(arguments, self.base.parent, environment=self.env, seconds=300, inside="")

    def train(self, folder: Path, *assignments: str) -> Ended:
        settings = (*VLM, "save.every_steps=2", f"model.base={self.base}", *assignments)
        arguments = ["train", "-r", "tiny-vlm", "-p", "cpu", "--data", self.small.index, "-o", folder, "-q"]
        return self.kovqa(*arguments, *sets(*settings))

    def refused(self, done: Ended) -> str:
        """The one line, after which nothing ran."""
        assert not self.marker.exists()
        assert done.code == 3, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return line


@pytest.fixture(scope="module")
def case(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteCodeCase]:
    folder = tmp_path_factory.mktemp("code")
    # Code of a model is copied to the library's own folder, whose place it reads when it is imported.
    with ForkedCommands(environment={"HF_HOME": str(folder / "hf")}) as commands:
        yield write_case(RemoteCodeCase(folder, small, commands), tiny_vlm)


def write_case(case: RemoteCodeCase, tiny_vlm: Callable[[str], Path]) -> RemoteCodeCase:
    """Make the base, and train on it."""
    shutil.copytree(tiny_vlm("llava"), case.base)
    net = transformers.AutoModelForImageTextToText.from_pretrained(case.base)
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_file(tensors, case.base / "model.safetensors", {"format": "pt"})  # names that need no conversion
    (case.base / "own.py").write_text(CODE)
    about = json.loads((case.base / "config.json").read_text())
    about |= {
        "model_type": "own", "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"},
    }  # fmt: skip
    (case.base / "config.json").write_text(json.dumps(about))
    done = case.train(case.run, ALLOWED)
    assert done.code == 0, done.stderr
    assert case.marker.exists()
    return case


def step_that_trusts(case: RemoteCodeCase, folder: Path) -> Path:
    """A step folder whose config.json wants its code run: of an older version, or of somebody else."""
    shutil.copytree(case.run / "step-000004", folder)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert about["trust_remote_code"] is False  # the run's own permission is not stored
    (folder / "config.json").write_text(json.dumps({**about, "trust_remote_code": True}))
    return folder


def test_a_stored_permission_is_named_and_not_followed(case: RemoteCodeCase, tmp_path: Path) -> None:
    folder = step_that_trusts(case, tmp_path / "step")
    arguments = [
        "predict",
        "--model",
        folder,
        "--input",
        case.small.index / "val.jsonl",
        "-o",
        tmp_path / "o.jsonl",
    ]
    for profile in ([], ["-p", "cpu"]):
        line = case.refused(case.kovqa(*arguments, *profile))
        assert (
            f"{folder / 'config.json'} wants Python code of its base model to run (trust_remote_code)" in line
        )
        assert "--trust-remote-code" in line
    with pytest.raises(ModelError, match="wants Python code of its base model to run"):
        export_checkpoint(folder, tmp_path / "x")
    done = case.kovqa(*arguments, "-p", "cpu", "--trust-remote-code")
    assert done.code == 0, done.stderr
    assert case.marker.exists()


def test_without_a_stored_permission_nothing_runs_either(case: RemoteCodeCase, tmp_path: Path) -> None:
    for model in (case.run, case.base):
        arguments = [
            "--input",
            case.small.index / "val.jsonl",
            "-o",
            tmp_path / f"{model.name}.jsonl",
        ]
        assert "--trust-remote-code" in case.refused(case.kovqa("predict", "--model", model, *arguments))
    assert "--trust-remote-code" in case.refused(case.train(tmp_path / "run"))


def test_a_resumed_run_needs_the_permission_anew(case: RemoteCodeCase, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(case.run, folder)
    (folder / "result.json").unlink()
    (folder / "last").write_text("step-000002\n")
    text = (folder / "run.yaml").read_text(encoding="utf-8")
    (folder / "run.yaml").write_text(text.replace(str(case.run), str(folder)), encoding="utf-8")
    assert "trust_remote_code: true" not in text
    line = case.refused(case.kovqa("train", "--resume", "-o", folder, "-q"))
    assert str(case.base) in line
    assert "--trust-remote-code" in line
    done = case.kovqa("train", "--resume", "-o", folder, "-q", "--trust-remote-code")
    assert done.code == 0, done.stderr
    assert case.marker.exists()
    for name in ("config.json", "adapter/adapter_model.safetensors"):
        assert (folder / "step-000004" / name).read_bytes() == (case.run / "step-000004" / name).read_bytes()


def test_a_permission_stored_with_the_weights_to_start_from_does_not_matter(
    case: RemoteCodeCase, tmp_path: Path
) -> None:
    """Their base is named by the recipe, which alone says whether its code runs."""
    folder = step_that_trusts(case, tmp_path / "step")
    line = case.refused(case.train(tmp_path / "a", f"model.weights={folder}"))
    assert str(case.base) in line
    done = case.train(tmp_path / "b", f"model.weights={folder}", ALLOWED)
    assert done.code == 0, done.stderr


def test_a_recipe_does_not_decide_that_code_runs(tmp_path: Path) -> None:
    """Its wish is named with its place; the flag, or the same key typed by hand, is this command's own."""
    recipe = tmp_path / "mine.yaml"
    text = find_settings("recipes", "tiny-vlm").read_text(encoding="utf-8")
    recipe.write_text(text.replace("model:\n", "model:\n  trust_remote_code: true\n"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"mine\.yaml:\d+:\d+: model\.trust_remote_code: ") as refused:
        require_typed_code_consent(resolve_settings(str(recipe), "cpu"))
    assert "--trust-remote-code" in refused.value.hint
    require_typed_code_consent(resolve_settings(str(recipe), "cpu", [], {"model.trust_remote_code": True}))
    require_typed_code_consent(resolve_settings(str(recipe), "cpu", [ALLOWED]))


def test_a_family_without_code_takes_no_permission(kovqa: Kovqa, small: Small, trained: Path) -> None:
    table = small.index / "val.jsonl"
    done = kovqa("predict", "--model", trained, "--input", table, "-o", "o.jsonl", "--trust-remote-code")
    assert (done.returncode, "beit3 bring no code" in done.stderr) == (2, True)


def test_a_config_of_today_loads() -> None:
    text = ModelConfig(base="x").model_dump_json()
    assert '"trust_remote_code":false' in text
    assert build_settings(ModelConfig, parse_yaml(text, "config.json")) == ModelConfig(base="x")
    assert build_settings(ModelConfig, SettingsDocument({"base": "x"}, {})).trust_remote_code is False
