"""Questions answered by a vision language model: ours in batches against one by one, the original's way.

    python bench/answering_speed.py [--size 0.5b] [--rows 16] [--batch 8] [--repeats 3] [--dtype fp32]

The model is LLaVA v1's kind with random weights: a CLIP encoder whose 256 patches stand before the
question, and a language model of Qwen2's kind; `0.5b` has the sizes of CLIP ViT-L/14 and of Qwen2-0.5B,
`tiny` shows what is left when arithmetic costs nothing. The original's way (docs/sources/llava.md, L25): one
row at a time, transformers' `generate` with room for 1,024 tokens. Ours: `evaluate.answer_all`, padded
on the left, 16 tokens at most, with the answer's probability. Random weights never end an answer, so
its length is drawn for every row (2 to 8 tokens, its end included) and imposed on both. The same rows
must get the same answers; then both take turns, and every ratio is taken inside one repeat.

`model` is the same with all rows prepared before, and `prompts` what of it pictures and questions cost
before the first word: no batch makes that cheaper where arithmetic is the limit, as on a CPU. What a batch
saves is the words after it, each of which reads all weights, for one row or for eight. The last line
compares how fast rows are prepared (JPEG photos of 640 x 480 pixels, through the loader) with how fast the
model takes them.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beit3_speed import ratios
from kovqa_core.answer.inference import answer_examples
from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.example import Example
from kovqa_core.data.image_io import open_image
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.models.vlm import chat_template, generation
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.family import VlmModel
from kovqa_core.models.vlm.hf_libraries import transformers as hf
from kovqa_core.models.vlm.processor import VlmProcessor
from loader_speed import photo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

QUESTIONS = (
    "사진에 보이는 동물의 이름은 무엇인가요?",
    "몇 명인가요?",
    "왼쪽 벽에 걸려 있는 시계는 몇 시를 가리키고 있으며 그 아래에 있는 의자의 색깔은 무엇인가요?",
    "What is the man on the left holding?",
)
VICUNA = (
    "{% for message in messages %}{% if message.role == 'user' %}USER: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {{ message.content[0].text }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
PICTURE = {"image_size": 224, "patch_size": 14}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # text, picture
    "tiny": (
        {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1},
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, **PICTURE},
    ),
    "0.5b": (
        {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         **PICTURE},
    ),
}  # fmt: skip
ORIGINALS_BUDGET, ALONE = 1024, RankInfo(0, 0, 1)
ORIGINAL, OURS = "original, one by one", "ours"


def make_model(size: str, dtype: torch.dtype, device: torch.device) -> tuple[VlmModel, VlmProcessor]:
    """A model with random weights and what feeds it."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        QUESTIONS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    pieces.add_special_tokens(["<pad>", "<s>", "</s>", "<image>"])
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=pieces, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    text, picture = SIZES[size]
    config = hf.LlavaConfig(
        text_config=hf.Qwen2Config(**text), vision_config=hf.CLIPVisionConfig(**picture),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=256,
    )  # fmt: skip
    torch.manual_seed(0)
    net = hf.AutoModelForImageTextToText.from_config(config, dtype=dtype).to(device).eval()
    side = PICTURE["image_size"]
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer, patch_size=PICTURE["patch_size"], vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    settings = ModelConfig(dtype="bf16" if dtype == torch.bfloat16 else "fp32")
    ends = [tokenizer.eos_token_id]
    silent = generation.find_suppress_tokens(tokenizer, ends)
    speaker = generation.TextGenerator(net, tokenizer, ends, silent, settings.max_new_tokens)
    return VlmModel(net, settings, speaker), VlmProcessor(processor, settings, ends)


class Ends:
    """Ends every answer where it was drawn to end, and lets nothing be said that is no text."""

    def __init__(self, model: VlmModel) -> None:
        tokenizer = model.speaker.tokenizer
        self.end, self.lengths, self.rows, self.said = tokenizer.eos_token_id, [0], iter(()), 0
        forbidden = torch.ones(model.net.config.text_config.vocab_size, dtype=torch.bool)
        forbidden[: len(tokenizer)] = False
        forbidden[tokenizer.all_special_ids] = True
        self.forbidden = forbidden.to(next(model.net.parameters()).device)
        model.net.register_forward_hook(self, with_kwargs=True)

    def draw(self, rows: list[int]) -> None:
        """Lengths of the answers to come, row by row."""
        self.rows: Iterator[int] = iter(rows)

    def __call__(self, net: Any, args: Any, named: dict[str, Any], output: Any) -> None:
        """Called after every pass of the network."""
        rows, tokens = named["input_ids"].shape
        if tokens > 1:  # prompts: new answers begin
            self.lengths, self.said = [next(self.rows) for _ in range(rows)], 0
        self.said += 1
        logits = output.logits[:, -1]
        logits.masked_fill_(self.forbidden, -math.inf)
        for row, length in enumerate(self.lengths):
            if self.said >= length:
                logits[row] = -math.inf
                logits[row, self.end] = 0.0


