"""Models of the hub on this disk, by their names: which one is taken, and what is said where none can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.download.hub_copies import (
    HubName,
    find_hub_copy,
    hub_identity,
    hub_models_here,
    hub_name_of_path,
    is_same_hub_model,
    parse_hub_name,
)
from kovqa_core.errors import AssetError, ModelError
from kovqa_core.runs.folder import find_model_folder

from kovqa_cli.completion import complete_model
from tests.hub_cache import COMMIT, OTHER_COMMIT, asset_model, cache_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, named as users name it; and an empty folder of kovqa's."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf 홈"))
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "kovqa"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf 홈" / "hub"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What a small model folder holds, in two shards."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava"}')
    shards = [f"model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for shard in shards:
        (folder / shard).write_bytes(shard.encode())
    return folder


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("team/vlm", HubName("team/vlm")), ("team/vlm@v1.0", HubName("team/vlm", "v1.0")), ("hf:gpt2", HubName("gpt2")),
        ("hf:team/vlm@refs/pr/1", HubName("team/vlm", "refs/pr/1")), ("vlm", None), ("a/b/c", None), ("/team/vlm", None),
        ("team/..", None), ("../vlm", None), ("team/vlm@../../x", None), ("team/vlm@", None), ("팀/모델", None),
    ],
)  # fmt: skip
def test_what_is_a_name_of_the_hub(text: str, name: HubName | None) -> None:
    assert parse_hub_name(text) == name


def test_a_model_of_the_cache_is_found_by_its_branches_and_its_commit(cache: Path, files: Path) -> None:
    main = cache_model(cache, "team/vlm", files)
    (files / "config.json").write_text('{"model_type": "llava", "v": 2}')
    pull = cache_model(cache, "team/vlm", files, OTHER_COMMIT, "refs/pr/1")
    for name, folder in {
        "team/vlm": main, "team/vlm@main": main, f"team/vlm@{COMMIT}": main, f"hf:team/vlm@{COMMIT[:7]}": main,
        "team/vlm@refs/pr/1": pull, f"team/vlm@{OTHER_COMMIT[:12]}": pull,
    }.items():  # fmt: skip
        assert find_model_folder(Path(name), "vqa") == folder
    assert hub_identity(main) == f"team/vlm@{COMMIT}"
    assert list(hub_models_here()) == ["team/vlm", f"team/vlm@{OTHER_COMMIT}"]
    assert complete_model("team/vlm@") == [f"team/vlm@{OTHER_COMMIT}"]


def test_a_folder_of_that_name_comes_first_then_assets_then_the_cache(
    cache: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_model(cache, "team/vlm", files)
    asset = asset_model(tmp_path / "kovqa", "team/vlm", files)
    assert find_model_folder(Path("team/vlm"), "vqa") == asset
    assert capsys.readouterr().err == "", "the same commit twice is nothing to speak of"
    assert hub_identity(asset) == f"team/vlm@{COMMIT}"
    pinned = asset_model(tmp_path / "kovqa", "team/vlm", files, OTHER_COMMIT, "v1.0")
    assert find_model_folder(Path("team/vlm@v1.0"), "vqa") == pinned
    cache_model(cache, "team/two", files, OTHER_COMMIT)
    asset_model(tmp_path / "kovqa", "team/two", files)
    for _ in range(2):
        find_model_folder(Path("team/two"), "vqa")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "taking" in said and COMMIT[:12] in said and OTHER_COMMIT in said
    own = tmp_path / "team" / "vlm"
    own.mkdir(parents=True)
    (own / "config.json").write_text('{"model_type": "llava"}')
    assert find_model_folder(Path("team/vlm"), "vqa") == Path("team/vlm")


def test_what_is_not_here_says_how_to_fetch_it(cache: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="team/vlm is neither a folder here nor") as caught:
        find_model_folder(Path("team/vlm"), "vqa")
    assert caught.value.exit_code == 5 and "kovqa download hf:team/vlm;" in caught.value.hint
    cache_model(cache, "team/vlm", files, branch="")
    with pytest.raises(AssetError, match=rf"not its revision main; here: {COMMIT[:12]}") as caught:
        find_model_folder(Path("team/vlm"), "vqa")
    assert (
        "kovqa download hf:team/vlm" in caught.value.hint and f"team/vlm@{COMMIT[:12]}" in caught.value.hint
    )
    with pytest.raises(AssetError, match="did you mean team/vlm"):
        find_model_folder(Path("team/vlmm"), "vqa")
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError, match="no kovqa model in runs/r1"):
        find_model_folder(Path("runs/r1"), "vqa")


def test_a_half_downloaded_model_is_one_line(cache: Path, files: Path, tmp_path: Path) -> None:
    snapshot = cache_model(cache, "team/vlm", files)
    lost = snapshot / "model-00002-of-00002.safetensors"
    blob = lost.resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    with pytest.raises(AssetError, match=r"half downloaded: .* lacks model-00002-of-00002") as caught:
        find_model_folder(Path("team/vlm"), "vqa")
    assert "finish it with: kovqa download hf:team/vlm" in caught.value.hint
    for pattern, missing in (
        ("model-00002*", "model-00002"),
        ("model*", "safetensors"),
        ("config.json", "config.json"),
    ):
        for path in snapshot.glob(pattern):
            path.unlink()
        with pytest.raises(AssetError, match=r"half downloaded") as caught:
            find_model_folder(Path("team/vlm"), "vqa")
        assert missing in str(caught.value)
    asset = asset_model(tmp_path / "kovqa", "team/new", files)
    (asset / ".hf-team--new.asset.json").unlink()
    (asset / "config.json").rename(asset / "config.json.part")
    with pytest.raises(AssetError, match=r"half downloaded: .* lacks config\.json"):
        find_model_folder(Path("team/new"), "vqa")
    whole = cache_model(cache, "team/new", files)
    assert find_model_folder(Path("team/new"), "vqa") == whole, "a whole copy comes before half of one"


def test_a_path_of_another_machine_says_which_model_it_was() -> None:
    cached = f"/home/kim/.cache/huggingface/hub/models--team--vlm/snapshots/{COMMIT}"
    assert hub_name_of_path(cached) == HubName("team/vlm", COMMIT)
    assert hub_name_of_path("/data/kovqa/assets/hf/team/vlm@refs--pr--1") == HubName("team/vlm", "refs/pr/1")
    assert hub_name_of_path("/data/team/vlm") is None


def test_a_pinned_name_is_what_was_typed(cache: Path, files: Path) -> None:
    cache_model(cache, "team/vlm", files, branch="v1.0")
    pinned = f"team/vlm@{COMMIT}"
    assert all(is_same_hub_model(pinned, f"team/vlm{end}") for end in ("", f"@{COMMIT[:8]}", "@v1.0"))
    assert not any(
        is_same_hub_model(pinned, name) for name in ("team/vlm@v2", "team/other", f"team/vlm@{OTHER_COMMIT}")
    )


def test_the_hubs_own_library_finds_the_same_folder(cache: Path, files: Path) -> None:
    """Its rules are written down here a second time, for it takes half a second to be loaded."""
    cache_model(cache, "team/vlm", files)
    code = (
        "from huggingface_hub import snapshot_download as get, constants\n"
        "print(get('team/vlm', local_files_only=True))"
    )
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    ours = find_hub_copy(HubName("team/vlm"))
    assert ours is not None and theirs.strip() == str(ours.folder)
