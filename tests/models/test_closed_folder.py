"""A model folder is opened by itself and offline; what lies in a file's place, or is damaged, is named in one line.

Nothing here needs an outside library to fail: each guard stands before it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from kovqa_core.errors import KovqaError, ModelError, SettingsError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.closed_folder import hub_offline, require_closed_folder
from kovqa_core.models.fusion.encoders import build_image_encoder, build_question_encoder
from kovqa_core.models.plausible_sizes import require_plausible_sizes
from kovqa_core.models.tokenizer_json import require_tokenizer_json
from kovqa_core.runs.folder import find_model_folder

from tests.hub_cache import cache_model

MARKER = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub of its own: the paths that were asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield asked
    server.shutdown()


def changed(folder: Path, name: str, **values: object) -> None:
    """Some keys of a JSON file in a folder, which need not be there yet."""
    file = folder / name
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**before, **values}), encoding="utf-8")


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("trainer"))
    return folder


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}),
        ("config.json", {"auto_map": {"AutoModelForImageTextToText": "own.Own"}, "model_type": "own"}),
        ("config.json", {"text_config": {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}}),
        ("config.json", {"vision_config": {"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}}),
        ("config.json", {"vision_config": {"architecture": " HF_hub:a/b"}}),
        ("config.json", {"vision_config": {"architecture": "local-dir:/elsewhere"}}),
        ("config.json", {"_attn_implementation": "somebody/kernel"}),
        ("config.json", {"text_config": {"attn_implementation": "somebody/kernel@main:flash"}}),
        ("config.json", {"vision_config": {"backbone": "x", "use_pretrained_backbone": True}}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "own.Own"}, "processor_class": "Own"}),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "somebody/codec"}}),
        ("tokenizer_config.json", {"tokenizer_file": "../outside.json"}),
        ("model.safetensors.index.json", {"weight_map": {"a": "../outside.safetensors"}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "/outside.safetensors"}}),
    ],
)  # fmt: skip
def test_no_folder_runs_code_or_leads_elsewhere(
    name: str, values: dict[str, object], tiny_vlm: Callable[[str], Path], tmp_path: Path, hub: list[str]
) -> None:
    """Whatever a file wishes, it is refused; the marker that its code would leave is not there, and no hub was asked."""
    folder = copied(tiny_vlm("llava"), tmp_path / "model")
    (tmp_path / "outside.json").write_text("{}", encoding="utf-8")
    (folder / "own.py").write_text(MARKER.format(str(tmp_path / "ran")), encoding="utf-8")
    changed(folder, name, **values)
    with pytest.raises(ModelError) as refused:
        family.read_model_folder(folder, "vqa")
    assert str(folder) in refused.value.message
    assert not (tmp_path / "ran").exists()
    assert hub == []


def test_other_code_beside_a_model_is_left_alone(
    tiny_vlm: Callable[[str], Path], tmp_path: Path, hub: list[str]
) -> None:
    """A way to generate of its own, and names that only a configuration remarks: the model opens, nothing runs."""
    folder = copied(tiny_vlm("llava"), tmp_path / "model")
    (folder / "custom_generate").mkdir()
    for file in ("custom_generate/generate.py", "setup.py", "own.py"):
        (folder / file).write_text(MARKER.format(str(tmp_path / "ran")), encoding="utf-8")
    changed(folder, "generation_config.json", custom_generate="own")
    changed(folder, "tokenizer_config.json", tokenizer_file="/home/author/tokenizer.json", name_or_path="a/b")
    changed(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})
    changed(folder, "config.json", _name_or_path="somebody/model", auto_map={"AutoConfig": "own.Own"})
    family.read_model_folder(folder, "vqa")
    assert not (tmp_path / "ran").exists()
    assert hub == []


def test_encoders_of_a_fusion_folder_are_names_of_the_libraries_own(tmp_path: Path, hub: list[str]) -> None:
    tiny = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}
    for config in (
        {"architecture": "hf-hub:somebody/model"}, {"architecture": f"local-dir:{tmp_path}"}, {"architecture": None},
        {"architecture": "resnet50", **tiny, "checkpoint_path": str(tmp_path / "x.pth")},
        {"architecture": "resnet50", **tiny, "pretrained_cfg": {"hf_hub_id": "somebody/model"}},
        {"architecture": "resnet50", **tiny, "pretrained": True}, {"architecture": "resnet50", "layers": 3},
    ):  # fmt: skip
        with pytest.raises(SettingsError, match="no image encoder"):
            build_image_encoder(config, 4)
    for config in (
        {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}},
        {"model_type": {}},
        {"model_type": "bert", "hidden_size": "x"},
        {"model_type": "bert", "_attn_implementation": "somebody/kernel"},
    ):
        with pytest.raises(KovqaError, match=r"no question encoder|leads out"):
            build_question_encoder(config, pooled=True)
    assert hub == []


def test_offline_means_offline(hub: list[str]) -> None:
    """The guard behind all others: within it even a plain call of the hub's own library asks nobody."""
    from huggingface_hub import hf_hub_download

    with hub_offline(), pytest.raises(Exception, match=r"(?i)offline|cache"):
        hf_hub_download("somebody/model", "config.json")
    assert hub == []


