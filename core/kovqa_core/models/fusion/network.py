"""Question encoder × image encoder → fusion → head. Source: docs/sources/vqa_nia.md, N2 to N7.

Shapes (models/family.py): B batch, T question tokens, P regions of the image, N = T + P, D width of the
question encoder, C classes. The names of modules are those of checkpoints: `picture` is the image encoder.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.encoders import build_image_encoder, build_question_encoder, flatten_regions

# Encoders of transformers, by model_type, to which a mask [B, 1, T, T] is the mask of their attention.
_WHOLE_MASK_TYPES = frozenset(("xlm-roberta", "roberta", "bert", "camembert"))


class FusionNet(nn.Module):
    """The network.

    Args:
        config: its settings; `num_classes`, `question_config` and `picture_config` must be complete.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.num_classes is not None
        self.config = config
        self.compiled = False
        grid = config.fusion == "grid"
        self.question: Any = build_question_encoder(config.question_config, pooled=not grid)
        width = int(config.question_config["hidden_size"])
        self.picture: Any = build_image_encoder(config.picture_config, None if grid else width)
        self.picture_drop = nn.Dropout(config.picture_dropout)
        self.encoder = _fusion_transformer(config, width) if config.transformer else None
        if grid:
            # Regions get the width of the tokens, and a vector each kind of token its own.
            channels = cast(int, self.picture.num_features)
            self.regions = nn.Linear(channels, width)
            self.kinds = nn.Parameter(torch.zeros(2, width))
        self.hidden = nn.Linear(width, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.drop = nn.Dropout(config.head_dropout)
        self.out = nn.Linear(config.hidden_size, config.num_classes)
        # A buffer, so that a checkpoint has it: who loads one has no index to count answers in.
        weight = None if config.class_weights == "none" else torch.ones(config.num_classes)
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", weight)
        # Buffers of their own, so that no step has to send them to the device; not of a checkpoint: `config` has them.
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.std)[:, None, None], persistent=False)
        for encoder in self.frozen_encoders():
            encoder.requires_grad_(False)
        self.train()

    def frozen_encoders(self) -> list[nn.Module]:
        """Those that keep the weights they came with."""
        frozen = {"none": [], "picture": [self.picture], "both": [self.picture, self.question]}
        return frozen[self.config.freeze]

    def train(self, mode: bool = True) -> FusionNet:
        """Training or not; frozen encoders always compute as they do for answers: no dropout, no moving means."""
        super().train(mode)
        for encoder in self.frozen_encoders():
            encoder.eval()
        return self

    def forward(self, image: Tensor, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Logits [B, C].

        Args:
            image: pixels [B, 3, S, S], uint8 or normalised; or what `region_features` made of them.
            tokens: ids [B, T].
            padding: True where there is no token [B, T]; None: nowhere.
        """
        if image.ndim == 4:
            image = self._normalise(image)
        if self.compiled and self.training:
            # One form of mask, and few lengths, which attention's kernels are made for.
            tokens, padding = pad_to_multiple(tokens, padding, self.question.config.pad_token_id or 0)
            torch._dynamo.maybe_mark_dynamic(image, 0)
        attended = self._attended_tokens(tokens, padding)
        fused = (
            self.fuse_product(image, tokens, attended)
            if self.config.fusion == "product"
            else self.fuse_grid(image, tokens, attended, padding)
        )
        return self.out(torch.relu(self.drop(self.norm(self.hidden(fused)))))

    def _normalise(self, image: Tensor) -> Tensor:
        image = normalise_by_mean_std(image, self.pixel_mean, self.pixel_std)
        return image.contiguous(memory_format=torch.channels_last)

    def region_features(self, image: Tensor) -> Tensor:
        """The frozen image encoder's regions of uint8 pixels [B, 3, S, S]: [B, P, channels], fp32."""
        with torch.no_grad():
            return flatten_regions(self.picture(self._normalise(image)), self.picture.num_features).float()

    def _attended_tokens(self, tokens: Tensor, padding: Tensor | None) -> Tensor | None:
        """The question encoder's mask: 1 where there is a token, the other way round than ours; None: everywhere.

        transformers makes [B, 1, T, T] of a mask [B, T] after it has read it, for which it waits for a GPU. Encoders
        that are known to take the whole mask get it.
        """
        if padding is None:
            # Others than these make positions or a mask of their own of it.
            return None if self._takes_whole_mask() else torch.ones_like(tokens)
        if not self._takes_whole_mask():
            return (~padding).long()
        return (~padding)[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)

    def _takes_whole_mask(self) -> bool:
        config = self.question.config
        return config.model_type in _WHOLE_MASK_TYPES and config._attn_implementation == "sdpa"

    def fuse_product(self, image: Tensor, tokens: Tensor, attended: Tensor | None) -> Tensor:
        """Product of one vector of the question and one of the image, [B, D]."""
        question = self.question(input_ids=tokens, attention_mask=attended).pooler_output  # [B, D]
        fused = question * self.picture_drop(torch.tanh(self.picture(image)))
        if self.encoder is None:
            return fused
        # A sequence of one token an example, [B, 1, D]; or, as the original wrote it, the batch as one
        # sequence, [1, B, D], in which examples attend to each other.
        by_example = self.config.scope == "sample"
        return self.encoder(fused[:, None] if by_example else fused[None]).reshape(fused.shape)

    def fuse_grid(
        self, image: Tensor, tokens: Tensor, attended: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        """What the question's first token has gathered from tokens and regions, [B, D]."""
        assert self.encoder is not None
        question = self.question(input_ids=tokens, attention_mask=attended).last_hidden_state  # [B, T, D]
        if image.ndim == 4:
            image = flatten_regions(self.picture(image), self.picture.num_features)
        regions = self.regions(image)  # [B, P, D]
        joined = torch.cat([question + self.kinds[0], self.picture_drop(regions) + self.kinds[1]], 1)
        if padding is None:
            return self.encoder(joined)[:, 0]
        ignored = torch.cat([padding, padding.new_zeros(regions.shape[:2])], 1)  # [B, N]
        return self.encoder(joined, src_key_padding_mask=ignored)[:, 0]


def pad_to_multiple(tokens: Tensor, padding: Tensor | None, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Ids and where there is padding [B, T], with T the next multiple of 8."""
    more = -tokens.shape[1] % 8
    padding = torch.zeros_like(tokens, dtype=torch.bool) if padding is None else padding
    return (
        nn.functional.pad(tokens, (0, more), value=pad_token_id),
        nn.functional.pad(padding, (0, more), value=True),
    )


def normalise_by_mean_std(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 pixels [B, 3, S, S] -> by the encoder's mean and deviation [3, 1, 1], fp32; floating values pass."""
    if image.is_floating_point():
        return image
    # Channels last is what oneDNN and cuDNN are fastest with; no number changes.
    return (image.to(torch.float32, memory_format=torch.channels_last) / 255 - mean) / std


def _fusion_transformer(config: ModelConfig, width: int) -> nn.TransformerEncoder:
    """Post-norm layers as the original intended them."""

    def layer() -> nn.TransformerEncoderLayer:
        heads, ffn, dropout = config.transformer_heads, config.transformer_ffn, config.transformer_dropout
        return nn.TransformerEncoderLayer(width, heads, ffn, dropout, batch_first=True)

    encoder = nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False)
    # torch copies one layer into all: each is made anew, with values of its own.
    encoder.layers = nn.ModuleList(layer() for _ in range(config.transformer))
    encoder.num_layers = config.transformer
    return encoder
