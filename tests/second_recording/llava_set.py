"""The second set of LLaVA: other widths, layers, patches, image side and vocabulary; texts are the first set's.

Its numbers are those of `tests/models/vlm/llava_reference.py`. What is not in it: a training (`trace.json` only says which
tokens a run added).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import parity
from tests.models.vlm.llava_reference import (
    IMAGE_PLACEHOLDER,
    encoder_outputs,
    language_outputs,
    projected,
    reference_logits,
)

LLAVA = "llava"
UNUSED_TOKENS, SIDE, PATCHES = 6, 42, 9
LANGUAGE = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3}
VISION = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "image_size": SIDE}
NEW_TOKENS, CUT_BELOW = (
    5,
    0.05,
)  # of greedy answers: at most so many, and only where the best is clearly the best
TOWER = "model.vision_tower.vision_tower."
Weights = dict[str, Tensor]


def rewrite_json(file: Path, change: Callable[[Any], Any]) -> Any:
    content = change(json.loads(file.read_text("utf-8")))
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return content


class Recorder:
    """Folder, old vocabulary, and draws."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.generator = folder, torch.Generator().manual_seed(40)
        base = folder / "base/vicuna-tiny/config.json"
        self.rows = json.loads(base.read_text("utf-8"))["vocab_size"]
        change = LANGUAGE | {"vocab_size": self.rows + UNUSED_TOKENS}
        self.language = rewrite_json(base, lambda c: c | change)
        clip = folder / "base/openai/clip-tiny-patch14/config.json"
        self.vision = rewrite_json(clip, lambda c: c | {"vision_config": c["vision_config"] | VISION})[
            "vision_config"
        ]

    def moved(self, value: Any) -> Any:
        """Ids behind the old vocabulary move up by the unused ones."""
        if isinstance(value, dict):
            return {key: self.moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.moved(inner) for inner in value]
        return value + UNUSED_TOKENS if type(value) is int and value >= self.rows else value

    def like(self, tensor: Tensor, *shape: int) -> Tensor:
        """Another tensor with a recorded one's mean and deviation."""
        drawn = torch.randn(shape, generator=self.generator)
        return drawn * tensor.std(correction=0) + tensor.mean()

    def resized(
        self, old: Mapping[str, Tensor], sizes: Mapping[int, int], layers: int, marker: str
    ) -> Weights:
        """Weights with every size replaced, and another number of layers."""
        weights: Weights = {}
        for name, tensor in old.items():
            shape = [sizes.get(n, n) for n in tensor.shape]
            if f"{marker}0." in name:
                for layer in range(layers):
                    weights[name.replace(f"{marker}0.", f"{marker}{layer}.")] = self.like(tensor, *shape)
            elif marker not in name:
                weights[name] = self.like(tensor, *shape) if shape else tensor
        return weights


def write_llava_set(folder: Path) -> None:
    """Write the second set over a folder that does not exist."""
    shutil.copytree(parity.path("", LLAVA), folder)
    r = Recorder(folder)
    write_tokenizers(r)
    pixels = write_pixels(r)
    language, vision = write_bases(r)
    runs = write_runs(r, language, vision)
    merged = next(
        weights for weights in runs.values() if len(weights["lm_head.weight"]) > r.rows + UNUSED_TOKENS
    )
    write_folder(folder / "merged/llava-tiny-merged", r, merged)
    write_forward(r, runs, pixels)
    write_newer(r, language, vision, pixels)


def write_tokenizers(r: Recorder) -> None:
    from sentencepiece import sentencepiece_model_pb2

    for file in r.folder.rglob("tokenizer.model"):
        model = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
        for number in range(UNUSED_TOKENS):
            model.pieces.add(piece=chr(0xE100 + number), score=-9999.0)
        file.write_bytes(model.SerializeToString())
    rewrite_json(r.folder / "merged/llava-tiny-merged/added_tokens.json", r.moved)
    rewrite_json(r.folder / "conversations.json", r.moved)


