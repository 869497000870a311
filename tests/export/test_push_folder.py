"""kovqa export --push, against a hub on this machine, by the hub's own library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.export.model_origin import BaseModel, ModelOrigin
from kovqa_core.export.push_folder import find_push_target, publication_warnings, push_folder

from tests.export.hub_server import TOKEN, Hub, running_hub

CARD = "---\nlicense: mit\n---\n# Model\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running_hub() as hub:
        monkeypatch.setenv("KOVQA_HUB_ENDPOINT", hub.address)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x" / "sub").mkdir(parents=True)
    (tmp_path / "x" / "README.md").write_text(CARD, "utf-8")
    (tmp_path / "x" / "model.safetensors").write_bytes(b"\x01" * 5000)
    (tmp_path / "x" / "sub" / "data.json").write_text("{}", "utf-8")
    return tmp_path / "x"


def test_all_files_arrive_in_a_private_repository(hub: Hub, folder: Path) -> None:
    target = find_push_target("tester/vqa", public=False)
    assert (target.account, target.is_there, target.is_public) == ("tester", False, False)
    assert not hub.private  # nothing is made before people agree
    report = push_folder(folder, target, "a model")
    assert hub.private == {"tester/vqa": True}
    assert hub.files["tester/vqa"] == {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert (report.url, len(report.commit)) == (f"{hub.address}/tester/vqa", 40)
    assert not list(folder.glob(".*"))  # the folder stays as it was written


def test_a_push_that_was_interrupted_goes_on(hub: Hub, folder: Path) -> None:
    target = find_push_target("tester/vqa", public=False)
    hub.refuse = "/commit/"
    with pytest.raises(AssetError, match=r"refused; your token is …") as error:
        push_folder(folder, target, "a model")
    assert TOKEN not in str(error.value) + str(error.value.hint)
    assert not hub.files["tester/vqa"]  # files appear together or not at all
    hub.refuse, hub.requests = "", []
    push_folder(folder, find_push_target("tester/vqa", public=False), "a model")
    assert len(hub.files["tester/vqa"]) == 3
    assert not [request for request in hub.requests if request.startswith("PUT")]  # the weights were there


def test_what_is_public_is_so_only_on_purpose(hub: Hub, folder: Path) -> None:
    push_folder(folder, find_push_target("tester/open", public=True), "a model")
    assert hub.private == {"tester/open": False}
    with pytest.raises(SettingsError, match="is there, and public"):
        find_push_target("tester/open", public=False)


def test_no_token_a_wrong_one_and_a_wrong_name(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vqa", "tester/vqa@main", "../vqa"):
        with pytest.raises(SettingsError, match="is not OWNER/NAME"):
            find_push_target(name, public=False)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(AssetError) as error:
        find_push_target("tester/vqa", public=False)
    assert "hf_wrong" not in str(error.value)
    assert "nothing was written yet" in str(error.value.hint), "no folder was made that could be whole"
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(AssetError, match="no token of the hub"):
        find_push_target("tester/vqa", public=False)


def test_what_should_keep_people_from_publishing() -> None:
    origin = ModelOrigin((BaseModel("b", licence="cc-by-nc-4.0", is_gated=True),), None, None)
    assert [warning.key for warning in publication_warnings(origin, "")] == [
        "export.push-without-licence", "export.push-non-commercial", "export.push-gated",
    ]  # fmt: skip
    assert not publication_warnings(ModelOrigin((BaseModel("b", licence="apache-2.0"),), None, None), "mit")
