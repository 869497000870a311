"""kovqa from a source tree: on the path, but not installed, so that no metadata tell its version."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from kovqa_core import __version__
from kovqa_core.machine.versions import package_versions
from kovqa_core.tokenizer import card, corpus

from tests.conftest import Small


def test_tokenizers_and_manifests_know_the_version(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str, read: object = importlib.metadata.version) -> str:
        if name == "kovqa":
            raise importlib.metadata.PackageNotFoundError(name)
        assert callable(read)
        return str(read(name))

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert card.describe_model(small.tokenizer.read_bytes()).versions["kovqa"] == __version__
    assert corpus._prepare_work_folder(tmp_path / "work", []).parent == tmp_path / "work"
    assert package_versions(["kovqa"])["kovqa"] == __version__