@torch.inference_mode()
def one_by_one(model: VlmModel, processor: VlmProcessor, rows: list[Example], images: Path) -> list[str]:
    """The original's way."""
    said, device = [], next(model.net.parameters()).device
    for row in rows:
        turns = chat_template.user_message(row.question, "auto", open_image(images / row.image))
        inputs = processor.hf.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(device, dtype=model.net.dtype)
        ids = model.net.generate(
            **inputs, do_sample=False, max_new_tokens=ORIGINALS_BUDGET,
            eos_token_id=model.speaker.ends, pad_token_id=model.speaker.tokenizer.pad_token_id,
        )  # fmt: skip
        new = ids[0, inputs["input_ids"].shape[1] :]
        said.append(normalise_answer(model.speaker.tokenizer.decode(new, skip_special_tokens=True)))
    return said


def in_batches(
    model: VlmModel, processor: VlmProcessor, rows: list[Example], images: Path, batch: int, workers: int
) -> list[str]:
    """Ours, as kovqa predict does it."""
    device = next(model.net.parameters()).device
    answers = answer_examples(model, processor, rows, images, ALONE, device, batch, workers)
    return [answer.text for _, answer in answers]


@torch.inference_mode()
def model_alone(model: VlmModel, ready: list[ModelBatch]) -> list[str]:
    """Ours, of batches that are prepared."""
    return [answer.text for batch in ready for answer in model.answer(batch)]


def prepared(processor: VlmProcessor, rows: list[Example], images: Path, batch: int, seconds: float) -> float:
    """Rows a second that one loader process makes ready to be answered."""
    keys = [[(0, (n + i) % len(rows)) for i in range(batch)] for n in range(0, 1000 * batch, batch)]
    done, began = 0, time.perf_counter()
    for ready in iterate_batches(iter(keys), rows, images, processor, train=False):
        done += len(ready.ids)
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def write_rows(folder: Path, number: int) -> list[Example]:
    """JPEG photos of 640 x 480 pixels, a question on each."""
    rng = np.random.default_rng(0)
    for n in range(number):
        photo(640, rng).save(folder / f"{n}.jpg", quality=90)
    return [Example(str(n), f"{n}.jpg", QUESTIONS[n % len(QUESTIONS)]) for n in range(number)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of both")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for preparing rows")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if asked.dtype == "bf16" else torch.float32
    model, processor = make_model(asked.size, dtype, device)
    ends = Ends(model)
    lengths = random.Random(0).choices(range(2, 9), k=asked.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = write_rows(folder, asked.rows)

        def ours(workers: int) -> Callable[[], list[str]]:
            return lambda: in_batches(model, processor, rows, folder, asked.batch, workers)

        def alone(batch: int) -> Callable[[], list[str]]:
            keys = [[(0, n) for n in range(i, min(i + batch, len(rows)))] for i in range(0, len(rows), batch)]
            ready = [b.to(device) for b in iterate_batches(iter(keys), rows, folder, processor, train=False)]
            return lambda: model_alone(model, ready)

        single, batched, empty = alone(1), alone(asked.batch), [1] * len(rows)
        ways = {
            ORIGINAL: (lambda: one_by_one(model, processor, rows, folder), lengths),
            OURS: (ours(0), lengths),
            "ours, with a loader process": (ours(1), lengths),
            "model, one by one": (single, lengths),
            "model": (batched, lengths),
            "prompts, one by one": (single, empty),
            "prompts": (batched, empty),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        said: dict[str, list[str]] = {}
        for repeat in range(asked.repeats):
            for name in random.Random(repeat).sample(list(ways), len(ways)):
                way, drawn = ways[name]
                ends.draw(drawn)
                began = time.perf_counter()
                said[name] = way()
                times[name].append(time.perf_counter() - began)
        same = sum(a == b for a, b in zip(said[ORIGINAL], said[OURS], strict=True))
        assert all(said[ORIGINAL]), "an answer without text compares nothing"
        assert same == len(rows) or asked.dtype == "bf16", f"only {same} of {len(rows)} answers are the same"
        rate = prepared(processor, rows, folder, asked.batch, asked.seconds)
    parameters = sum(p.numel() for p in model.net.parameters()) / 1e6
    print(
        f"{asked.size}, {parameters:,.1f} M parameters, {asked.dtype} on {device}, {torch.get_num_threads()} threads; "
        f"{len(rows)} rows in batches of {asked.batch}, answers of {statistics.mean(lengths):.1f} tokens, "
        f"{same} of {len(rows)} the same"
    )
    for name, found in times.items():
        low, middle, high = ratios(times[ORIGINAL], found)
        seconds = statistics.median(found)
        print(
            f"{name:28} {len(rows) / seconds:8.2f} rows/s {seconds:8.2f} s   {middle:.2f}× ({low:.2f}-{high:.2f})"
        )
    eaten = len(rows) / statistics.median(times["model"])
    print(
        f"prepared {rate:.1f} rows/s by a loader process, taken {eaten:.1f} rows/s by the model: "
        f"{math.ceil(eaten / rate)} loader process(es) keep up"
    )


if __name__ == "__main__":
    main()
