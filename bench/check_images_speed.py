"""How many images a second `kovqa index --check-images` opens, beside a plain loop over Pillow.

    python bench/check_images_speed.py [--images 20000] [--photos DIR]

Makes JPEG photos of 640 x 480 pixels: crops of those in `--photos`, or drawn ones (smooth colours with grain). Then,
one after the other, the real command checks them all on all cores, and a loop on one core opens each with Pillow
(`Image.open`, `load`), as people do it by hand. Printed are images per second on the wall, and CPU milliseconds an
image, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (640, 480)
DIFFERENT = 1000  # photos; beyond, they are copied: every file is opened all the same
PEER = """\
import pathlib, sys
from PIL import Image
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    with Image.open(path) as image:
        image.load()
"""


def make_photos(folder: Path, count: int, sources: list[Image.Image]) -> int:
    """Write so many photos; their mean size in bytes."""
    folder.mkdir()
    rng, photos = np.random.default_rng(0), []
    for number in range(min(count, DIFFERENT)):
        source = sources[number % len(sources)]
        width, height = (max(1, int(side * rng.uniform(0.6, 0.95))) for side in source.size)
        left, top = int(rng.integers(source.width - width + 1)), int(rng.integers(source.height - height + 1))
        stream = io.BytesIO()
        crop = source.crop((left, top, left + width, top + height))
        crop.resize(SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        photos.append(stream.getvalue())
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(photos[number % len(photos)])
    return sum(map(len, photos)) // len(photos)


def draw_sources(rng: np.random.Generator) -> list[Image.Image]:
    """Smooth colours with grain: they compress like photographs."""
    sources = []
    for _ in range(64):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC), np.int16)
        sources.append(
            Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))
        )
    return sources


def seconds(argv: list[str]) -> tuple[float, float]:
    """Seconds on the wall and of CPU that a command takes, its processes included."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[:4]} ended with {process.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--photos", type=Path, help="folder of photos to cut; default: drawn ones")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    if options.photos:
        paths = sorted(path for path in options.photos.rglob("*.jpg"))
        sources = [Image.open(path).convert("RGB") for path in paths]
    else:
        sources = draw_sources(rng)
    with tempfile.TemporaryDirectory() as scratch:
        folder, table = Path(scratch) / "images", Path(scratch) / "table.csv"
        mean_size = make_photos(folder, options.images, sources)
        rows = [f"images/{path.name},무엇인가요?,예,train" for path in sorted(folder.iterdir())]
        table.write_text("image,question,answer,split\n" + "\n".join(rows) + "\n", "utf-8")
        ways = {
            "kovqa index --check-images": [
                sys.executable, "-m", "kovqa_cli", "index", "table", "--root", str(table), "--check",
                "--check-images", "-q",
            ],
            "kovqa index, without": [
                sys.executable, "-m", "kovqa_cli", "index", "table", "--root", str(table), "--check", "-q",
            ],
            "a loop over Pillow, one core": [sys.executable, "-c", PEER, str(folder)],
        }  # fmt: skip
        print(f"{options.images:,} JPEG photos of {SIZE[0]} x {SIZE[1]}, {mean_size / 1024:.0f} KiB each")
        for _ in range(options.rounds):
            for name, argv in ways.items():
                wall, cpu = seconds(argv)
                rate, milliseconds = options.images / wall, 1000 * cpu / options.images
                print(f"{name:30} {wall:7.1f} s {rate:8.0f} images/s {milliseconds:6.2f} ms CPU", flush=True)


if __name__ == "__main__":
    main()
