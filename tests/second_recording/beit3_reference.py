"""BEiT-3 as its papers and its published code compute it, without any of kovqa's shortcuts.

A function of a state dict under the original's names: q, k and v apart, a convolution over patches, every token
through every layer, no cache while decoding. Shapes as in `kovqa_core/models/family.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as f

State = Mapping[str, Tensor]
EPS, FIRST_POSITION = 1e-5, 2
MASKED = float("-inf")


class Sizes(NamedTuple):
    """What shapes do not tell."""

    heads: int
    patch: int


def norm(w: State, name: str, x: Tensor) -> Tensor:
    return f.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def linear(w: State, name: str, x: Tensor) -> Tensor:
    return f.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def multiway(x: Tensor, images: int, of_letter: Callable[[Tensor, str], Tensor]) -> Tensor:
    """Image tokens through A, text tokens through B."""
    parts = [(x[:, :images], "A"), (x[:, images:], "B")]
    return torch.cat([of_letter(part, letter) for part, letter in parts if part.shape[1]], 1)


def embed_image(w: State, sizes: Sizes, image: Tensor, hidden: Tensor | None) -> Tensor:
    name = "beit3.vision_embed"
    x = f.conv2d(image, w[f"{name}.proj.weight"], w[f"{name}.proj.bias"], stride=sizes.patch)
    x = x.flatten(2).transpose(1, 2)
    if hidden is not None:
        share = hidden.to(x.dtype)[..., None]
        x = x * (1 - share) + w[f"{name}.mask_token"] * share
    x = torch.cat([w[f"{name}.cls_token"].expand(len(x), -1, -1), x], 1)
    return x + w["beit3.encoder.embed_positions.A.weight"][FIRST_POSITION : FIRST_POSITION + x.shape[1]]


def embed_text(w: State, tokens: Tensor) -> Tensor:
    rows = w["beit3.encoder.embed_positions.B.weight"][FIRST_POSITION : FIRST_POSITION + tokens.shape[1]]
    return w["beit3.text_embed.weight"][tokens] + rows


def attention(w: State, name: str, sizes: Sizes, x: Tensor, images: int, forbidden: Tensor | None) -> Tensor:
    """Before the inner norm: [B, N, D]."""
    rows, length, width = x.shape

    def heads(which: str) -> Tensor:
        y = multiway(x, images, lambda part, letter: linear(w, f"{name}.{which}_proj.{letter}", part))
        return y.reshape(rows, length, sizes.heads, -1).transpose(1, 2)

    scores = heads("q") * (width // sizes.heads) ** -0.5 @ heads("k").transpose(2, 3)
    if forbidden is not None:
        scores = scores.masked_fill(forbidden, MASKED)
    return (scores.softmax(-1) @ heads("v")).transpose(1, 2).reshape(rows, length, width)


def encode(
    w: State, sizes: Sizes, image: Tensor | None = None, tokens: Tensor | None = None, padding: Tensor | None = None,
    *, hidden_patches: Tensor | None = None, final_norm: bool = False, is_caption: bool = False,
) -> list[Tensor]:  # fmt: skip
    """Embeddings, the state after every layer, and the output: each [B, N, D].

    Args:
        w: weights.
        sizes: heads and patch.
        image: [B, 3, S, S].
        tokens: [B, T].
        padding: [B, T], True where there is no token.
        hidden_patches: [B, P], True where the mask token replaces a patch.
        final_norm: with the norm after the last layer.
        is_caption: images see no text, and a text token only those before it.
    """
    parts = [] if image is None else [embed_image(w, sizes, image, hidden_patches)]
    images = parts[0].shape[1] if parts else 0
    parts += [] if tokens is None else [embed_text(w, tokens)]
    x = torch.cat(parts, 1)
    rows, length = x.shape[:2]
    empty = torch.zeros(rows, length, dtype=torch.bool)
    if padding is not None:
        empty[:, images:] = padding
    x = x * (1 - empty.to(x.dtype))[..., None]
    forbidden = empty[:, None, None, :]
    if is_caption:
        order = torch.arange(length)
        later = (order[None] > order[:, None]) & (order[None] >= images)
        forbidden = forbidden | later
    states = [x]
    layers = 1 + max(int(n.split(".")[3]) for n in w if n.startswith("beit3.encoder.layers."))
    for number in range(layers):
        name = f"beit3.encoder.layers.{number}"

        def through(y: Tensor, template: str, how: Callable[..., Tensor], name: str = name) -> Tensor:
            return multiway(y, images, lambda part, letter: how(w, f"{name}.{template.format(letter)}", part))

        y = through(x, "self_attn_layer_norm.{}", norm)
        y = attention(w, f"{name}.self_attn", sizes, y, images, forbidden)
        x = x + through(through(y, "self_attn.inner_attn_ln.{}", norm), "self_attn.out_proj.{}", linear)
        y = f.gelu(through(through(x, "final_layer_norm.{}", norm), "ffn.{}.fc1", linear))
        x = x + through(through(y, "ffn.{}.ffn_layernorm", norm), "ffn.{}.fc2", linear)
        states.append(x)
    if final_norm:
        x = multiway(x, images, lambda part, letter: norm(w, f"beit3.encoder.layer_norm.{letter}", part))
    return [*states, x]


def pooled(w: State, sizes: Sizes, image: Tensor, tokens: Tensor, padding: Tensor | None) -> Tensor:
    seen = encode(w, sizes, image, tokens, padding)[-1][:, 0]
    return linear(w, "pooler.dense", norm(w, "pooler.norm", seen)).tanh()


def vqa_logits(w: State, sizes: Sizes, image: Tensor, tokens: Tensor, padding: Tensor | None) -> Tensor:
    x = linear(w, "head.0", pooled(w, sizes, image, tokens, padding))
    return linear(w, "head.3", f.gelu(norm(w, "head.1", x)))


def vqa_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return f.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


def caption_logits(w: State, sizes: Sizes, image: Tensor, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """[B, T, V]."""
    out = encode(w, sizes, image, tokens, padding, final_norm=True, is_caption=True)[-1]
    return linear(w, "mlm_head", out[:, -tokens.shape[1] :])


def caption_loss(logits: Tensor, targets: Tensor, smoothing: float, drop: float = 0) -> Tensor:
    """Of masked tokens [N, V]; the largest losses left out.

    Args:
        logits: of the masked tokens.
        targets: their right ids.
        smoothing: of the labels.
        drop: fraction of the losses.
    """
    wanted = torch.full_like(logits, smoothing / (logits.shape[1] - 1))
    wanted[torch.arange(len(targets)), targets] = 1 - smoothing
    losses = f.kl_div(logits.log_softmax(-1), wanted, reduction="none").sum(1)
    return losses.sort().values[: int(len(losses) * (1 - drop))].mean()


# ------------------------------------------------------------------------------------- training


def parameter_rule(name: str, ndim: int, case: Mapping[str, Any]) -> tuple[float, float]:
    """Weight decay and learning rate factor of a parameter, in one of the recorded settings."""
    no_decay = ndim <= 1 or name.endswith(".bias") or name in (
        "beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.cls_token", "logit_scale",
    )  # fmt: skip
    if case["layer_decay"] < 1:
        # Everything that reads the layers has the head's rate.
        layer = case["num_layers"] + 1
        if "embed" in name:
            layer = 0
        elif ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0]) + 1
        scale = case["layer_decay"] ** (case["num_layers"] + 1 - layer)
    else:
        scale = case["task_head_lr_weight"] if case["task_head_lr_weight"] > 1 and name[:4] == "head" else 1.0
    return 0.0 if no_decay else case["weight_decay"], scale


def adamw(w: dict[str, Tensor], case: Mapping[str, Any]) -> torch.optim.AdamW:
    """The original's optimizer: a group for every rule; `scale` beside it."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, tensor in w.items():
        groups.setdefault(parameter_rule(name, tensor.ndim, case), []).append(tensor)
    return torch.optim.AdamW(
        [{"params": p, "weight_decay": decay, "scale": scale} for (decay, scale), p in groups.items()],
        lr=1, betas=tuple(case["betas"]), eps=case["eps"],
    )  # fmt: skip


