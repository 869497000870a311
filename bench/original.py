"""The original BEiT-3 for VQA and captioning, as the peer to compare with.

The encoder is torchscale's own (PyPI `torchscale==0.2.0`, what the published fine-tuning code
pins); around it stand the pooler and the classifier of that code. `make bench` installs
torchscale without its pins, because fairscale no longer builds: the two functions it takes from
there (activation checkpointing, sharding) and the one from timm (stochastic depth) are off in
every configuration used here, so placeholders stand in for them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType
from typing import Any, TypeVar

import torch
from kovqa_core.models.beit3.beam_search import BeamSearchSettings
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.layers import LAYER_NORM_EPS
from kovqa_core.models.beit3.pretrained_weights import original_names
from kovqa_core.models.torchvision_compat import load_torchvision
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID, PAD_ID
from torch import Tensor, nn

Original = TypeVar("Original", bound=nn.Module)
State = dict[int, dict[str, Tensor]]  # layer -> keys and values so far, [R, H, N, D/H]
_UNUSED = {"fairscale.nn": ("checkpoint_wrapper", "wrap"), "timm.models.layers": ("drop_path",)}


def _never(*_: object, **__: object) -> None:
    raise NotImplementedError("a placeholder: the benchmark uses neither fairscale nor timm")


def _placeholders() -> None:
    """Modules that torchscale imports and that nothing here calls."""
    load_torchvision()  # timm's import would fail where it does not fit torch
    for path, names in _UNUSED.items():
        with contextlib.suppress(ImportError):
            importlib.import_module(path)  # timm may be here, and another contestant
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        for name in names:
            setattr(sys.modules[path], name, _never)


def _encoder(config: ModelConfig, final_norm: bool = False) -> nn.Module:
    """torchscale's BEiT-3 with the settings of fine-tuning."""
    _placeholders()
    try:
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: the comparison needs torchscale; pip install --no-deps torchscale==0.2.0")

    size = config.dimensions
    return BEiT3(
        EncoderConfig(
            img_size=config.image_size,
            patch_size=config.patch_size,
            vocab_size=config.vocab_size,
            multiway=True,
            layernorm_embedding=False,
            normalize_output=final_norm,
            no_output_layer=True,
            drop_path_rate=0.0,
            encoder_embed_dim=size.embed_dim,
            encoder_attention_heads=size.num_heads,
            encoder_ffn_embed_dim=size.ffn_dim,
            encoder_layers=size.num_layers,
            layernorm_eps=LAYER_NORM_EPS,
        )
    )


class Pooler(nn.Module):
    """tanh of a linear layer over the normalised class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.dense = nn.Linear(width, width)
        self.activation = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, D]."""
        return self.activation(self.dense(self.norm(x[:, 0])))


class OriginalVqa(nn.Module):
    """Encoder, pooler and classifier, under the names of the published weight files."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, classes = config.dimensions.embed_dim, config.num_classes
        if classes is None:
            raise ValueError("config.num_classes must be set")
        self.beit3 = _encoder(config)
        self.pooler = Pooler(width)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width, LAYER_NORM_EPS),
            nn.GELU(),
            nn.Linear(2 * width, classes),
        )

    def forward(self, image: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """Logits [B, C]; text is padded to its full length, as the published code does."""
        seen: dict[str, Any] = self.beit3(
            textual_tokens=tokens, visual_tokens=image, text_padding_position=padding
        )
        return self.head(self.pooler(seen["encoder_out"]))


class OriginalCaption(nn.Module):
    """Encoder and the head that names words, under the names of the published weight files."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("config.vocab_size must be set")
        self.beit3 = _encoder(config, final_norm=True)
        self.mlm_head = nn.Linear(config.dimensions.embed_dim, config.vocab_size)
        self.layers = config.dimensions.num_layers

    def first(self, image: Tensor, tokens: Tensor, state: State) -> Tensor:
        """Logits of the last token behind a picture, [R, W]; fills the state with all keys and values."""
        patches, words = self.beit3.vision_embed.num_position_embeddings(), tokens.shape[1]
        mask = torch.ones(patches + words, patches + words, dtype=torch.long)
        mask[:, :patches] = 0
        mask[patches:, patches:] = torch.ones(words, words).triu(1)
        seen = self.beit3(textual_tokens=tokens, visual_tokens=image, attn_mask=mask, incremental_state=state)
        return self.mlm_head(seen["encoder_out"][:, -1])

    def then(self, tokens: Tensor, length: int, state: State) -> Tensor:
        """Logits of the last of two tokens behind `length` - 2 words and the picture in the state, [R, W]."""
        behind = state[0]["prev_key"].shape[2]
        mask = torch.zeros(2, behind + 2, dtype=torch.long)
        mask[0, -1] = 1
        places = torch.arange(length, length + 2).expand(len(tokens), 2)
        seen = self.beit3(textual_tokens=tokens, attn_mask=mask, incremental_state=state, positions=places)
        return self.mlm_head(seen["encoder_out"][:, -1])


