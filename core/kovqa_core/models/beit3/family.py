"""BEiT-3 behind the contract of `models/family.py`: visual question answering over an answer list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.assets import find_asset
from kovqa_core.data.answers import read_answers, write_answers
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import DataError, KovqaError, ModelError, SettingsError
from kovqa_core.files import nfc, read_text, write_text
from kovqa_core.models import images
from kovqa_core.models.beit3.config import PUBLISHED, Config
from kovqa_core.models.beit3.net import VqaNet, initialise
from kovqa_core.models.beit3.text import PAD, Tokenizer, load_tokenizer
from kovqa_core.models.beit3.weights import load_original, read_weights
from kovqa_core.models.family import Batch
from kovqa_core.settings.reading import Document, build, parse
from kovqa_core.settings.recipe import Data, Recipe

_CACHED_BYTES = 256 << 20  # decoded pictures a process may keep
_SIDES = ("왼쪽", "오른쪽", "좌측", "우측", "left", "right")  # mirroring would make these answers wrong


@dataclass(frozen=True)
class Item:
    """One encoded example."""

    id: str
    image: np.ndarray  # uint8 [3, S, S]
    tokens: list[int]
    labels: list[tuple[int, float]]  # (class, score)
    noise: np.ndarray  # float32 [L, 2], decides stochastic depth


class Processor:
    """Pictures, questions and answers -> batches."""

    def __init__(self, config: Config, tokenizer: Tokenizer, answers: list[str], data: Data) -> None:
        self.config, self.tokenizer, self.answers, self.data = config, tokenizer, answers, data
        self._label = {answer: i for i, answer in enumerate(answers)}
        self._decoded: dict[Path, np.ndarray] = {}
        self._room = _CACHED_BYTES

    def encode(self, example: Example, folder: Path, train: bool, rng: np.random.Generator) -> Item:
        """One example; errors name its id."""
        try:
            image = self._picture(folder / example.image, example, train, rng)
        except KovqaError as error:
            raise DataError(f"id {example.id}: {error.message}", error.hint) from None
        labels = [(self._label[a], score) for a, score in example.answers.items() if a in self._label]
        draws = (
            rng.random((self.config.sizes.num_layers, 2), np.float32)
            if train
            else np.zeros((0, 2), np.float32)
        )
        tokens = self.tokenizer.frame(nfc(example.question), self.config.max_text)
        return Item(example.id, image, tokens, labels, draws)

    def _picture(self, path: Path, example: Example, train: bool, rng: np.random.Generator) -> np.ndarray:
        """uint8 [3, S, S]; kept in memory where it is the same every time."""
        side, data = self.config.image, self.data
        if train and (data.augment != "none" or data.flip):
            image = images.open_image(path, 2 * side)
            image = (
                images.squeeze(image, side)
                if data.augment == "none"
                else images.random_crop(image, side, rng)
            )
            if data.flip and rng.random() < 0.5 and not _names_a_side(example):
                image = images.mirror(image)
            return images.to_array(images.randaugment(image, rng) if data.augment == "randaug" else image)
        if path not in self._decoded:
            pixels = images.to_array(images.squeeze(images.open_image(path), side))
            if self._room < pixels.nbytes:
                return pixels
            self._room -= pixels.nbytes
            self._decoded[path] = pixels
        return self._decoded[path]

    def collate(self, items: Sequence[Item]) -> Batch:
        """Text is padded to the longest question here, not to the longest there could be."""
        longest = max(len(item.tokens) for item in items)
        tokens = torch.full((len(items), longest), PAD)
        for row, item in enumerate(items):
            tokens[row, : len(item.tokens)] = torch.tensor(item.tokens)
        lengths = torch.tensor([len(item.tokens) for item in items])
        padding = torch.arange(longest) >= lengths[:, None]
        places = [(row, label) for row, item in enumerate(items) for label, _ in item.labels]
        return Batch(
            {
                "image": torch.from_numpy(np.stack([item.image for item in items])),
                "tokens": tokens,
                "padding": padding if bool(padding.any()) else None,
                "noise": torch.from_numpy(np.stack([item.noise for item in items])),
                "label_places": torch.tensor(places, dtype=torch.long).reshape(-1, 2),
                "label_scores": torch.tensor([score for item in items for _, score in item.labels]),
            },
            [item.id for item in items],
        )


def _names_a_side(example: Example) -> bool:
    texts = (example.question, *example.answers)
    return any(side in text for text in texts for side in _SIDES)


class Model(nn.Module):
    """VqaNet with its loss and its answers."""

    def __init__(self, config: Config, answers: list[str]) -> None:
        super().__init__()
        self.net = VqaNet(config)
        self.answers = answers

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Binary cross-entropy summed over classes, averaged over examples, in fp32."""
        logits = self.logits(batch)
        labels = torch.zeros(logits.shape, device=logits.device)
        places = batch.tensors["label_places"]
        assert places is not None
        labels[places[:, 0], places[:, 1]] = batch.tensors["label_scores"]
        return {"loss": vqa_loss(logits, labels)}

    def logits(self, batch: Batch) -> Tensor:
        """[B, C] in fp32."""
        b = batch.tensors
        noise = b["noise"] if self.training else None
        return self.net(images.normalised(b["image"]), b["tokens"], b["padding"], noise).float()

    def answer(self, batch: Batch) -> list[Answer]:
        """The most likely class of each, with its probability."""
        best = self.logits(batch).max(1)
        scores = torch.sigmoid(best.values).tolist()
        return [Answer(self.answers[i], s) for i, s in zip(best.indices.tolist(), scores, strict=True)]

    def prepare(self, activation_checkpointing: bool, compile: bool) -> None:
        """Memory for time, and torch.compile of each layer (one compilation serves them all)."""
        self.net.encoder.activation_checkpointing = activation_checkpointing
        if compile:
            for layer in self.net.encoder.layers:
                layer.compile()

    @property
    def depth(self) -> int:
        """One past the last layer."""
        return len(self.net.encoder.layers) + 1

    def depth_of(self, name: str) -> int:
        """Embeddings 0, layer i at i + 1, everything after the layers last."""
        return depth_of(name, self.depth)

    def is_head(self, name: str) -> bool:
        """The classifier; not the pooler."""
        return is_head(name)

    def is_undecayed(self, name: str) -> bool:
        """Class token and picture positions; text positions decay, as in the original."""
        return is_undecayed(name)


