"""kovqa export --verify: the other library alone comes to the same numbers, or nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models import family
from kovqa_core.models.export_check import ExportedModel
from safetensors.torch import load_file, save_file

from tests.conftest import Small
from tests.export.untrained import write_untrained


@pytest.mark.parametrize(
    "name",
    [
        "vlm:qwen3_vl",
        pytest.param("beit3:caption", marks=pytest.mark.soak),
        pytest.param("beit3:vqa", marks=pytest.mark.soak),
        pytest.param("fusion:transformer", marks=pytest.mark.soak),
        pytest.param("fusion:grid", marks=pytest.mark.soak),
        pytest.param("vlm:llava", marks=pytest.mark.soak),
    ],
)
def test_the_other_library_comes_to_the_same_logits(
    name: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    step = write_untrained(name, small, tiny_vlm, tmp_path / "단계")
    verified = export_checkpoint(step, tmp_path / "x", verify=True).verified
    assert verified is not None
    assert verified.difference <= 1e-5
    assert verified.own_difference <= 1e-5
    assert verified.largest > 0.1


def test_nothing_is_left_where_numbers_differ_or_the_library_fails(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = write_untrained("beit3:vqa", small, tiny_vlm, tmp_path / "step")
    export_of = family.load_family("beit3").export_model

    def export_other_weights(step: Path, folder: Path, options: family.LoadOptions) -> ExportedModel:
        loading = export_of(step, folder, options)
        weights = load_file(folder / "model.safetensors")
        weights["head.3.bias"] += 0.01
        save_file(weights, folder / "model.safetensors")
        return loading

    def export_without_module(step: Path, folder: Path, options: family.LoadOptions) -> ExportedModel:
        loading = export_of(step, folder, options)
        (folder / "beit3_model.py").write_text("import kovqa_core")
        return loading

    of_family = family.load_family("beit3")
    for broken, problem in (
        (export_other_weights, "other numbers: logits differ by up to 0.01"),
        (export_without_module, "ImportError: kovqa_core is not to be needed here"),
    ):
        changed = replace(of_family, export_model=broken)
        monkeypatch.setattr(family, "load_family", lambda name, changed=changed: changed)
        with pytest.raises(ModelError, match=problem):
            export_checkpoint(step, tmp_path / "x", verify=True)
        assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_the_original_s_own_form_has_no_such_check(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--verify checks what other libraries read"):
        export_checkpoint(tmp_path / "m", tmp_path / "x", as_upstream=True, verify=True)
