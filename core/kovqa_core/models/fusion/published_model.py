"""A fusion model by timm and transformers: this file and the folders beside it need nothing of kovqa.

    pip install torch torchvision timm transformers safetensors pillow

    from fusion_model import FusionModel
    model = FusionModel(".")
    model.answer("image.jpg", "무슨 색인가요?")

Shapes: B batch, T question tokens, P regions of the image, D width of the question encoder, C classes, S side of the image.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer


class FusionModel:
    """The model of an exported folder.

    Args:
        folder: with config.json, question/, picture/, head.safetensors and answers.txt.
        device: where it computes.
    """

    def __init__(self, folder: str | Path = ".", device: str = "cpu") -> None:
        folder, self.device = Path(folder), torch.device(device)
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.is_grid = self.config["fusion"] == "grid"
        pooled = {"add_pooling_layer": False} if self.is_grid else {}
        self.question = AutoModel.from_pretrained(folder / "question", **pooled).eval().to(self.device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "question")
        picture = timm.create_model(f"local-dir:{folder / 'picture'}", pretrained=True)
        self.picture = picture.eval().to(self.device)
        self.head = {name: t.to(self.device) for name, t in load_file(folder / "head.safetensors").items()}
        self.encoder = self._fusion_layers().to(self.device) if self.config["transformer"] else None
        self.answers = _read_answers(folder / "answers.txt")

    def answer(self, image: str | Path | Image.Image, question: str) -> str:
        """The likeliest answer to a question."""
        return self.answers[int(self.logits([question], self.pixels(image)[None])[0].argmax())]

    @torch.inference_mode()
    def logits(self, questions: Sequence[str], pixels: Tensor) -> Tensor:
        """[B, C] of questions and of as many images, [B, 3, S, S] as `pixels` makes them."""
        texts = [unicodedata.normalize("NFC", text) for text in questions]
        # A literal </s> or <mask> in a text is the special token here, as in the original; in kovqa it is text.
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.config["max_text"], return_tensors="pt"
        ).to(self.device)
        encoded = self.question(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        features = self.picture(pixels.to(self.device))
        if self.is_grid:
            fused = self._fuse_grid(encoded.last_hidden_state, features, tokens.attention_mask == 0)
        else:
            fused = encoded.pooler_output * torch.tanh(features)
            if self.encoder is not None:
                by_example = self.config["scope"] == "sample"
                fused = self.encoder(fused[:, None] if by_example else fused[None]).reshape(fused.shape)
        hidden = self._linear("hidden", fused)
        hidden = functional.layer_norm(
            hidden, hidden.shape[1:], self.head["norm.weight"], self.head["norm.bias"]
        )
        return self._linear("out", torch.relu(hidden))

    def pixels(self, image: str | Path | Image.Image) -> Tensor:
        """[3, S, S] by the encoder's mean and deviation; proportions are not kept."""
        if not isinstance(image, Image.Image):
            image = Image.open(image)
        side = self.config["image_size"]
        resample = Image.Resampling[self.config["resample"].upper()]
        small = image.convert("RGB").resize((side, side), resample)
        values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side, 3)
        mean, std = (torch.tensor(self.config[name])[:, None, None] for name in ("mean", "std"))
        return (values.permute(2, 0, 1) / 255 - mean) / std

    def _fuse_grid(self, question: Tensor, features: Tensor, padding: Tensor) -> Tensor:
        """What the question's first token has gathered from tokens [B, T, D] and regions, [B, D]."""
        assert self.encoder is not None
        channels = self.head["regions.weight"].shape[1]
        if features.ndim == 4:  # a grid, its channels first or last
            is_first = features.shape[1] == channels
            features = features.flatten(2).transpose(1, 2) if is_first else features.flatten(1, 2)
        regions, kinds = self._linear("regions", features), self.head["kinds"]
        joined = torch.cat([question + kinds[0], regions + kinds[1]], 1)
        ignored = torch.cat([padding, padding.new_zeros(regions.shape[:2])], 1)
        return self.encoder(joined, src_key_padding_mask=ignored)[:, 0]

    def _fusion_layers(self) -> nn.TransformerEncoder:
        config = self.config
        width = self.question.config.hidden_size
        layer = nn.TransformerEncoderLayer(
            width, config["transformer_heads"], config["transformer_ffn"], batch_first=True
        )
        layers = nn.TransformerEncoder(layer, config["transformer"], enable_nested_tensor=False).eval()
        prefix = "encoder."
        layers.load_state_dict(
            {name.removeprefix(prefix): t for name, t in self.head.items() if name.startswith(prefix)}
        )
        return layers

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.head[f"{name}.weight"], self.head[f"{name}.bias"])


def _read_answers(file: Path) -> list[str]:
    """One a line; as JSON where an answer has a line end of its own."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines] if lines[0].startswith("{") else lines