@torch.no_grad()
def original_beam_search(
    net: OriginalCaption, image: Tensor, search: BeamSearchSettings, mask_id: int
) -> list[tuple[list[int], float]]:
    """The published way of captioning (docs/sources/beit3.md, B45 to B47): (ids, score) for each picture.

    The picture is copied for every beam and encoded for each; keys and values of images and words
    are gathered anew at every step; candidates are taken from the log-probabilities of all words.
    """
    (images, beams), wanted = (len(image), search.num_beams), 3 * search.num_beams
    rows = images * beams
    image = image.repeat_interleave(beams, 0)
    buffer = torch.full((rows, search.max_length), mask_id)
    buffer[:, 0] = BOS_ID
    totals = torch.full((images, beams), -1e9)
    totals[:, 0] = 0
    state: State = {layer: {} for layer in range(net.layers)}
    best: list[tuple[list[int], float] | None] = [None] * images
    done = [False] * images
    for length in range(2, search.max_length):  # the original's last pass, which changes nothing, is left out
        if all(done):
            break
        tokens = buffer[:, length - 2 : length]
        logits = net.first(image, tokens, state) if length == 2 else net.then(tokens, length, state)
        scores = logits.float().log_softmax(-1) + totals.view(-1, 1)
        top = scores.view(images, -1).topk(wanted)
        chosen: list[tuple[int, int, float]] = []
        for n in range(images):
            held = best[n]
            floor = top.values[n].max().item() / (search.max_length - 1) ** search.length_penalty
            done[n] = done[n] or (held is not None and floor <= held[1])
            grown: list[tuple[int, int, float]] = []
            for total, place in zip(top.values[n], top.indices[n], strict=True):
                if done[n] or len(grown) == beams:
                    break
                beam, word = divmod(place.item(), scores.shape[-1])
                row = n * beams + int(beam)
                if word == EOS_ID or length + 1 == search.max_length:
                    score = total.item() / length**search.length_penalty
                    if best[n] is None or score > best[n][1]:  # type: ignore[index]
                        best[n] = (buffer[row, 1 : length - 1].tolist(), score)
                else:
                    grown.append((row, int(word), total.item()))
            chosen += grown or [(n * beams, PAD_ID, 0.0)] * beams
        order = torch.tensor([row for row, _, _ in chosen])
        buffer = buffer[order]
        buffer[:, length - 1] = torch.tensor([word for _, word, _ in chosen])
        totals = torch.tensor([total for _, _, total in chosen]).view(images, beams)
        for kept in state.values():
            for name in ("prev_key", "prev_value"):
                kept[name] = kept[name][:, :, :-1].index_select(0, order)
    return [one for one in best if one is not None]


def original_like(net: nn.Module, original: Original) -> Original:
    """The original model, given the weights of one of ours.

    Raises:
        RuntimeError: a weight of one has no counterpart in the other.
    """
    shapes = {name: value.shape for name, value in original.named_parameters()}
    state: dict[str, Tensor] = {}
    for own, parameter in net.named_parameters():
        names = original_names(own)
        parts = parameter.detach().chunk(len(names))
        state.update({n: part.reshape(shapes[n]) for n, part in zip(names, parts, strict=True)})
    original.load_state_dict(state, strict=True)
    return original


@torch.no_grad()
def difference(original: nn.Module, ours: nn.Module, theirs: tuple[Any, ...], own: tuple[Any, ...]) -> float:
    """Largest absolute difference of the two models' logits."""
    return float((original(*theirs) - ours(*own)).abs().max())
