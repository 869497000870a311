"""Checks 2, 3 and 14: a GPU computes what a CPU does: logits, gradients, whatever the batch and its length."""

from __future__ import annotations

import pytest
import torch
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.new_weights import init_weights
from torch import Tensor

from tests.conftest import Small
from tests.gpu.devices import CPU, FEW, Built, TinyVlm, autocast_on, build, on_devices, relative_difference
from tests.models.test_contract import CASES

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}  # of the largest number
TINY = {"size": "custom", "custom": [32, 2, 2, 64], "image_size": 32}
BASE = {"size": "base", "image_size": 224}
CLASSES = 16


def new_net(sizes: dict[str, object]) -> Beit3VqaNet:
    config = ModelConfig.model_validate(
        {**sizes, "vocab_size": 500, "num_classes": CLASSES, "drop_path": 0.0}
    )
    net = Beit3VqaNet(config).eval()
    init_weights(net, torch.Generator().manual_seed(0))
    return net


def random_questions(side: int, rows: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, token ids, padding: rows are shorter and shorter."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(rows, 3, side, side, generator=random) * 2 - 1
    tokens = torch.randint(4, 500, (rows, length), generator=random)
    lengths = length - torch.arange(rows) % max(1, length // 2)
    return image, tokens, torch.arange(length) >= lengths[:, None]


@pytest.mark.parametrize(
    ("device", "dtype"),
    on_devices((torch.float32, torch.bfloat16), (torch.float32, torch.bfloat16, torch.float16)),
)
@torch.no_grad()
def test_logits_agree(device: torch.device, dtype: torch.dtype) -> None:
    sizes = BASE if device.type == "cuda" else TINY
    net = new_net(sizes)
    asked = random_questions(net.encoder.patch * 14 if sizes is BASE else 32, 32, 20)
    expected = net(*asked)
    net.to(device)
    with autocast_on(device, dtype):
        actual = net(*(tensor.to(device) for tensor in asked)).float().cpu()
    assert relative_difference(actual, expected) <= TOLERANCE[dtype]
    # A class counts where the runner-up is not nearer than the tolerance: random weights are not decisive.
    best = expected.topk(2).values
    clear = best[:, 0] - best[:, 1] > 2 * TOLERANCE[dtype] * expected.abs().max()
    same = actual.argmax(1) == expected.argmax(1)
    assert same[clear].all()
    assert clear.sum() >= 4


GRADIENT_CASES = {
    "fp32": (torch.float32, 1e-3, 0.9999),
    "bf16": (torch.bfloat16, 5e-2, 0.995),
}  # dtype, relative tolerance of loss and norm, least cosine


@pytest.mark.parametrize(
    ("device", "case", "precision"),
    on_devices(
        [(case, precision) for case in FEW for precision in GRADIENT_CASES],
        [(case, precision) for case in CASES for precision in GRADIENT_CASES],
    ),
)
def test_one_step_agrees(
    small: Small, tiny_vlm: TinyVlm, device: torch.device, case: str, precision: str
) -> None:
    """Loss, gradient norm, and the direction of every parameter's gradient."""
    dtype, tolerance, least = GRADIENT_CASES[precision]
    if dtype == torch.bfloat16 and case.startswith("fusion"):
        least = 0.95  # a CNN of 8 channels, whose first layer sees every rounding after it: 0.965 on a CPU
    built = build(case, small, tiny_vlm, CPU, *without_dropout(case))
    twin = build(case, small, tiny_vlm, device, *without_dropout(case))  # of the same seed
    expected_loss, expected = one_step(built, torch.float32)
    loss, gradients = one_step(twin, dtype)
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    norms = [torch.cat([g.flatten() for g in of.values()]).norm() for of in (gradients, expected)]
    assert float(norms[0]) == pytest.approx(float(norms[1]), rel=tolerance)
    assert gradients.keys() == expected.keys()
    # Of a gradient that vanishes beside the others the direction is rounding: keys have no bias in a softmax.
    large = [name for name, g in expected.items() if g.norm() > 1e-3 * norms[1]]
    assert len(large) > len(expected) // 4
    for name in large:
        cosine = torch.cosine_similarity(gradients[name].flatten(), expected[name].flatten(), dim=0)
        assert cosine >= least, name


def without_dropout(case: str) -> tuple[str, ...]:
    """Settings by which a case draws nothing: a GPU's draws are others than a CPU's."""
    if case.startswith("vlm") and "full" not in case and "nothing" not in case:
        return ("model.lora.dropout=0",)
    return ()


def one_step(built: Built, dtype: torch.dtype) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients on the CPU, of the model in its training form but for random draws."""
    device = next(built.model.parameters()).device
    model = built.model.train()
    for module in model.modules():
        # Batch norms of four tiny images divide by deviations near zero, which no 16 bits survive.
        if isinstance(module, torch.nn.Dropout | torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
        for name in ("dropout", "attention_dropout", "p"):  # of functions, which know no module
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    with autocast_on(device, dtype):
        loss = model(built.learn, 0)["loss"]
    loss.backward()
    gradients = {n: p.grad.float().cpu() for n, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients


@pytest.mark.parametrize(
    ("device", "dtype"), on_devices((torch.float32,), (torch.float32, torch.bfloat16, torch.float16))
)
@torch.no_grad()
def test_a_grid_of_batches_and_lengths(device: torch.device, dtype: torch.dtype) -> None:
    """Odd sizes take other kernels: each question is answered as it is alone, on the CPU."""
    net = new_net(TINY)
    on_cuda = device.type == "cuda"
    for length in (2, 3, 7, 8, 13, 16, 31, 64) if on_cuda else (2, 7, 16):
        for rows in (1, 2, 3, 8, 17, 64) if on_cuda else (1, 3):
            asked = random_questions(32, rows, length, seed=rows * length)
            expected = torch.cat([net.to(CPU)(*(tensor[[row]] for tensor in asked)) for row in range(rows)])
            net.to(device)
            with autocast_on(device, dtype):
                actual = net(*(tensor.to(device) for tensor in asked))
            assert torch.isfinite(actual).all(), (rows, length)
            assert relative_difference(actual, expected) <= TOLERANCE[dtype], (rows, length)


def test_the_batches_are_those_of_the_loader(small: Small, tiny_vlm: TinyVlm) -> None:
    """The checks above would prove little on batches that no training sees."""
    built = build("beit3:vqa", small, tiny_vlm, CPU)
    assert isinstance(built.learn, ModelBatch)
    assert set(built.learn.ids) == {example.id for example in built.examples}
