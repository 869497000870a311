"""Any repository of the hub by its id, and one fetched by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.download.asset_record import read_asset_record
from kovqa_core.download.fetch import FetchOptions, asset_folder, asset_state, fetch_asset
from kovqa_core.download.local_folder import adopt_local_folder
from kovqa_core.download.table import find_asset_entry
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.net.request import Interrupted
from kovqa_core.progress import Progress
from typer.testing import CliRunner

from kovqa_cli.main import app
from kovqa_cli.output.progress import show_progress
from tests.download.server import Server, checksums_of, contents, sha256
from tests.download.sources import COMMIT, Hub

pytestmark = pytest.mark.usefixtures("endpoints")
TENSORS = json.dumps({"w": {"dtype": "U8", "shape": [4000], "data_offsets": [0, 4000]}}).encode()
WEIGHTS = len(TENSORS).to_bytes(8, "little") + TENSORS + contents(4000)
TOKEN = "hf_asecretofthetests"


def fetch(name: str) -> Path:
    [folder] = fetch_asset(find_asset_entry(name), FetchOptions())
    return folder


def files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not path.name.startswith(".")}


@pytest.fixture
def model(server: Server, cdn: Server) -> Hub:
    """A model with weights in two forms, at a branch of its own too."""
    hub = Hub(server, cdn, "team/small-vlm")
    hub.small("config.json", b'{"a": 1}')
    hub.large("model.safetensors", WEIGHTS, good_for=9).cut = [2000]
    hub.large("pytorch_model.bin", contents(9000))
    hub.small("onnx/model.onnx", b"onnx")
    server.routes["/api/models/team/small-vlm/revision/refs%2Fpr%2F1"] = hub.listing
    return hub


# ------------------------------------------------------------------------------------- by id


def test_a_model_comes_by_its_id_with_its_size_said_before(model: Hub, cdn: Server) -> None:
    shown: list[Progress] = []
    [folder] = fetch_asset(find_asset_entry("hf:team/small-vlm"), FetchOptions(), shown.append)
    assert files(folder) == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert cdn.served["/cdn/model.safetensors"] == len(WEIGHTS), "resumed, not begun again"
    [summary] = [progress.stage for progress in shown if "files" in progress.stage]
    assert f"commit {COMMIT[:12]}: 2 files, 4.1 kB; 2 other files left aside" in summary
    assert summary.endswith("licence: apache-2.0")
    record = read_asset_record(find_asset_entry("hf:team/small-vlm"), folder)
    assert record and record.revision == COMMIT
    assert asset_state(find_asset_entry("hf:team/small-vlm")) == "here"


def test_each_revision_has_a_folder_of_its_own(model: Hub, server: Server) -> None:
    folders = [fetch(f"hf:team/small-vlm{revision}") for revision in ("", f"@{COMMIT}", "@refs/pr/1")]
    assert [folder.name for folder in folders] == [
        "small-vlm", f"small-vlm@{COMMIT}", "small-vlm@refs--pr--1",
    ]  # fmt: skip
    assert server.count("/api/models/team/small-vlm/revision/refs%2Fpr%2F1") == 1


def test_pickles_are_named_and_patterns_choose(model: Hub) -> None:
    asset = find_asset_entry("hf:team/small-vlm").model_copy(update={"only": ("*.bin", "onnx/*")})
    shown: list[Progress] = []
    [folder] = fetch_asset(asset, FetchOptions(), shown.append)
    assert files(folder) == {"pytorch_model.bin", "onnx/model.onnx"}
    assert any("pytorch_model.bin: pickles, which can hold code" in progress.stage for progress in shown)


def test_a_data_set_comes_whole_and_a_model_without_usual_weights_too(server: Server, cdn: Server) -> None:
    data = Hub(server, cdn, "team/vqa", dataset=True)
    data.small(".gitattributes", b"*")
    data.small("README.md", b"card")
    data.large("data/train-00000.parquet", contents(3000))
    assert files(fetch("hf:datasets/team/vqa")) == {"README.md", "data/train-00000.parquet"}
    other = Hub(server, cdn, "team/gguf")
    other.small("README.md", b"card")
    other.large("q4/model.gguf", contents(3000))
    assert files(fetch("hf:team/gguf")) == {"README.md", "q4/model.gguf"}


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:datasets/", "hf:a b", "hf:/a"])
def test_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is not the id of a repository") as caught:
        find_asset_entry(name)
    assert "hf:datasets/OWNER/NAME" in caught.value.hint


def test_an_unknown_id_and_a_token_of_no_use_are_explained(
    server: Server, cdn: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(server, cdn, "team/private")
    hub.needs, hub.code = TOKEN, "RepoNotFound"
    monkeypatch.setenv("HF_TOKEN", TOKEN[:-1])
    with pytest.raises(AssetError, match="team/private on the hub: 403 RepoNotFound") as caught:
        fetch("hf:team/private")
    assert "https://huggingface.co/team/private" in caught.value.hint and "HF_TOKEN" in caught.value.hint
    assert TOKEN[:-1] not in str(caught.value) + caught.value.hint


def test_a_hub_out_of_reach_names_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOVQA_HUB_ENDPOINT")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name, command in (
        ("hf:team/small-vlm", "hf download team/small-vlm --local-dir"),
        ("hf:datasets/team/vqa", "hf download team/vqa --repo-type dataset"),
        ("kobeit3", "hf download SeanForHim/KoBEiT3 --local-dir"),
    ):
        with pytest.raises(Interrupted) as caught:
            fetch(name)
        for way in (command, f"kovqa download {name} --from FOLDER", "HF_ENDPOINT", "HTTPS_PROXY"):
            assert way in caught.value.hint
        assert caught.value.exit_code == 5


def test_terms_are_accepted_repository_by_repository(model: Hub, server: Server) -> None:
    run = CliRunner().invoke
    refused = run(app, ["download", "hf:team/small-vlm"])
    assert isinstance(refused.exception, SettingsError) or refused.exit_code == 2
    assert server.requests == []
    done = run(app, ["download", "hf:team/small-vlm", "--accept-licence", "--json"])
    assert json.loads(done.stdout)["assets"][0]["name"] == "hf:team/small-vlm"
    again = run(app, ["download", "hf:team/other"])
    assert isinstance(again.exception, SettingsError) or again.exit_code == 2


def test_a_listing_says_files_and_size_and_fetches_nothing(model: Hub, cdn: Server) -> None:
    shown = json.loads(CliRunner().invoke(app, ["download", "--list", "hf:team/small-vlm", "--json"]).stdout)
    [asset] = shown["assets"]
    assert (asset["commit"], asset["size"]) == (COMMIT, len(WEIGHTS) + 8)
    assert asset["file_sizes"] == {"config.json": 8, "model.safetensors": len(WEIGHTS)}
    assert asset["left_aside"] == ["pytorch_model.bin", "onnx/model.onnx"]
    assert cdn.requests == []


# ----------------------------------------------------------------------------------- by hand


def local_repository(folder: Path, weights: bytes = WEIGHTS) -> Path:
    """What `hf download --local-dir` leaves."""
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(weights)
    (notes / "model.safetensors.metadata").write_text(f"{COMMIT}\n{sha256(WEIGHTS)}\n1764201600.0\n")
    return folder


def adopt(name: str, folder: Path, **options: bool) -> Path:
    [path] = adopt_local_folder(find_asset_entry(name), folder, FetchOptions(**options))  # type: ignore[arg-type]
    return path


def test_a_folder_fetched_by_hand_takes_its_place(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adopt("hf:team/small-vlm", local_repository(tmp_path / "받은 것"))
    assert folder == asset_folder(find_asset_entry("hf:team/small-vlm"))
    assert files(folder) == {"config.json", "model.safetensors"}
    assert checksums_of(folder / "model.safetensors")["sha256"] == sha256(WEIGHTS)
    record = read_asset_record(find_asset_entry("hf:team/small-vlm"), folder)
    assert record and record.revision == COMMIT
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("hf:team/small-vlm") == folder
    assert server.requests == []


def test_a_folder_of_the_hubs_cache_says_its_checksums(tmp_path: Path) -> None:
    cache = tmp_path / "models--team--small-vlm"
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / sha256(WEIGHTS)).write_bytes(WEIGHTS)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{sha256(WEIGHTS)}")
    folder = adopt("hf:team/small-vlm", cache)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (cache / "blobs" / sha256(WEIGHTS)).write_bytes(WEIGHTS[:-1] + b"?")
    with pytest.raises(AssetError, match=r"sha256 is .*, published is"):
        adopt("hf:team/small-vlm", cache)
    (cache / "snapshots" / "other").mkdir()
    with pytest.raises(SettingsError, match="holds 2 revisions"):
        adopt("hf:team/small-vlm", cache)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
SHARDS = json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("model.safetensors", WEIGHTS[:-100], "not a whole safetensors file"),
        ("model.safetensors", LFS, "pointer of Git LFS"),
        ("model.safetensors", b"<!doctype html><title>login</title>", "a web page"),
        ("config.json", b'{"a": ', "not JSON"),
        ("model.safetensors.index.json", SHARDS, r"it names model-00001-of-00002\.safetensors, not here"),
    ],
)
def test_a_broken_file_by_hand_is_named_and_nothing_is_taken(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AssetError, match=says) as caught:
        adopt("hf:team/small-vlm", tmp_path)
    assert name in str(caught.value)
    assert files(asset_folder(find_asset_entry("hf:team/small-vlm"))) == set()


def test_a_folder_by_hand_that_holds_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("남의 것")
    for name in ("hf:team/small-vlm", "kobeit3", "vqav2", "kowiki"):
        with pytest.raises(SettingsError, match=r"does not hold|lacks"):
            adopt(name, tmp_path)


def test_the_size_stays_in_sight_above_a_bar(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kovqa_cli.output.progress.is_interactive", lambda: True)
    with show_progress(announce=True) as on_progress:
        on_progress(Progress("team/small-vlm: 4.1 kB [note]", is_note=True))
        on_progress(Progress("model.safetensors", 10, 20, "bytes"))
    assert "team/small-vlm: 4.1 kB [note]\n" in capfd.readouterr().err


def test_a_token_is_not_sent_to_a_mirror_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own library would: it sends the token to whatever the address of the hub is."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("KOVQA_HUB_ENDPOINT", "http://mirror.example")
    with pytest.raises(
        SettingsError, match=r"Hugging Face token is not sent to mirror\.example over plain http"
    ):
        fetch("hf:team/small-vlm")
