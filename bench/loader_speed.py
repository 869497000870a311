"""How many images a second one core prepares, and whether that feeds the model.

    python bench/loader_speed.py [--side 640] [--image 224] [--seconds 5]

Draws JPEG photos of `--side` pixels (smooth colours with grain: they compress like photographs), and
prepares training examples from them as `kovqa train` does: decode, crop, RandAugment, tokenize,
collate. One process, one thread: times the number of loader processes is what a machine has.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from kovqa_core.data.example import Example
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.tokenizer.train import train_tokenizer
from PIL import Image

BATCH = 8
QUESTIONS = (
    "사진에 보이는 동물의 이름은 무엇인가요?",
    "이 사진에 사람이 타는 것이 있나요?",
    "벽의 색깔은 무엇인가요?",
)
PATHS = {
    "evaluation": (False, DataSettings()),
    "training, crop": (True, DataSettings(augment="crop", flip=True)),
    "training, crop and RandAugment": (True, DataSettings(augment="randaug", flip=True)),
}


def draw_photo(side: int, rng: np.random.Generator) -> Image.Image:
    """Smooth colours with grain."""
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def examples_per_second(
    processor: Beit3VqaProcessor, examples: list[Example], folder: Path, seconds: float, *, train: bool
) -> float:
    """Examples per second, counted in full batches."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        chosen = [examples[(done + i) % len(examples)] for i in range(BATCH)]
        rngs = [np.random.default_rng([done, i]) for i in range(BATCH)]
        processor.collate(
            [processor.encode(e, folder, train=train, rng=r) for e, r in zip(chosen, rngs, strict=True)]
        )
        done += BATCH
    return done / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=640, help="longer side of the photos, pixels")
    parser.add_argument("--image", type=int, default=224, help="side the model sees, pixels")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rng = np.random.default_rng(0)
        examples = []
        for number in range(64):
            draw_photo(options.side, rng).save(folder / f"{number}.jpg", quality=90)
            question = QUESTIONS[number % len(QUESTIONS)]
            examples.append(Example(str(number), f"{number}.jpg", question, {"예": 1.0}))
        (folder / "text.txt").write_text("\n".join(QUESTIONS * 5), encoding="utf-8")
        train_tokenizer([folder / "text.txt"], folder / "spm.model", 320)
        size = (folder / "0.jpg").stat().st_size / 1024
        print(
            f"JPEG photos of {options.side} x {options.side * 3 // 4} pixels, {size:.0f} kB, to {options.image}"
        )
        for name, (train, data) in PATHS.items():
            tokenizer = load_xlmr_tokenizer(folder / "spm.model")
            processor = Beit3VqaProcessor(
                ModelConfig(image_size=options.image, num_classes=1, vocab_size=999), tokenizer, ["예"], data
            )
            processor._images._free_bytes = 0  # no image is kept decoded: a real set does not fit
            speed = examples_per_second(processor, examples, folder, options.seconds, train=train)
            if processor._images._cache:
                parser.exit(1, "images were kept decoded: this would time a cache\n")
            print(f"{name:34} {speed:7.0f} a second and core")


if __name__ == "__main__":
    main()