def vqa_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy against soft labels [B, C], summed over C, averaged over B."""
    return functional.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]


# Rules on names; they hold for our names and for the original's.


def depth_of(name: str, depth: int) -> int:
    """Depth of a parameter in a model whose head lies at `depth`."""
    if "embed" in name:
        return 0
    _, found, rest = name.partition("layers.")
    return int(rest.split(".")[0]) + 1 if found else depth


def is_head(name: str) -> bool:
    """Belongs to the classifier?"""
    return name.removeprefix("net.").startswith("head")


def is_undecayed(name: str) -> bool:
    """Is free of weight decay though it is a matrix?"""
    ours = ("encoder.cls_token_embed", "encoder.vision_position_embed")
    originals = ("beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.cls_token", "logit_scale")
    return name.removeprefix("net.") in ours + originals


# ------------------------------------------------------------------------- new, load, save


def read_config(recipe: Recipe) -> Config:
    """The `model:` part of a recipe."""
    return build(Config, Document({"model": recipe.model}, {(): f"recipe {recipe.name}"}), ("model",))


def new(recipe: Recipe, answers: list[str]) -> tuple[Model, Processor, str]:
    """A model for a recipe and an answer list.

    Raises:
        SettingsError: no tokenizer named, or one that does not fit `model.vocab`.
        AssetError: weights or tokenizer are not here.
        ModelError: weights that do not fit.
    """
    config = read_config(recipe)
    if config.tokenizer is None:
        raise SettingsError("no tokenizer named", "give a SentencePiece model: --tokenizer FILE")
    tokenizer = load_tokenizer(find_asset(config.tokenizer, "tokenizer"))
    vocab = config.vocab or tokenizer.size
    if tokenizer.size > vocab:
        raise SettingsError(
            f"tokenizer {config.tokenizer} has {tokenizer.size} ids, model.vocab only {vocab} rows",
            f"use --set model.vocab={tokenizer.size}",
        )
    config = config.model_copy(update={"vocab": vocab, "classes": len(answers)})
    with torch.device("meta"):
        model = Model(config, answers)
    model.to_empty(device="cpu")  # every value is written once: drawn, or loaded
    generator = torch.Generator().manual_seed(recipe.seed)
    if config.weights is None:
        initialise(model.net, generator)
        note = "weights: newly initialised"
    else:
        for part in config.fresh:
            initialise(model.net.get_submodule(part), generator)
        path = find_asset(config.weights, "weights", PUBLISHED)
        note = f"{path.name}: {load_original(model.net, read_weights(path), config.fresh, str(path))}"
    return model, Processor(config, tokenizer, answers, recipe.data), note


def save(model: Model, processor: Processor, folder: Path) -> None:
    """config.json, model.safetensors, answers.txt, tokenizer/spm.model."""
    config = processor.config.model_copy(update={"weights": None, "fresh": (), "tokenizer": None})
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in model.net.state_dict().items()}, folder / "model.safetensors")
    write_answers(folder / "answers.txt", processor.answers)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spm.model").write_bytes(processor.tokenizer.model)


def load(folder: Path, data: Data) -> tuple[Model, Processor]:
    """Read what `save` wrote.

    Raises:
        ModelError: a file is missing, broken, or the answer list has another length.
    """
    config = build(Config, parse(read_text(folder / "config.json"), str(folder / "config.json")))
    answers = read_answers(folder / "answers.txt")
    if len(answers) != config.classes:
        raise ModelError(
            f"{folder}/answers.txt lists {len(answers)} answers, the model was trained on {config.classes}",
            "put back the answers.txt that was saved with it",
        )
    tokenizer = load_tokenizer(folder / "tokenizer" / "spm.model")
    with torch.device("meta"):
        model = Model(config, answers)
    try:
        model.net.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{folder}/model.safetensors cannot be loaded ({str(error).splitlines()[0]})"
        ) from None
    return model, Processor(config, tokenizer, answers, data)
