"""Images that are kept after they were decoded: few, and never one in another's place."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.data.example import AskedExample
from kovqa_core.models import image_pipeline
from kovqa_core.models.image_pipeline import ImagePipeline
from kovqa_core.settings.recipe import DataSettings
from PIL import Image

SIDE = 8


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (SIDE, SIDE), shade).save(stream, "PNG")
    return stream.getvalue()


def load(pipeline: ImagePipeline, source: bytes | Path) -> int:
    example = AskedExample("", "", "뭐?", source=source)
    pixels = pipeline.load_image(example, Path(), train=False, rng=np.random.default_rng(0))
    return int(pixels[0, 0, 0])


def test_an_image_in_memory_is_decoded_once_and_only_the_last_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image_pipeline, "_MAX_RECENT_BYTES", 3 * 3 * SIDE * SIDE)
    pipeline, decoded = ImagePipeline(SIDE, DataSettings()), []
    open_image = image_pipeline.open_image

    def note(source: bytes, *words: object, **options: bool) -> Image.Image:
        decoded.append(source)
        return open_image(source, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(image_pipeline, "open_image", note)
    order = [1, 2, 1, 3, 1, 4, 1, 2, 5]
    assert [load(pipeline, png(shade)) for shade in order] == order
    assert decoded == [png(shade) for shade in (1, 2, 3, 4, 2, 5)]  # 2 was used longest ago when 4 came
    assert len(pipeline._recent) == 3
    # A file of the same name may show something else by now.
    for shade in (6, 7):
        (tmp_path / "a.png").write_bytes(png(shade))
        assert load(pipeline, tmp_path / "a.png") == shade
    assert len(pipeline._recent) == 3
