"""Question encoder × picture encoder → fusion → head. Source: docs/sources/vqa_nia.md, N2 to N7.

Shapes: B batch, T tokens, N regions, D width of the question encoder, H of the head, C classes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.encoders import build_image_encoder, build_question_encoder, flatten_regions


class FusionNet(nn.Module):
    """The network.

    Args:
        config: its settings; `num_classes`, `question_config` and `picture_config` must be whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.num_classes is not None
        self.config = config
        grid = config.fusion == "grid"
        self.question: Any = build_question_encoder(config.question_config, pooled=not grid)
        width = int(config.question_config["hidden_size"])
        self.picture: Any = build_image_encoder(config.picture_config, None if grid else width)
        self.picture_drop = nn.Dropout(config.picture_dropout)
        self.encoder = _fusion_transformer(config, width) if config.transformer else None
        if grid:
            # Regions are brought to the width of the tokens and told apart from them.
            channels = cast(int, self.picture.num_features)
            self.regions = nn.Linear(channels, width)
            self.kinds = nn.Parameter(torch.zeros(2, width))
        self.hidden = nn.Linear(width, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.drop = nn.Dropout(config.head_dropout)
        self.out = nn.Linear(config.hidden_size, config.num_classes)
        weight = None if config.class_weights == "none" else torch.ones(config.num_classes)
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", weight)

    def forward(self, image: Tensor, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Logits [B, C].

        Args:
            image: normalised pixels [B, 3, S, S].
            tokens: ids [B, T].
            padding: True where there is no token [B, T]; None: nowhere.
        """
        # Channels last: what oneDNN and cuDNN are fastest with; no number changes.
        image = image.contiguous(memory_format=torch.channels_last)
        attended = torch.ones_like(tokens) if padding is None else (~padding).long()
        fused = (
            self.product(image, tokens, attended)
            if self.config.fusion == "product"
            else self.grid(image, tokens, attended, padding)
        )
        return self.out(torch.relu(self.drop(self.norm(self.hidden(fused)))))

    def product(self, image: Tensor, tokens: Tensor, attended: Tensor) -> Tensor:
        """Product of one vector a question and one a picture [B, D]."""
        asked = self.question(input_ids=tokens, attention_mask=attended).pooler_output
        fused = asked * self.picture_drop(torch.tanh(self.picture(image)))
        if self.encoder is None:
            return fused
        alone = self.config.scope == "sample"
        return self.encoder(fused[:, None] if alone else fused[None]).reshape(fused.shape)

    def grid(self, image: Tensor, tokens: Tensor, attended: Tensor, padding: Tensor | None) -> Tensor:
        """What the question's first token has gathered from tokens and regions [B, D]."""
        assert self.encoder is not None
        asked = self.question(input_ids=tokens, attention_mask=attended).last_hidden_state
        seen = self.regions(flatten_regions(self.picture(image), self.picture.num_features))
        both = torch.cat([asked + self.kinds[0], self.picture_drop(seen) + self.kinds[1]], 1)
        if padding is None:
            return self.encoder(both)[:, 0]
        hidden = torch.cat([padding, padding.new_zeros(seen.shape[:2])], 1)
        return self.encoder(both, src_key_padding_mask=hidden)[:, 0]


def _fusion_transformer(config: ModelConfig, width: int) -> nn.TransformerEncoder:
    """Post-norm layers as the original meant them."""

    def layer() -> nn.TransformerEncoderLayer:
        heads, ffn, dropout = config.transformer_heads, config.transformer_ffn, config.transformer_dropout
        return nn.TransformerEncoderLayer(width, heads, ffn, dropout, batch_first=True)

    encoder = nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False)
    # Torch would copy one layer's values into all of them.
    encoder.layers = nn.ModuleList(layer() for _ in range(config.transformer))
    encoder.num_layers = config.transformer
    return encoder