def write_pixels(r: Recorder) -> dict[str, Tensor]:
    """Cut out of the middle, or padded to a square first, by Pillow."""
    settings = rewrite_json(
        r.folder / "base/openai/clip-tiny-patch14/preprocessor_config.json",
        lambda c: c | {"size": SIDE, "crop_size": SIDE},
    )
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    recorded = {}
    for name in load_file(r.folder / "pixel_values.safetensors"):
        file, _, shape = name.partition("|")
        with Image.open(r.folder / "images" / file) as opened:
            image = opened.convert("RGB")
        if shape == "pad":
            colour = tuple(int(value * 255) for value in settings["image_mean"])
            side = max(image.size)
            square = Image.new("RGB", (side, side), colour)
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = square
        short = min(image.size)
        size = tuple(SIDE if n == short else int(SIDE * n / short) for n in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = ((n - SIDE) // 2 for n in image.size)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(SIDE, SIDE, 3)
        recorded[name] = ((values.permute(2, 0, 1) / 255 - mean) / std).contiguous()
    save_file(recorded, r.folder / "pixel_values.safetensors")
    return recorded


def write_bases(r: Recorder) -> tuple[Weights, Weights]:
    """Language model and image encoder."""
    file = r.folder / "base/vicuna-tiny/model.safetensors"
    sizes = {64: LANGUAGE["hidden_size"], 160: LANGUAGE["intermediate_size"], r.rows: r.rows + UNUSED_TOKENS}
    language = r.resized(load_file(file), sizes, LANGUAGE["num_hidden_layers"], "model.layers.")
    width = LANGUAGE["hidden_size"] // r.language["num_attention_heads"]
    for name in [name for name in language if name.endswith("inv_freq")]:
        language[name] = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
    save_file(language, file, metadata={"format": "pt"})
    file = r.folder / "base/openai/clip-tiny-patch14/model.safetensors"
    old = load_file(file)
    of_vision = {n: t for n, t in old.items() if n.startswith(("vision_model.", "visual_projection."))}
    sizes = {48: VISION["hidden_size"], 96: VISION["intermediate_size"], 17: PATCHES + 1}
    vision = r.resized(of_vision, sizes, VISION["num_hidden_layers"], "vision_model.encoder.layers.")
    positions = [name for name in vision if name.endswith("position_ids")]
    vision |= {name: torch.arange(PATCHES + 1)[None] for name in positions}
    save_file({n: t for n, t in old.items() if n not in of_vision} | vision, file, metadata={"format": "pt"})
    return language, {n: t for n, t in vision.items() if n.startswith("vision_model.")}


def write_folder(folder: Path, r: Recorder, weights: Weights) -> None:
    """Configuration and whole weights of a LLaVA."""
    size = {"vocab_size": len(weights["lm_head.weight"]), "mm_hidden_size": VISION["hidden_size"]}
    rewrite_json(folder / "config.json", lambda c: c | LANGUAGE | size)
    torch.save(weights, folder / "pytorch_model.bin")


def write_runs(r: Recorder, language: Weights, vision: Weights) -> dict[str, Weights]:
    """What the recorded runs trained; the whole weights of each."""
    runs = {}
    for folder in sorted(trace.parent for trace in r.folder.glob("train_*/trace.json")):
        run = folder.name.removeprefix("train_")
        tokens = rewrite_json(folder / "trace.json", lambda c: {"new_token_ids": r.moved(c["new_token_ids"])})
        old = load_file(folder / "final_trainables.safetensors")
        width, seen = LANGUAGE["hidden_size"], VISION["hidden_size"]
        trained = {
            "model.mm_projector.weight": r.like(old["model.mm_projector.weight"], width, seen),
            "model.mm_projector.bias": r.like(old["model.mm_projector.bias"], width),
        }
        whole = {**language, **{TOWER + name: tensor for name, tensor in vision.items()}, **trained}
        saved = dict(trained)
        if count := len(tokens["new_token_ids"]):
            for table in ("lm_head", "model.embed_tokens"):
                rows = r.like(old[f"{table}.new_rows"], count, width)
                trained[f"{table}.new_rows"] = rows
                whole[f"{table}.weight"] = torch.cat([language[f"{table}.weight"], rows])
            saved["model.embed_tokens.weight"] = whole["model.embed_tokens.weight"]
        save_file(trained, folder / "final_trainables.safetensors")
        torch.save(saved, folder / "llava-tiny/mm_projector.bin")
        size = {"vocab_size": len(whole["lm_head.weight"]), "mm_hidden_size": seen}
        rewrite_json(folder / "llava-tiny/config.json", lambda c, size=size: c | LANGUAGE | size)
        runs[run] = whole
    return runs


def expanded(values: list[int], ids: list[int], filler: int) -> list[int]:
    """One value a token, with as many at the image as it has patches."""
    return [
        x for value, id in zip(values, ids, strict=True)
        for x in ([filler] * PATCHES if id == IMAGE_PLACEHOLDER else [value])
    ]  # fmt: skip


def text_logits(weights: Weights, config: Mapping[str, Any], ids: list[int]) -> Tensor:
    """Of a row without an image."""
    rows = weights["model.embed_tokens.weight"][ids]
    return language_outputs(weights, config, rows) @ weights["lm_head.weight"].T


def greedy(
    r: Recorder, weights: Weights, config: Mapping[str, Any], ids: list[int], pixels: Tensor
) -> list[int]:
    """Tokens of the answer, as far as each is clearly the likeliest."""
    answer: list[int] = []
    while len(answer) < NEW_TOKENS and (not answer or answer[-1] != config["eos_token_id"]):
        best = reference_logits(weights, config, r.vision, ids + answer, pixels)[-1].topk(2)
        if best.values[0] - best.values[1] < CUT_BELOW:
            break
        answer.append(int(best.indices[0]))
    return answer


@torch.no_grad()
def write_forward(r: Recorder, runs: Mapping[str, Weights], pixels: Mapping[str, Tensor]) -> None:
    order = json.loads((r.folder / "vision.json").read_text("utf-8"))["image_order"]
    some = next(iter(runs.values()))
    seen = torch.stack([encoder_outputs(some, r.vision, pixels[f"{name}|square"])[-2] for name in order])
    features = {f"projected_{run}": projected(weights, seen[:, 1:]) for run, weights in runs.items()}
    save_file({"hidden_states_minus_2": seen, **features}, r.folder / "vision.safetensors")
    configs = {
        run: json.loads((r.folder / f"train_{run}/llava-tiny/config.json").read_text("utf-8")) for run in runs
    }
    old, stored = load_file(r.folder / "forward.safetensors"), {}
    cases = json.loads((r.folder / "forward.json").read_text("utf-8"))
    for key, case in cases.items():
        run = key.partition("/")[0]
        rows: list[tuple[Tensor, list[int]]] = []
        batch = {
            part: torch.tensor(r.moved(old[f"{key}/{part}"].tolist())) for part in ("input_ids", "labels")
        }
        mask = old[f"{key}/attention_mask"]
        for ids, labels, keep, image in zip(
            batch["input_ids"], batch["labels"], mask, case["images"], strict=True
        ):
            tokens = ids[keep.bool()].tolist()
            wanted = expanded(labels[keep.bool()].tolist(), tokens, -100)
            given = (runs[run], configs[run])
            logits = (
                text_logits(*given, tokens) if image == "zeros"
                else reference_logits(*given, r.vision, tokens, pixels[image])
            )  # fmt: skip
            rows.append((logits, wanted))
        longest = max(len(labels) for _, labels in rows)
        logits = torch.stack([torch.nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x, _ in rows])
        labels = torch.tensor([y + [-100] * (longest - len(y)) for _, y in rows])
        real = torch.tensor([[i < len(y) for i in range(longest)] for _, y in rows])
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        kept = {"logits": logits} if f"{key}/logits" in old else {
            "logits_first64": logits[..., :50].contiguous(), "logits_logsumexp": logits.logsumexp(-1)}  # fmt: skip
        part = batch | kept | {"attention_mask": mask, "expanded_labels": labels, "loss": loss,
                               "expanded_attention_mask": real}  # fmt: skip
        stored |= {f"{key}/{name}": tensor for name, tensor in part.items()}
    save_file(stored, r.folder / "forward.safetensors")

    def answered(case: Any) -> Any:
        case = r.moved(case)
        given = runs[case["run"]], configs[case["run"]], case["input_ids"], pixels[f"{case['image']}|square"]
        return case | {"new_ids": greedy(r, *given)}

    rewrite_json(r.folder / "generate.json", lambda c: [case for case in map(answered, c) if case["new_ids"]])


@torch.no_grad()
def write_newer(r: Recorder, language: Weights, vision: Weights, pixels: Mapping[str, Tensor]) -> None:
    """LLaVA 1.5: a projector of two layers, images padded."""
    folder = r.folder / "llava15/llava-v1.5-tiny"
    old = torch.load(folder / "pytorch_model.bin", weights_only=True)
    width = LANGUAGE["hidden_size"]
    weights = {**language, **{TOWER + name: tensor for name, tensor in vision.items()}}
    for number, inputs in ((0, VISION["hidden_size"]), (2, width)):
        name = f"model.mm_projector.{number}"
        weights[f"{name}.weight"] = r.like(old[f"{name}.weight"], width, inputs)
        weights[f"{name}.bias"] = r.like(old[f"{name}.bias"], width)
    write_folder(folder, r, weights)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    recorded, stored = load_file(r.folder / "llava15/forward.safetensors"), {}
    cases = json.loads((r.folder / "llava15/forward.json").read_text("utf-8"))
    for number, case in enumerate(cases):
        ids, image = recorded[f"{number}/input_ids"], pixels[f"{case['image']}|pad"]
        row = ids.flatten().tolist()
        logits = reference_logits(weights, config, r.vision, row, image)
        stored |= {
            f"{number}/input_ids": ids,
            f"{number}/pixel_values": image[None],
            f"{number}/logits": logits[None],
        }
        case["new_ids"] = greedy(r, weights, config, row, image)
        case["max_new_tokens"] = max(1, len(case["new_ids"]))
    save_file(stored, r.folder / "llava15/forward.safetensors")
    rewrite_json(r.folder / "llava15/forward.json", lambda _: cases)
