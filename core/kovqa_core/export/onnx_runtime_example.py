"""Answers questions about images, or captions them, with this folder's networks.

    python run_onnx.py IMAGE QUESTION
    python run_onnx.py IMAGE                # a captioner

Needs onnxruntime, numpy, Pillow, and sentencepiece or tokenizers. Made by `kovqa export --onnx`; images of 8 bits.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
ABOUT: dict[str, Any] = json.loads((FOLDER / "preprocessing.json").read_text("utf-8"))
BOS_ID, EOS_ID, UNK_ID = 0, 2, 3  # of SentencePiece models in XLM-R's layout


def load_pixels(path: str | Path) -> np.ndarray:
    """An image as the network reads it, float32 [1, 3, S, S]: proportions are not kept."""
    image: Image.Image = Image.open(path)
    if ABOUT["image_loading"] == "as_shown":
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
    side, resample = ABOUT["image_size"], Image.Resampling[ABOUT["resample"].upper()]
    pixels = np.asarray(image.convert("RGB").resize((side, side), resample), np.float32) / 255
    mean, std = (np.array(ABOUT[name], np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


@functools.cache
def open_network(name: str) -> onnxruntime.InferenceSession:
    """One of the .onnx files."""
    return onnxruntime.InferenceSession(FOLDER / name, providers=onnxruntime.get_available_providers())


# ------------------------------------------------------------------------------------- text


@functools.cache
def open_tokenizer() -> Any:
    """The tokenizer's own library with the tokenizer's file."""
    file = str(FOLDER / ABOUT["tokenizer"])
    if file.endswith(".json"):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(file)
        tokenizer.encode_special_tokens = True  # a literal <s> in a question is text
        tokenizer.no_padding()
        tokenizer.enable_truncation(ABOUT["max_text"])
        return tokenizer
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=file)


def encode_text(text: str) -> list[int]:
    """Ids of a question, with those that begin and end it."""
    text, tokenizer = unicodedata.normalize("NFC", text), open_tokenizer()
    if ABOUT["tokenizer"].endswith(".json"):
        return list(tokenizer.encode(text).ids)
    special_ids, ids = ABOUT["special_ids"], []
    pattern = "|".join(rf"\s*{name}" if name == "<mask>" else name for name in special_ids)
    for chunk in re.split(f"({pattern})", text) if special_ids else [text]:
        if chunk.strip() in special_ids:
            ids.append(special_ids[chunk.strip()])
        elif chunk:
            # SentencePiece's unknown is 0; all other ids move up by one.
            ids += [UNK_ID if id == 0 else id + 1 for id in tokenizer.encode(chunk)]
    return [BOS_ID, *ids[: ABOUT["max_text"] - 2], EOS_ID]


def decode_ids(ids: list[int]) -> str:
    """The text of a caption's ids."""
    text = open_tokenizer().decode([id - 1 for id in ids if UNK_ID < id < ABOUT["special_ids"]["<mask>"]])
    return re.sub(r" (?=[.?!,])", "", text.strip())


# ---------------------------------------------------------------------------------- answers


@functools.cache
def read_answers() -> list[str]:
    """The model's answers in order."""
    lines = (FOLDER / "answers.txt").read_text("utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines] if lines[0].startswith("{") else lines


def answer_logits(pixels: np.ndarray, questions: list[list[int]]) -> np.ndarray:
    """Logits [B, C] of images [B, 3, S, S] and the ids of their questions."""
    longest = max(map(len, questions))
    tokens = np.full((len(questions), longest), ABOUT["pad_id"], np.int64)
    for row, ids in enumerate(questions):
        tokens[row, : len(ids)] = ids
    padding = np.arange(longest)[None] >= np.array([len(ids) for ids in questions])[:, None]
    feeds = {"pixels": pixels, "tokens": tokens, "padding": padding}
    return np.asarray(open_network("model.onnx").run(["logits"], feeds)[0])


def answer(path: str | Path, question: str) -> tuple[str, float]:
    """The likeliest answer, and its probability."""
    (logits,) = answer_logits(load_pixels(path), [encode_text(question)]).astype(np.float64)
    best = int(logits.argmax())
    if ABOUT["probability"] == "sigmoid":
        return read_answers()[best], float(1 / (1 + np.exp(-logits[best])))
    return read_answers()[best], float(1 / np.exp(logits - logits[best]).sum())


# --------------------------------------------------------------------------------- captions


def caption(path: str | Path) -> tuple[str, float]:
    """The best caption that beam search finds, and the geometric mean of its tokens' probabilities.

    Beams that share an image share its keys and values. Their words go through the network anew for every word more:
    there is no cache of the text.
    """
    mask_id, longest = ABOUT["special_ids"]["<mask>"], ABOUT["max_text"]
    beams, penalty = ABOUT["num_beams"], ABOUT["length_penalty"]
    (image,) = open_network("image.onnx").run(["image_cache"], {"pixels": load_pixels(path)})
    open_beams: list[tuple[list[int], float]] = [([BOS_ID], 0.0)]
    best_ids, best_total, best_score = list[int](), 0.0, -np.inf
    for length in range(2, longest):
        # The word after the last is read where <mask> stands: [1, K, T] -> [K, V].
        tokens = np.array([[[*ids, mask_id] for ids, _ in open_beams]], np.int64)
        (logits,) = open_network("text.onnx").run(["logits"], {"image_cache": image, "tokens": tokens})
        logits = np.asarray(logits)[0, :, : mask_id + 1].astype(np.float64)
        highest = logits.max(-1, keepdims=True)
        sums = logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))
        sums += np.array([[total] for _, total in open_beams])
        candidates = np.argsort(-sums, axis=None, kind="stable")[: 3 * beams]
        if sums.flat[candidates[0]] / (longest - 1) ** penalty <= best_score:
            break  # no open beam can win any more
        grown: list[tuple[list[int], float]] = []
        for place in candidates:
            beam, id = divmod(int(place), sums.shape[1])
            ids, total = open_beams[beam][0], float(sums[beam, id])
            if id == EOS_ID or length + 1 == longest:
                if total / length**penalty > best_score:
                    best_ids, best_total, best_score = ids[1:], total, total / length**penalty
            else:
                grown.append(([*ids, id], total))
            if len(grown) == beams:
                break
        open_beams = grown
    return decode_ids(best_ids), float(np.exp(best_total / (len(best_ids) + 1)))


if __name__ == "__main__":
    print(*(caption(sys.argv[1]) if ABOUT["task"] == "caption" else answer(sys.argv[1], sys.argv[2])))
