"""COCO and VQA, GitHub, Wikipedia, the hub: what each does wrong in its own way."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.download.fetch import FetchOptions, asset_folder, asset_state, fetch_asset
from kovqa_core.download.find_asset import find_asset
from kovqa_core.download.hub import select_hub_files
from kovqa_core.download.local_file import adopt_local_file
from kovqa_core.download.local_folder import adopt_local_folder
from kovqa_core.download.table import find_asset_entry
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.messages import Message
from kovqa_core.net.request import Refused, RemoteFile, read_document
from kovqa_core.progress import Progress

from tests.download.aihub_server import KEY, AIHub, serving, tar_of
from tests.download.drive_server import Drive
from tests.download.server import Answer, File, Server, checksums_of, contents, sha256
from tests.download.sources import COMMIT, Hub, Kowiki, signed, tarred, zipped

pytestmark = pytest.mark.usefixtures("endpoints")
ZIP = zipped({"train2014/COCO_train2014_000000000009.jpg": contents(3000)})
WEIGHTS = contents(300_000, b"PK\x03\x04")
RELEASE = "/addf400/files/releases/download/beit3/"


def fetch(name: str, **options: object) -> list[Path]:
    return fetch_asset(find_asset_entry(name), FetchOptions(**options))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- COCO and VQA


def test_a_missing_file_says_how_to_get_it_by_hand(server: Server) -> None:
    with pytest.raises(AssetError, match=r"404 Not Found \(NoSuchKey") as caught:
        fetch("karpathy")
    assert "reported missing (404)" in caught.value.hint
    assert "kovqa download karpathy --from FILE" in caught.value.hint


def test_s3_denies(server: Server) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    server.routes["/cvmlp/vqa/mscoco/vqa/v2_Questions_Val_mscoco.zip"] = Answer(403, denied)
    with pytest.raises(AssetError, match=r"403 Forbidden \(AccessDenied: Access Denied"):
        fetch("v2_Questions_Val_mscoco.zip")


def test_another_length_or_hash_is_refused_until_allowed(server: Server, tmp_path: Path) -> None:
    server.routes["/zips/train2014.zip"] = server.routes["/zips/test2015.zip"] = File(ZIP)
    mirror = server.routes["/images.cocodataset.org/zips/train2014.zip"] = File(ZIP)
    with pytest.raises(AssetError, match="published are 13,510,573,713") as caught:
        fetch("coco-train2014")
    assert "--allow-hash-mismatch" in caught.value.hint
    assert mirror.data and server.count("/images.cocodataset.org/zips/train2014.zip") == 1, (
        "the mirror is asked too"
    )
    with pytest.raises(AssetError, match="md5 is"):
        fetch("coco-test2015")
    [folder] = fetch("coco-test2015", allow_mismatch=True)
    assert server.count("/zips/test2015.zip") == 1
    assert (next(folder.rglob("*.jpg"))).read_bytes() == contents(3000)


def test_an_archive_is_unpacked_once_and_removed(server: Server) -> None:
    path = "/people/karpathy/deepimagesent/caption_datasets.zip"
    server.routes[path] = File(zipped({"dataset_coco.json": b"{}"}))
    for _ in range(2):
        [folder] = fetch("karpathy")
        assert (folder / "dataset_coco.json").read_bytes() == b"{}"
    assert server.count(path) == 1
    assert not folder.with_name("caption_datasets.zip").exists()
    assert asset_state(find_asset_entry("karpathy")) == "here"
    fetch("karpathy", keep_archive=True, output=folder.parent / "kept")
    assert (folder.parent / "kept" / "caption_datasets.zip").exists()


def test_a_file_fetched_by_hand_is_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    local_file = tmp_path / "내려받은 파일.zip"
    local_file.write_bytes(zipped({"dataset_coco.json": b"{}"}))
    [folder] = adopt_local_file(find_asset_entry("karpathy"), local_file, FetchOptions())
    assert (folder / "dataset_coco.json").read_bytes() == b"{}"
    assert local_file.exists() and asset_state(find_asset_entry("karpathy")) == "here"
    assert fetch("karpathy") == [folder]
    assert server.requests == []
    local_file.write_bytes(b"<!DOCTYPE html><title>login</title>")
    with pytest.raises(AssetError, match="not a zip file but a web page"):
        adopt_local_file(find_asset_entry("karpathy"), local_file, FetchOptions())
    local_file.write_bytes(ZIP)
    with pytest.raises(AssetError, match="published are 13,510,573,713"):
        adopt_local_file(find_asset_entry("coco-train2014"), local_file, FetchOptions())
    with pytest.raises(SettingsError, match="none of vqav2's files"):
        adopt_local_file(find_asset_entry("vqav2"), local_file, FetchOptions())
    with pytest.raises(SettingsError, match=r"lacks caption_datasets\.zip of karpathy"):
        adopt_local_folder(find_asset_entry("karpathy"), tmp_path, FetchOptions())
    local_file.write_bytes(zipped({"dataset_coco.json": b"[]"}))
    local_file.rename(tmp_path / "caption_datasets.zip")
    [folder] = adopt_local_folder(find_asset_entry("karpathy"), tmp_path, FetchOptions())
    assert (folder / "dataset_coco.json").read_bytes() == b"[]"


def test_a_file_by_hand_is_linked_not_moved(tmp_path: Path) -> None:
    local_file = tmp_path / "beit3_base_patch16_224.zip"  # as a browser saves it
    local_file.write_bytes(WEIGHTS)
    [path] = adopt_local_file(find_asset_entry("beit3_base_patch16_224.pth"), local_file, FetchOptions())
    assert path.name == "beit3_base_patch16_224.pth" and path.samefile(local_file)
    assert find_asset("beit3_base_patch16_224.pth", Message("no weights")) == path


# --------------------------------------------------------------------------------------- GitHub


def test_an_expired_signature_is_renewed(server: Server) -> None:
    """Each cut goes back to the original address; a signature that ran out is asked for again."""
    file = File(WEIGHTS, cut=[100_000, 50_000])
    path = f"{RELEASE}beit3_base_patch16_224.pth"
    signed(server, path, file, good_for=1)
    fresh, stale = server.routes[path], Answer(302, headers={"Location": f"/objects{path}?sig=s0"})
    server.routes[path] = lambda request: stale if server.count(path) == 2 else fresh(request)  # type: ignore[operator]
    [got] = fetch("beit3_base_patch16_224.pth")
    assert got.read_bytes() == WEIGHTS
    assert server.served[f"/objects{path}"] < len(WEIGHTS) + 1000, "only the 403 besides the file"
    assert server.count(path) == 4 and server.count(f"/objects{path}") == 4


def test_a_page_in_place_of_a_release(server: Server) -> None:
    server.routes[f"{RELEASE}beit3_base_patch16_224.pth"] = Answer(
        200, b"<html><title>Sign in to GitHub</title>"
    )
    with pytest.raises(AssetError, match="a page: Sign in to GitHub"):
        fetch("beit3_base_patch16_224")


# --------------------------------------------------------------------------------------- kowiki


@pytest.fixture
def kowiki(server: Server) -> Kowiki:
    return Kowiki(server)


def test_the_newest_finished_dump_is_taken(kowiki: Kowiki) -> None:
    kowiki.add("20260101")
    kowiki.add("20260120", "in-progress")
    [path] = fetch("kowiki")
    assert path.name == "kowiki-20260101-pages-articles.xml.bz2"
    assert path.read_bytes() == Kowiki.XML
    kowiki.add("20260201")
    assert fetch("kowiki") == [path], "a newer dump is asked for by its date"
    [newer] = fetch("kowiki@20260201")
    assert newer.name == "kowiki-20260201-pages-articles.xml.bz2"


def test_a_dump_begun_is_finished_though_latest_moved(kowiki: Kowiki, server: Server) -> None:
    kowiki.add("20260101").cut = [1000, 0, 0, 0, 0]
    with pytest.raises(AssetError):
        fetch("kowiki")
    kowiki.add("20260120", data=b"another dump")
    [path] = fetch("kowiki")
    assert path.name == "kowiki-20260101-pages-articles.xml.bz2"
    assert server.starts(f"/kowiki/20260101/{path.name}")[-1] == 1000


def test_sums_stand_in_a_file_of_their_own(kowiki: Kowiki) -> None:
    kowiki.add("20260101", sums_in_status=False, data=Kowiki.XML[:-1] + b"x")
    with pytest.raises(AssetError, match="md5 is"):
        fetch("kowiki")


def test_a_truncated_dump_is_no_dump(kowiki: Kowiki) -> None:
    kowiki.add("20260101", data=Kowiki.XML[:-50])
    with pytest.raises(AssetError, match="published are"):
        fetch("kowiki")


def test_the_multistream_dump_comes_with_its_index(kowiki: Kowiki) -> None:
    kowiki.add("20260101")
    names = [path.name for path in fetch("kowiki-multistream")]
    assert names == [
        f"kowiki-20260101-pages-articles-multistream{end}" for end in (".xml.bz2", "-index.txt.bz2")
    ]


def test_the_new_layout_needs_its_success_file(kowiki: Kowiki) -> None:
    kowiki.add_content("2026-02-01", finished=False)
    with pytest.raises(AssetError, match="no finished dump"):
        fetch("kowiki-content")
    kowiki.add_content("2026-01-01")
    names = [path.name for path in fetch("kowiki-content")]
    assert names == ["kowiki-2026-01-01-p1p900.xml.bz2", "kowiki-2026-01-01-p901p1800.xml.bz2"]


def test_wikimedia_serves_two_connections(kowiki: Kowiki, server: Server) -> None:
    kowiki.add("20260101")
    server.open = 2  # others of this address are at it
    stages: list[str] = []

    def on_progress(progress: Progress) -> None:
        stages.append(progress.stage)
        if "429" in progress.stage:
            server.open -= 2  # they finish

    fetch_asset(find_asset_entry("kowiki@20260101"), FetchOptions(), on_progress)
    assert any("429 Too Many Requests" in stage for stage in stages)
    assert max(request.concurrent for request in server.requests[1:]) == 1, "we ourselves use one connection"
    with pytest.raises(Refused, match="set a user-agent"):
        read_document(RemoteFile(f"{server.url}/kowiki/20260101/dumpstatus.json", headers={"User-Agent": ""}))


def test_a_date_that_is_gone(kowiki: Kowiki) -> None:
    with pytest.raises(AssetError, match="20200101 is not finished or no longer kept"):
        fetch("kowiki@20200101")
    with pytest.raises(SettingsError, match="is not a date of a dump"):
        fetch("kowiki@yesterday")


# ------------------------------------------------------------------------------------------ hub


TOKEN = "hf_atokenofthetests"


def test_a_repository_comes_at_one_commit(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.small("config.json", b'{"a": 1}')
    hub.large("smp.model", contents(5000))
    hub.large("model.pth", WEIGHTS).cut = [100_000, 1]
    hub.small("tricks.py", b"print()")
    [folder] = fetch("kobeit3")
    assert {p.name for p in folder.iterdir() if p.name[0] != "."} == {"config.json", "smp.model", "model.pth"}
    assert (folder / "model.pth").read_bytes() == WEIGHTS
    assert cdn.served["/cdn/model.pth"] == len(WEIGHTS)
    assert checksums_of(folder / "model.pth")["sha256"] == sha256(WEIGHTS)
    assert COMMIT in (folder / ".kobeit3.asset.json").read_text()
    assert find_asset("smp.model", Message("no tokenizer")) == folder / "smp.model"


def test_a_small_file_is_checked_by_its_git_hash(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.small("config.json", b'{"a": 1}').data = b'{"a": 2}'
    with pytest.raises(AssetError, match="git is"):
        fetch("kobeit3")


def test_a_gated_repository_names_the_page(
    server: Server, cdn: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(server, cdn, "skt/KVQA", dataset=True)
    hub.needs = TOKEN
    hub.large("data/kvqa_annotations.json", b'[{"a": 1}]')
    with pytest.raises(AssetError, match="access must be asked for") as caught:
        fetch("kvqa-annotations")
    assert "https://huggingface.co/datasets/skt/KVQA" in caught.value.hint and "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyelses")
    with pytest.raises(AssetError) as caught:
        fetch("kvqa-annotations")
    assert "hf_somebodyelses" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    file = Path.home() / ".cache" / "huggingface" / "token"
    file.parent.mkdir(parents=True)
    file.write_text(TOKEN + "\n")
    [folder] = fetch("kvqa-annotations")
    assert (folder / "data" / "kvqa_annotations.json").read_bytes() == b'[{"a": 1}]'
    assert all("authorization" not in request.headers for request in cdn.requests), (
        "the token stays with the hub"
    )
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written


@pytest.mark.parametrize(("code", "hint"), [("RepoNotFound", "private"), ("RevisionNotFound", "revisions")])
def test_what_the_hub_does_not_have(server: Server, cdn: Server, code: str, hint: str) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.needs, hub.code = TOKEN, code
    with pytest.raises(AssetError, match=f"401 {code}") as caught:
        fetch("kobeit3")
    assert hint in caught.value.hint


def test_a_renamed_repository_is_followed(server: Server, cdn: Server) -> None:
    Hub(server, cdn, "new/name").large("smp.model", contents(5000))
    moved = Answer(307, headers={"Location": "/api/models/new/name/revision/main"})
    server.routes["/api/models/SeanForHim/KoBEiT3/revision/main"] = moved
    [folder] = fetch("kobeit3")
    assert (folder / "smp.model").read_bytes() == contents(5000)


def test_a_damaged_archive_of_the_hub_is_refused(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "skt/KVQA", dataset=True)
    hub.large("data/kvqa_images_0.tar.gz", contents(4000, b"\x1f\x8b\x08"))
    hub.large("data/kvqa_images_1.tar.gz", good := tarred({"b.jpg": b"image"}))
    with pytest.raises(DataError, match=r"kvqa_images_0\.tar\.gz"):
        fetch("kvqa")
    data = asset_folder(find_asset_entry("kvqa")) / "data"
    assert not (data / "kvqa_images_0").exists()
    hub.large("data/kvqa_images_0.tar.gz", tarred({"a.jpg": b"image"}))
    fetch("kvqa")
    assert (data / "kvqa_images_0" / "a.jpg").read_bytes() == b"image"
    assert cdn.served["/cdn/data/kvqa_images_1.tar.gz"] == len(good)


def test_offline_uses_what_is_here(server: Server, cdn: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(server, cdn, "SeanForHim/KoBEiT3").large("smp.model", contents(5000))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AssetError, match="HF_HUB_OFFLINE"):
        fetch("kobeit3")
    assert server.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    [folder] = fetch("kobeit3")
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("kobeit3") == [folder]
    assert server.requests == []
    (folder / "smp.model").unlink()
    with pytest.raises(AssetError, match="a file of SeanForHim/KoBEiT3"):
        fetch("kobeit3")


def test_a_mirror_that_lists_no_checksums_is_asked_for_each_file(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.lists_blobs = False
    hub.small("config.json", b'{"a": 1}').data = b'{"a": 2}'
    hub.large("smp.model", contents(5000))
    with pytest.raises(AssetError, match="git is"):
        fetch("kobeit3")
    hub.small("config.json", b'{"a": 2}')
    [folder] = fetch("kobeit3")
    assert checksums_of(folder / "smp.model")["sha256"] == sha256(contents(5000))


@pytest.mark.parametrize(
    "answer", [Answer(200, b"<html>login</html>"), Answer(200, b"[]"), Answer(200, b"{}")]
)
def test_what_is_no_hub_says_so(server: Server, answer: Answer) -> None:
    server.routes["/api/models/SeanForHim/KoBEiT3/revision/main"] = answer
    with pytest.raises(AssetError, match="not the answer of a hub") as caught:
        fetch("kobeit3")
    assert "HF_ENDPOINT" in caught.value.hint


def test_a_hub_that_is_busy_is_asked_again(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.large("smp.model", contents(5000))
    api, failures = "/api/models/SeanForHim/KoBEiT3/revision/main", [Answer(503), Answer(429)]
    listing = server.routes[api]
    assert callable(listing)
    server.routes[api] = lambda request: failures.pop() if failures else listing(request)
    [folder] = fetch("kobeit3")
    assert (folder / "smp.model").read_bytes() == contents(5000)
    assert server.count(api) == 3


def test_a_name_that_leaves_the_folder_is_refused(server: Server, cdn: Server) -> None:
    Hub(server, cdn, "SeanForHim/KoBEiT3").small("../../evil.json", b"{}")
    with pytest.raises(AssetError, match="leaves its folder"):
        fetch("kobeit3")


def test_safetensors_are_preferred() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "onnx/model.onnx"]
    assert select_hub_files(both) == ["config.json", "model.safetensors"]
    only_bin = [
        "pytorch_model-00001.bin",
        "pytorch_model.bin.index.json",
        "tokenizer.model",
        "training_args.bin",
    ]
    assert select_hub_files(only_bin) == [
        "pytorch_model-00001.bin",
        "pytorch_model.bin.index.json",
        "tokenizer.model",
    ]


# ---------------------------------------------------------------------- Google Drive and AI-Hub


def test_a_drive_archive_is_unpacked_and_not_asked_for_again(server: Server) -> None:
    data = zipped({"train.csv": b"ID,image_id,question,answer\n"})
    Drive(server, File(data), "1a9XB3r83ZCFWLOHBp8ooz3zQFl9rEIei", warning="form")
    [folder] = fetch("dacon-236118")
    assert (folder / "train.csv").read_bytes().startswith(b"ID,")
    server.requests.clear()
    assert fetch("dacon-236118") == [folder]
    assert server.requests == []


def test_aihub_files_are_chosen_and_their_archives_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = "├─ 라벨링데이터\n│   ├─ 동물.zip | 1 KB | 7\n│   └─ 식물.zip | 1 KB | 8\n"
    labels = zipped({"동물/question.json": b"[]"})
    with serving(AIHub(tree, {7: tar_of([("라벨링데이터/동물.zip", labels)])})) as hub:
        monkeypatch.setenv("KOVQA_AIHUB_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("AIHUB_APIKEY", KEY)
        for _ in range(2):
            [folder] = fetch("aihub-104", files=(7,))
        assert [path.read_bytes() for path in folder.rglob("question.json")] == [b"[]"]
        assert hub.downloads[7] == 1
    assert asset_state(find_asset_entry("aihub-104")) == "here"
