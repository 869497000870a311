"""Compiled layers of BEiT-3: few graphs whatever comes, and the numbers of the uncompiled ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.network import (
    Beit3VqaNet,
    drop_path_rates,
    padded_text_length,
    spaced_on_gpu,
)
from kovqa_core.models.beit3.new_weights import init_weights
from torch import Tensor
from torch._dynamo.testing import CompileCounter

CONFIG = ModelConfig.model_validate(
    {"size": "custom", "custom": [32, 2, 2, 64], "image_size": 64, "vocab_size": 50, "num_classes": 7, "drop_path": 0.2}
)  # fmt: skip
MAX_GRAPHS = 4
Net = Beit3VqaNet | CaptionNet


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts graphs and runs them as they are."""
    counter, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compile(function, backend=counter, **options)
    )
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


def nets(kind: type[Net], *, checkpointing: bool) -> tuple[Net, Net]:
    """The same network compiled and not."""
    compiled, plain = kind(CONFIG), kind(CONFIG)
    init_weights(compiled, torch.Generator().manual_seed(0))
    plain.load_state_dict(compiled.state_dict())
    names = list(compiled.state_dict())
    model = Beit3Model(compiled, None)  # type: ignore[arg-type]
    model.prepare(activation_checkpointing=checkpointing, compile=True)
    assert list(compiled.state_dict()) == names  # no `_orig_mod.`: checkpoints stay readable
    return compiled, plain


def learn(net: Net, examples: int, length: int) -> Tensor:
    """Logits of a VQA batch, or hidden states of captions; every third batch has no padding."""
    random = torch.Generator().manual_seed(length)
    image = torch.rand(examples, 3, 64, 64, generator=random)
    tokens = torch.randint(4, 50, (examples, length), generator=random)
    padding = None if length % 3 == 0 else torch.arange(length).expand(examples, -1) == length - 1
    noise = torch.rand(examples, 2, 2, generator=random) if torch.is_grad_enabled() else None
    result: Tensor = (net if isinstance(net, Beit3VqaNet) else net.hidden_states)(
        image, tokens, padding, noise
    )
    return result


def answer(net: Net, examples: int, length: int) -> Tensor:
    """What answering asks of the layers."""
    if isinstance(net, Beit3VqaNet):
        return learn(net, examples, length)
    image = torch.rand(examples, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return net.encode_image(image)[-1][0]


@pytest.mark.parametrize(
    ("kind", "checkpointing", "answers_first"), [(Beit3VqaNet, True, True), (CaptionNet, False, False)]
)
def test_few_graphs_with_the_numbers_of_none(
    counter: CompileCounter, kind: type[Net], checkpointing: bool, answers_first: bool
) -> None:
    """As many whatever comes first, as in a resumed run whose evaluation was due."""
    compiled, plain = nets(kind, checkpointing=checkpointing)
    if answers_first:
        with torch.inference_mode():
            answer(compiled.eval(), 8, 9)
        compiled.train()
    before = counter.frame_count
    for examples, length in (
        (4, 5),
        (3, 12),
        (4, 17),
        (2, 64),
    ):  # rows that cannot be read make a batch smaller
        learn(compiled, examples, length).square().mean().backward()
        learn(plain, examples, length).square().mean().backward()
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    in_training = counter.frame_count - before
    # Captions: an image layer's, and a text layer's for the last layer too.
    assert in_training == (2 if kind is Beit3VqaNet else 3)
    with torch.no_grad():  # losses that are only ranked: no graph
        learn(compiled, 4, 9)
    assert counter.frame_count - before == in_training
    compiled.eval()
    plain.eval()
    with torch.inference_mode():
        # The last batch of a split is short; one example alone makes no graph.
        for examples, length in ((8, 30), (3, 17), (24, 64), (1, 9)):
            torch.testing.assert_close(
                answer(compiled, examples, length), answer(plain, examples, length), rtol=1e-4, atol=1e-5
            )
    assert counter.frame_count == MAX_GRAPHS


def test_text_is_padded_to_few_lengths() -> None:
    for image_tokens in (0, 17, 197, 577, 901):
        lengths = {padded_text_length(length, image_tokens) for length in range(1, 65)}
        assert len(lengths) <= 9
        assert all((image_tokens + length) % 8 == 0 and length >= 8 for length in lengths)
        assert all(0 <= padded_text_length(length, image_tokens) - length < 8 for length in range(8, 1000))
    assert padded_text_length(1022, 197) == 1022  # the table has no position more


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.2, 0.4])
@pytest.mark.parametrize("layers", [3, 12, 24])
def test_drop_path_rates_made_on_a_gpu_are_the_same(rate: float, layers: int) -> None:
    rates = drop_path_rates(rate, layers)
    assert torch.equal(spaced_on_gpu(rates, torch.device("cpu")), torch.tensor(rates))