# ------------------------------------------------------------------------------ links and other things


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    """Of weights they are followed, and those of a downloaded snapshot; any other file would be copied along."""
    folder, outside = tmp_path / "model", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").symlink_to(outside)
    (folder / "inside.json").write_text("{}", encoding="utf-8")
    (folder / "config.json").symlink_to("inside.json")
    require_closed_folder(folder)
    for name in ("answers.txt", "tokenizer_config.json", "own.py", "spm.model"):
        (folder / name).symlink_to(outside)
        with pytest.raises(ModelError, match=rf"{name} is a link to .*outside, outside of its model folder"):
            require_closed_folder(folder)
        (folder / name).unlink()
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0a").write_text("{}", encoding="utf-8")
    (snapshot / "config.json").symlink_to("../../blobs/0a")
    require_closed_folder(snapshot)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def as_dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def as_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def as_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def as_empty(file: Path) -> None:
    file.write_bytes(b"")


def as_list(file: Path) -> None:
    file.write_bytes(b"[1]")


def as_huge_header(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 1 << 62) + file.read_bytes()[8:])


def with_header(**of_first: object) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        first = next(name for name in header if name != "__metadata__")
        header[first] |= of_first
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return damage


ANY = (as_folder, as_pipe, as_loop, as_dangling, as_device, as_half, as_empty)
WEIGHTS = (
    as_huge_header, with_header(data_offsets=[0, 1 << 60]), with_header(shape=[1 << 30]), with_header(shape="x"),
    with_header(dtype="Q9"),
)  # fmt: skip


def test_damaged_files_of_a_checkpoint_are_named(trained: Path, tmp_path: Path) -> None:
    """Each file × each damage, by the reading that `predict`, `train --resume` and `export` share."""
    step, number = find_model_folder(trained, "vqa"), 0
    for name in ("config.json", "kovqa.json", "answers.txt", "model.safetensors", "tokenizer/spm.model"):
        more = {"model.safetensors": WEIGHTS, "config.json": (as_list,), "kovqa.json": (as_list,)}.get(
            name, ()
        )
        for damage in (*ANY, *more):
            number += 1
            folder = copied(step, tmp_path / f"{number}")
            damage(folder / name)
            with pytest.raises(KovqaError) as named:
                family.read_model_folder(find_model_folder(folder, "vqa"), "vqa")
            assert Path(name).name in named.value.message, (name, damage)
    folder = copied(step, tmp_path / "export")
    as_pipe(folder / "config.json")
    with pytest.raises(ModelError, match=r"config\.json is a pipe"):
        export_checkpoint(folder, tmp_path / "exported")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "1"), ("format", None), ("family", 3), ("family", "own"), ("task", []), ("task", "x"), ("step", "x"),
        ("score", {}), ("model", []), ("imported", None), ("recipe", 1), ("step", True),
    ],
)  # fmt: skip
def test_swapped_types_in_kovqa_json(key: str, value: object, tmp_path: Path) -> None:
    fields = {"format": 1, "family": "beit3", "task": "vqa", key: value}
    (tmp_path / "kovqa.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"kovqa\.json: ({key}: |no model family own)"):
        read_checkpoint_info(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("config.json", {"text_config": []}, "config.json"),
        ("config.json", {"vision_feature_select_strategy": 3}, "config.json"),
        ("tokenizer_config.json", {"eos_token": {"a": 1}}, "tokenizer_config.json"),
        ("tokenizer.json", {"model": []}, "tokenizer.json"),
        ("tokenizer.json", {"added_tokens": 3}, "tokenizer.json"),
        ("processor_config.json", {"image_processor": 7}, "processor_config.json"),
        ("generation_config.json", {"max_length": "x", "temperature": [], "eos_token_id": {}}, "generation_config.json"),
    ],
)  # fmt: skip
def test_swapped_types_in_a_hugging_face_folder(
    name: str, values: dict[str, object], said: str, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(tiny_vlm("llava"), tmp_path / "model")
    changed(folder, name, **values)
    with pytest.raises(KovqaError) as named:
        family.read_model_folder(folder, "vqa")
    assert said in named.value.message
    assert "\n" not in named.value.message


def test_sizes_beyond_the_weights_are_not_made(trained: Path, tmp_path: Path) -> None:
    folder = find_model_folder(trained, "vqa")
    require_plausible_sizes(
        folder, {"num_hidden_layers": 4, "hidden_size": 512, "max_position_embeddings": 10**12}
    )
    for config in ({"num_hidden_layers": 10**9}, {"text_config": {"hidden_size": 10**12}}, {"depth": 1e30}):
        with pytest.raises(ModelError, match=r"config\.json: .* is more than the weights beside it can hold"):
            require_plausible_sizes(folder, config)


def test_merges_that_do_not_fit_their_prefix(tmp_path: Path) -> None:
    """They do not come as far as the library; three parts are one of the ways not to fit."""
    model = {
        "type": "BPE",
        "vocab": {"a": 0, "b": 1},
        "merges": [["a", "##b", "##b"]],
        "continuing_subword_prefix": "##",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"model\.continuing_subword_prefix: '##' does not begin the second part"
    ):
        require_tokenizer_json(tmp_path / "tokenizer.json")


def test_links_of_the_hubs_cache_lead_into_its_own_blobs_alone(
    tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also of files in folders of a snapshot, such as further chat templates."""
    folder = copied(tiny_vlm("llava"), tmp_path / "files")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    snapshot = cache_model(tmp_path / "cache", "team/vlm", folder)
    cache_model(tmp_path / "cache", "team/other", folder)
    require_closed_folder(snapshot)
    template = snapshot / "additional_chat_templates" / "tools.jinja"
    foreign = tmp_path / "cache" / "models--team--other" / "blobs" / template.resolve().name
    template.unlink()
    template.symlink_to(foreign)
    with pytest.raises(ModelError, match=r"tools\.jinja is a link to .*models--team--other"):
        require_closed_folder(snapshot)
