"""Expected speed of a step that was counted: bytes outside products by bandwidth, plus products by their peak.

Calibrated on what timm publishes of an RTX 3090 (results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv: ViT-L/16
117.2 images a second at batch 64, ViT-B/16 393.0 at batch 192): the two shares below give both. A model, no
measurement: it knows neither caches nor clocks that fall under load.
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH_SHARE = 0.78  # of the data sheet's, that kernels outside products reach
PRODUCT_SHARE = 0.75  # of a large square product's speed, that a model's products and attention reach
LAUNCH_SECONDS = 8e-6  # of the CPU, for one operation of eager PyTorch


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        bandwidth: data sheet, bytes a second.
        product_flops: of an 8192³ product in 16 bits with sums in fp32, a second.
    """

    bandwidth: float
    product_flops: float


CARDS = {
    "H100": Card(3.35e12, 790e12),
    "A100": Card(2.04e12, 270e12),
    "RTX 3090": Card(0.936e12, 71e12),
    "T4": Card(0.32e12, 40e12),
}
PUBLISHED = {"timm-vit-large": 117.2, "timm-vit-base": 393.0}  # images a second on an RTX 3090


def examples_per_second(card: Card, other_mb: float, gflop: float) -> float:
    """Of training, as fast as the GPU itself can.

    Args:
        card: the GPU.
        other_mb: moved outside products, an example.
        gflop: of products, an example.
    """
    seconds = other_mb * 1e6 / (BANDWIDTH_SHARE * card.bandwidth) + gflop * 1e9 / (
        PRODUCT_SHARE * card.product_flops
    )
    return 1 / seconds


def launch_limit(kernels: int, micro_batch: int) -> float:
    """Examples a second at which the CPU can launch a micro-batch's kernels."""
    return micro_batch / (kernels * LAUNCH_SECONDS)
