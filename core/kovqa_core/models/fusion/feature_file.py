"""Features of a frozen image encoder: computed once an image, kept in a file, read by training and its evaluations."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kovqa_core.data.image_source import ImageSource
from kovqa_core.errors import KovqaError
from kovqa_core.files import atomic_file
from kovqa_core.messages import Message, message
from kovqa_core.models.feature_request import FeatureRequest
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.image_pipeline import ImagePipeline

_NAME = "image-features-{}.npy"


@dataclass(frozen=True)
class FeatureFile:
    """Where the features [P, channels] of images are.

    Attributes:
        path: of an .npy file [images, P, channels], fp32; NaN where an image could not be read.
        rows: which is whose.
    """

    path: Path
    rows: Mapping[Path, int]

    def find(self, source: ImageSource) -> np.ndarray | None:
        """Features of an image; None of one that could not be read."""
        row = self.rows.get(source) if isinstance(source, Path) else None
        if row is None:
            return None
        features = np.array(_open_features(self.path)[row])
        return None if np.isnan(features[0, 0]) else features


@functools.lru_cache(maxsize=1)
def _open_features(path: Path) -> np.ndarray:
    """A map of the file, not its contents: processes share its pages; each opens its own, for a map cannot be sent."""
    features: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return features


def make_feature_file(
    net: FusionNet, pipeline: ImagePipeline, request: FeatureRequest
) -> tuple[FeatureFile | None, Message | None]:
    """The features of all images of a run: those of its folder, if they are still of these weights and images.

    Args:
        net: with a frozen image encoder, in evaluation or not.
        pipeline: how it sees images.
        request: which images, and where the file goes.

    Returns:
        None where the file would be larger than the recipe allows, or a stop was asked for; and what to say.
    """
    images = request.list_images()
    path = request.folder / _NAME.format(_digest(net, request, images)[:16])
    found = FeatureFile(path, {image: row for row, image in enumerate(images)})
    if _is_whole(path, len(images)):
        return found, None
    for old in request.folder.glob(_NAME.format("*")):  # of other weights or images
        old.unlink()
    blank = np.zeros((3, pipeline.side, pipeline.side), np.uint8)
    shape = (len(images), *_compute(net, request, [blank]).shape[1:])
    gigabytes = 4 * np.prod(shape, dtype=float) / 2**30
    if gigabytes > net.config.feature_cache_gb:
        return None, message(
            "fusion.too-many-features",
            "features of {images:,} images would take {needed:.1f} GB, more than model.feature_cache_gb: {most:g}: "
            "they are computed in every epoch",
            images=len(images),
            needed=gigabytes,
            most=net.config.feature_cache_gb,
        )
    try:
        with atomic_file(path) as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for features in _all_features(net, pipeline, request, images, shape[1:]):
                stream.write(np.ascontiguousarray(features, "<f4").tobytes())
    except _StoppedEarly:
        return None, None  # the loop stops after its first step, with a checkpoint
    _open_features.cache_clear()
    return found, message(
        "fusion.features-note",
        "features of {images:,} images computed once, {megabytes:,.1f} MB: {path}",
        images=len(images),
        megabytes=1024 * gigabytes,
        path=path,
    )


class _StoppedEarly(Exception):
    """Somebody asked for a stop."""


def _all_features(
    net: FusionNet,
    pipeline: ImagePipeline,
    request: FeatureRequest,
    sources: Sequence[Path],
    shape: tuple[int, ...],
) -> Iterator[np.ndarray]:
    """Features of batches of images; NaN where one cannot be read: who asks for it finds out why."""
    for start in range(0, len(sources), request.batch):
        if request.stop_requested():
            raise _StoppedEarly
        images: list[np.ndarray | None] = []
        for source in sources[start : start + request.batch]:
            try:
                images.append(pipeline.load_unchanged(source))
            except KovqaError:
                images.append(None)
        features = np.full((len(images), *shape), np.nan, np.float32)
        good = [place for place, image in enumerate(images) if image is not None]
        if good:
            features[good] = _compute(net, request, [image for image in images if image is not None])
        yield features
        request.on_progress(start + len(images), len(sources))


def _compute(net: FusionNet, request: FeatureRequest, images: Sequence[np.ndarray]) -> np.ndarray:
    pixels = torch.from_numpy(np.stack(images)).to(net.pixel_mean.device)
    with request.autocast():
        features: np.ndarray = net.region_features(pixels).cpu().numpy()
    return features


def _digest(net: FusionNet, request: FeatureRequest, images: Sequence[Path]) -> str:
    """Of whatever the features depend on: weights, how images are prepared, the arithmetic, and the images."""
    config, digest = net.config, hashlib.sha256()
    prepared = (config.image_size, config.mean, config.std, config.resample, config.image_loading)
    digest.update(repr((prepared, config.picture_config, request.precision)).encode())
    for name, tensor in net.picture.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for image in images:
        digest.update(os.fsencode(image) + b"\0")
        try:
            about = image.stat()
        except OSError:  # in a tar, or not there
            continue
        digest.update(repr((about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()


def _is_whole(path: Path, rows: int) -> bool:
    try:
        return len(np.load(path, mmap_mode="r", allow_pickle=False)) == rows
    except (OSError, ValueError):  # not there, or shorter than it says
        return False
