"""New weights of BEiT-3, for training from nothing."""

from __future__ import annotations

import math
from typing import cast

from torch import Generator, nn

from kovqa_core.models.beit3.network import Beit3VqaNet, MultiwayEncoder

# Standard deviations for training from nothing, found on small models: patches and their positions begin
# large beside what the first layers add; else nothing is learned about the image for thousands of steps.
PATCH_STD, POSITION_STD, TEXT_STD = 0.4, 6.0, 0.05


def init_weights(net: nn.Module, generator: Generator) -> None:
    """New weights for training from nothing.

    | weights | values |
    |---|---|
    | Linear weights | normal, std 1/sqrt(inputs), truncated at 2 std |
    | Linear biases, class and mask tokens | 0; of the answers: the odds of one in C |
    | LayerNorm | 1 and 0 |
    | patch projection | normal, std PATCH_STD |
    | image positions; text positions and text table | normal, std POSITION_STD; TEXT_STD |

    The original draws every Linear with std 0.02 and positions from N(0, 1); that is meant
    for weights that are loaded over it, not for learning from nothing.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for encoder in (module for module in net.modules() if isinstance(module, MultiwayEncoder)):
        nn.init.normal_(encoder.patch_embed.weight, std=PATCH_STD, generator=generator)
        nn.init.normal_(encoder.vision_position_embed, std=POSITION_STD, generator=generator)
        for table in (encoder.text_embed.weight, encoder.text_position_embed):
            nn.init.normal_(table, std=TEXT_STD, generator=generator)
        nn.init.zeros_(encoder.cls_token_embed)
        nn.init.zeros_(encoder.mask_token_embed)
    if isinstance(net, Beit3VqaNet):
        answer = cast(nn.Linear, net.head[-1])
        # Its sigmoid is 1 / C; at 0 every one of the C answers would begin with one half.
        nn.init.constant_(answer.bias, -math.log(max(1, answer.out_features - 1)))
