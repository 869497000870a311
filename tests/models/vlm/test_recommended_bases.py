"""Published models to begin with: their memory is that of the plan's own count, and every figure names its source."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
from kovqa_core.models.memory import BYTES_PER_GB, USABLE_FRACTION
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.recommended_bases import (
    GPU_SIZES,
    NetworkConfig,
    base_memory,
    base_sources,
    recommended_bases,
    smallest_gpu,
    tensor_shapes,
)
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.hub_cache import asset_model

BASES = {base.name: base for base in recommended_bases()}


def test_every_figure_names_its_source() -> None:
    for base in BASES.values():
        # What is counted needs none; an empty cell is one that nobody could fill.
        assert bool(base.parameters_source) or base.config is not None, base.name
        assert bool(base.licence) == bool(base.licence_source), base.name
        assert bool(base.answering_gb) == bool(base.answering_source), base.name
        assert {score.source for score in base.korean} <= base_sources().keys()


@pytest.mark.parametrize("name", [name for name, base in BASES.items() if base.config])
def test_shapes_make_as_many_parameters_as_were_published(name: str) -> None:
    base = BASES[name]
    assert base.config is not None
    counted = sum(prod(shape) for shape in tensor_shapes(base.config).values())
    assert counted / 1e9 == pytest.approx(base.parameters, rel=0.005)


def test_shapes_are_those_of_the_networks_own_class() -> None:
    """A network of transformers by the same configuration, in miniature: its vectors and position tables apart."""
    text = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000}  # fmt: skip
    vision = {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 512,
        "patch_size": 16,
        "spatial_merge_size": 2,
    }
    ours = NetworkConfig.model_validate(
        {"text_config": {**text, "tie_word_embeddings": False}, "vision_config": {**vision, "mergers": 4}}
    )
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config={**vision, "num_heads": 4, "out_hidden_size": 256,
                                         "deepstack_visual_indexes": [0, 1, 2]},
        tie_word_embeddings=False,
    )  # fmt: skip
    net = transformers.AutoModelForImageTextToText.from_config(config)
    theirs = sum(p.numel() for n, p in net.named_parameters() if p.ndim == 2 and "pos_embed" not in n)
    assert sum(prod(shape) for shape in tensor_shapes(ours).values()) == theirs


def test_memory_grows_with_what_is_held() -> None:
    memory = base_memory(BASES["Qwen/Qwen3-VL-8B-Instruct"])
    weights = 2 * 8.77e9
    assert memory.lora is not None and memory.qlora is not None and memory.answering_4bit is not None
    assert weights < memory.answering < 1.1 * weights and memory.answering_4bit < 0.5 * memory.answering
    assert memory.answering_4bit < memory.qlora < memory.lora
    for size in GPU_SIZES:
        assert smallest_gpu(USABLE_FRACTION * size * BYTES_PER_GB) == size
    assert smallest_gpu(80 * BYTES_PER_GB) is None and smallest_gpu(None) is None


def test_the_list_says_what_fits_and_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    asset_model(tmp_path / "home", "Qwen/Qwen3-VL-8B-Instruct", tmp_path / "files")
    shown = json.loads(CliRunner().invoke(app, ["models", "--gpu-memory", "12", "--json"]).stdout)
    rows = {row["name"]: row for row in shown["models"]}
    assert "Qwen/Qwen3-VL-32B-Instruct" not in rows and "Qwen/Qwen3-VL-4B-Instruct" in rows
    eight = rows["Qwen/Qwen3-VL-8B-Instruct"]
    assert (
        eight["here"]
        and eight["smallest_gpu_gb"]["answering_4bit"] == 12
        and eight["memory_method"] == "counted"
    )
    table = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"}).stdout
    assert all(base.name in table for base in BASES.values())
