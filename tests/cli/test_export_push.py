"""kovqa export --push as a person types it: asks first, private, and only what is finished."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Kovqa
from tests.export.hub_server import TOKEN, running_hub


def test_a_model_is_published_by_one_command(kovqa: Kovqa, trained: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        env = {"KOVQA_HUB_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        words = ("export", trained, "-o", "x", "--push", "tester/vqa")
        asked = kovqa(*words, **env)
        assert asked.returncode == 2
        assert "there is no terminal" in asked.stderr
        assert not (tmp_path / "x").exists()
        assert not hub.requests

        done = kovqa(*words, "--yes", "--json", **env)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stderr + done.stdout
        assert "AI-Hub" in done.stderr  # what speaks against it is said all the same
        assert "states no licence" in done.stderr
        pushed = json.loads(done.stdout)["pushed"]
        assert pushed["url"] == f"{hub.address}/tester/vqa"
        assert hub.private == {"tester/vqa": True}
        files = {str(p.relative_to(tmp_path / "x")) for p in (tmp_path / "x").rglob("*") if p.is_file()}
        assert hub.files["tester/vqa"].keys() == files
    assert kovqa("export", trained, "-o", "y", "--public").returncode == 2