def step(optimizer: torch.optim.Optimizer, w: State, rate: float, clip: float | None) -> float:
    """One update; the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    held = [p for p in w.values() if p.grad is not None]
    total = torch.nn.utils.clip_grad_norm_(held, float("inf") if clip is None else clip).item()
    optimizer.step()
    optimizer.zero_grad()
    return total


def leaves(w: State) -> dict[str, Tensor]:
    """A copy that gradients are taken of."""
    return {name: tensor.clone().requires_grad_() for name, tensor in w.items()}


# ------------------------------------------------------------------------------------- decoding


class Hypothesis(NamedTuple):
    """A finished caption: buffer without padding, and its score divided by its length."""

    ids: list[int]
    score: float


def beam_search(
    w: State, sizes: Sizes, image: Tensor, mask: int, *, num_beams: int, max_len: int, length_penalty: float,
) -> Hypothesis:  # fmt: skip
    """One image [3, S, S] at a time, as the original's loop goes, each step computed from nothing."""
    beams: list[tuple[list[int], float]] = [([0], 0.0)] + [([0], -1e9)] * (num_beams - 1)
    best: Hypothesis | None = None
    for length in range(2, max_len + 1):
        tokens = torch.tensor([[*words, mask] for words, _ in beams])
        logits = caption_logits(w, sizes, image.expand(len(beams), -1, -1, -1), tokens, None)[:, -1]
        totals = logits.log_softmax(-1) + torch.tensor([score for _, score in beams])[:, None]
        top = totals.flatten().topk(min(3 * num_beams, totals.numel()))
        if best is not None and top.values[0].item() / (max_len - 1) ** length_penalty <= best.score:
            break
        going: list[tuple[list[int], float]] = []
        for score, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            beam, word = divmod(place, totals.shape[1])
            if word == 2 or length + 1 == max_len:
                found = Hypothesis([*beams[beam][0], mask], score / length**length_penalty)
                best = found if best is None or found.score > best.score else best
            else:
                going.append(([*beams[beam][0], word], score))
            if len(going) == num_beams:
                break
        if not going:
            break
        beams = going
    assert best is not None
    return best


def decoded(hypothesis: Hypothesis, max_len: int) -> list[int]:
    """As recorded: ids, the end, and padding."""
    ids = [*hypothesis.ids, 2]
    return ids + [1] * (max_len - len(ids))


def norms(w: Mapping[str, Tensor] | Sequence[tuple[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Norm and sum of every tensor, as recorded."""
    return {
        name: {"norm": tensor.detach().double().norm().item(), "sum": tensor.detach().double().sum().item()}
        for name, tensor in dict(w).items()
    }
