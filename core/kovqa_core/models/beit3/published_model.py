"""A fine-tuned BEiT-3 by torch alone: this file and the weights beside it need nothing of kovqa.

    pip install torch safetensors sentencepiece pillow

    from beit3_model import Beit3
    model = Beit3(".")
    model.answer("image.jpg", "무슨 색인가요?")   # of a model that answers questions
    model.caption("image.jpg")                    # of one that describes images

Written to be read: one image at a time, every token computed. Names of weights are those of the published code.
Shapes: P image tokens (class token first), T text tokens, D width, C classes, V vocabulary, S side of the image.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from torch.nn import functional

_HEADS_AND_LAYERS = {"tiny": (6, 3), "base": (12, 12), "large": (16, 24)}
_BOS, _EOS, _UNK = 0, 2, 3  # ids in XLM-R's layout: SentencePiece's own move up by one
_FIRST_POSITION = 2  # rows 0 and 1 of both position tables are never read, as in fairseq


class Beit3:
    """The model of an exported folder.

    Args:
        folder: with config.json, model.safetensors, tokenizer.model and, for questions, answers.txt.
        device: where it computes.
    """

    def __init__(self, folder: str | Path = ".", device: str = "cpu") -> None:
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        custom = self.config["custom"]  # width, heads, layers, feed-forward width
        self.heads: int
        self.layers: int
        self.heads, self.layers = custom[1:3] if custom else _HEADS_AND_LAYERS[self.config["size"]]
        self.device = torch.device(device)
        self.weights = {
            name: tensor.to(self.device) for name, tensor in load_file(folder / "model.safetensors").items()
        }
        self.spm = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self.answers = _read_answers(folder / "answers.txt") if self.config["num_classes"] else []

    def answer(self, image: str | Path | Image.Image, question: str) -> str:
        """The likeliest answer to a question."""
        return self.answers[int(self.answer_logits(image, question).argmax())]

    @torch.inference_mode()
    def answer_logits(self, image: str | Path | Image.Image, question: str) -> Tensor:
        """[C]; a sigmoid makes probabilities of them."""
        ids = self.ids(question)
        everything = torch.ones(self._image_length() + len(ids), self._image_length() + len(ids))
        tokens, _ = self._encode(self._pixels(image), ids, everything.bool().to(self.device))
        pooled = self._linear("pooler.dense", self._norm("pooler.norm", tokens[0])).tanh()
        hidden = functional.gelu(self._norm("head.1", self._linear("head.0", pooled)))
        return self._linear("head.3", hidden)

    def caption(self, image: str | Path | Image.Image) -> str:
        """A description, word by word the likeliest one; kovqa follows several at once (beam search)."""
        ids = [_BOS]
        while len(ids) < self.config["max_text"]:
            best = int(self.caption_logits(image, ids).argmax())
            if best == _EOS:
                break
            ids.append(best)
        return str(self.spm.decode([i - 1 for i in ids if _UNK < i <= self.spm.get_piece_size()]))

    @torch.inference_mode()
    def caption_logits(self, image: str | Path | Image.Image, ids: list[int]) -> Tensor:
        """Logits of the token after `ids`, [V]: `<mask>` in its place is predicted."""
        mask_id = self.spm.get_piece_size() + 1
        ids = [*ids, mask_id]
        count = self._image_length()
        visible = torch.ones(count + len(ids), count + len(ids), dtype=torch.bool).tril()
        visible[:count] = (
            False  # image tokens see the image alone; a text token that, itself and the text before
        )
        visible[:, :count] = True
        _, text = self._encode(self._pixels(image), ids, visible.to(self.device))
        last = self._norm("beit3.encoder.layer_norm.B", text[-1])
        return self._linear("mlm_head", last)

    def ids(self, text: str) -> list[int]:
        """`<s>`, the ids of a text (a literal `<mask>` in it is text here), `</s>`."""
        pieces = self.spm.encode(unicodedata.normalize("NFC", text))
        return [
            _BOS,
            *[piece + 1 if piece else _UNK for piece in pieces][: self.config["max_text"] - 2],
            _EOS,
        ]

    def _image_length(self) -> int:
        return (self.config["image_size"] // self.config["patch_size"]) ** 2 + 1

    def _pixels(self, image: str | Path | Image.Image) -> Tensor:
        """[3, S, S] in -1…1; proportions are not kept."""
        if not isinstance(image, Image.Image):
            image = Image.open(image)
        side = self.config["image_size"]
        small = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side, 3)
        return (pixels.permute(2, 0, 1).to(self.device) / 255 - 0.5) / 0.5

    def _encode(self, pixels: Tensor, ids: list[int], visible: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens [P, D] and text tokens [T, D] after the last layer; `visible` [N, N]: who sees whom."""
        weights, encoder = self.weights, "beit3.encoder"
        projection = weights["beit3.vision_embed.proj.weight"]
        patches = functional.conv2d(
            pixels[None], projection, weights["beit3.vision_embed.proj.bias"], self.config["patch_size"]
        )
        image = torch.cat([weights["beit3.vision_embed.cls_token"][0], patches[0].flatten(1).T])
        image = image + weights[f"{encoder}.embed_positions.A.weight"][_FIRST_POSITION:]
        text = weights["beit3.text_embed.weight"][ids]
        positions = weights[f"{encoder}.embed_positions.B.weight"]
        text = text + positions[_FIRST_POSITION : _FIRST_POSITION + len(ids)]
        for layer in range(self.layers):
            image, text = self._layer(f"{encoder}.layers.{layer}", image, text, visible)
        return image, text

    def _layer(self, layer: str, image: Tensor, text: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over both, then a feed-forward network each; A are the image's weights, B the text's."""
        streams = {"A": image, "B": text}
        normed = {m: self._norm(f"{layer}.self_attn_layer_norm.{m}", x) for m, x in streams.items()}
        q, k, v = (
            torch.cat([self._linear(f"{layer}.self_attn.{name}_proj.{m}", x) for m, x in normed.items()])
            .view(len(image) + len(text), self.heads, -1)
            .transpose(0, 1)
            for name in "qkv"
        )
        attended = functional.scaled_dot_product_attention(q, k, v, visible).transpose(0, 1).flatten(1)
        results = []
        for (m, x), seen in zip(streams.items(), attended.split([len(image), len(text)]), strict=True):
            x = x + self._linear(
                f"{layer}.self_attn.out_proj.{m}", self._norm(f"{layer}.self_attn.inner_attn_ln.{m}", seen)
            )
            hidden = self._linear(f"{layer}.ffn.{m}.fc1", self._norm(f"{layer}.final_layer_norm.{m}", x))
            inner = self._norm(f"{layer}.ffn.{m}.ffn_layernorm", functional.gelu(hidden))
            results.append(x + self._linear(f"{layer}.ffn.{m}.fc2", inner))
        return results[0], results[1]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


def _read_answers(file: Path) -> list[str]:
    """One a line; as JSON where an answer has a line end of its own."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines] if lines[0].startswith('{"answer"') else lines
