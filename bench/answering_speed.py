"""Questions answered by a vision language model: ours in batches against one by one, the original's way.

    python bench/answering_speed.py [--size 0.5b] [--rows 16] [--batch 8] [--repeats 3] [--dtype fp32]

The model has LLaVA v1's architecture and random weights: a CLIP encoder whose 256 patches stand before the
question, and a Qwen2; `0.5b` has the sizes of CLIP ViT-L/14 and of Qwen2-0.5B,
`tiny` shows what is left when arithmetic costs nothing. The original's way (docs/sources/llava.md, L25): one
row at a time, transformers' `generate` with room for 1,024 tokens. Ours: `answer.inference.answer_examples`, padded
on the left, 16 tokens at most, with the answer's probability. Random weights never end an answer, so
its length is drawn for every row (2 to 8 tokens, its end included) and imposed on both. The same rows
must get the same answers; then both take turns, and every ratio is taken inside one repeat.

`model` is the same with all rows prepared before, and `prompts` the part of it that images and questions cost
before the first token: no batch makes that cheaper where arithmetic is the limit, as on a CPU. What a batch
saves is the tokens after it, each of which reads all weights, for one row or for eight. The last line
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
from kovqa_core.models.vlm.hf_libraries import transformers as hf
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.models.vlm.processor import VlmProcessor
from loader_speed import draw_photo
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
IMAGE_DIMENSIONS = {"image_size": 224, "patch_size": 14}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # text, vision
    "tiny": (
        {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1},
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, **IMAGE_DIMENSIONS},
    ),
    "0.5b": (
        {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         **IMAGE_DIMENSIONS},
    ),
}  # fmt: skip
ORIGINAL_MAX_NEW_TOKENS, ALONE = 1024, RankInfo(0, 0, 1)
ORIGINAL, OURS = "original, one by one", "ours"


def make_model(size: str, dtype: torch.dtype, device: torch.device) -> tuple[VlmModel, VlmProcessor]:
    """A model with random weights and what feeds it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        QUESTIONS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_special_tokens(["<pad>", "<s>", "</s>", "<image>"])
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    text, vision = SIZES[size]
    config = hf.LlavaConfig(
        text_config=hf.Qwen2Config(**text), vision_config=hf.CLIPVisionConfig(**vision),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=256,
    )  # fmt: skip
    torch.manual_seed(0)
    net = hf.AutoModelForImageTextToText.from_config(config, dtype=dtype).to(device).eval()
    image_size = IMAGE_DIMENSIONS["image_size"]
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}),
        tokenizer, patch_size=IMAGE_DIMENSIONS["patch_size"], vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    model_config = ModelConfig(dtype="bf16" if dtype == torch.bfloat16 else "fp32")
    eos_token_ids = [tokenizer.eos_token_id]
    suppress_tokens = generation.find_suppress_tokens(tokenizer, eos_token_ids)
    generator = generation.TextGenerator(
        net, tokenizer, eos_token_ids, suppress_tokens, model_config.max_new_tokens
    )
    return VlmModel(net, model_config, generator), VlmProcessor(processor, model_config, eos_token_ids)


class ForcedLengths:
    """Ends every answer at a drawn length, and lets it have no token that is not text."""

    def __init__(self, model: VlmModel) -> None:
        tokenizer = model.generator.tokenizer
        self.eos_token_id, self.lengths, self.num_tokens = tokenizer.eos_token_id, [0], 0
        self.next_lengths: Iterator[int] = iter(())
        forbidden = torch.ones(model.net.config.text_config.vocab_size, dtype=torch.bool)
        forbidden[: len(tokenizer)] = False
        forbidden[tokenizer.all_special_ids] = True
        self.forbidden = forbidden.to(next(model.net.parameters()).device)
        model.net.register_forward_hook(self, with_kwargs=True)

    def set_lengths(self, lengths: list[int]) -> None:
        """Lengths of the answers to come, row by row."""
        self.next_lengths = iter(lengths)

    def __call__(self, net: Any, args: Any, named: dict[str, Any], output: Any) -> None:
        """Called after every pass of the network."""
        rows, tokens = named["input_ids"].shape
        if tokens > 1:  # prompts: new answers begin
            self.lengths, self.num_tokens = [next(self.next_lengths) for _ in range(rows)], 0
        self.num_tokens += 1
        logits = output.logits[:, -1]
        logits.masked_fill_(self.forbidden, -math.inf)
        for row, length in enumerate(self.lengths):
            if self.num_tokens >= length:
                logits[row] = -math.inf
                logits[row, self.eos_token_id] = 0.0


@torch.inference_mode()
def answer_one_by_one(
    model: VlmModel, processor: VlmProcessor, rows: list[Example], images: Path
) -> list[str]:
    """The original's way."""
    answers, device = [], next(model.net.parameters()).device
    for row in rows:
        turns = chat_template.user_message(row.question, "auto", open_image(images / row.image))
        inputs = processor.hf.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(device, dtype=model.net.dtype)
        ids = model.net.generate(
            **inputs, do_sample=False, max_new_tokens=ORIGINAL_MAX_NEW_TOKENS,
            eos_token_id=model.generator.eos_token_ids, pad_token_id=model.generator.tokenizer.pad_token_id,
        )  # fmt: skip
        new = ids[0, inputs["input_ids"].shape[1] :]
        answers.append(normalise_answer(model.generator.tokenizer.decode(new, skip_special_tokens=True)))
    return answers


def answer_in_batches(
    model: VlmModel, processor: VlmProcessor, rows: list[Example], images: Path, batch: int, workers: int
) -> list[str]:
    """Ours, as kovqa predict does it."""
    device = next(model.net.parameters()).device
    answers = answer_examples(model, processor, rows, images, ALONE, device, batch, workers)
    return [answer.text for _, answer in answers]


@torch.inference_mode()
def answer_prepared(model: VlmModel, ready: list[ModelBatch]) -> list[str]:
    """Ours, of batches that are prepared."""
    return [answer.text for batch in ready for answer in model.answer(batch)]


def measure_loader(
    processor: VlmProcessor, rows: list[Example], images: Path, batch: int, seconds: float
) -> float:
    """Rows a second that one loader process makes ready to be answered."""
    keys = [[(0, (n + i) % len(rows)) for i in range(batch)] for n in range(0, 1000 * batch, batch)]
    num_rows, began = 0, time.perf_counter()
    for prepared_batch in iterate_batches(iter(keys), rows, images, processor, train=False):
        num_rows += len(prepared_batch.ids)
        if time.perf_counter() - began > seconds:
            break
    return num_rows / (time.perf_counter() - began)


def write_rows(folder: Path, number: int) -> list[Example]:
    """JPEG photos of 640 x 480 pixels, a question on each."""
    rng = np.random.default_rng(0)
    for n in range(number):
        draw_photo(640, rng).save(folder / f"{n}.jpg", quality=90)
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
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    model, processor = make_model(arguments.size, dtype, device)
    forced = ForcedLengths(model)
    lengths = random.Random(0).choices(range(2, 9), k=arguments.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = write_rows(folder, arguments.rows)

        def ours(workers: int) -> Callable[[], list[str]]:
            return lambda: answer_in_batches(model, processor, rows, folder, arguments.batch, workers)

        def alone(batch: int) -> Callable[[], list[str]]:
            keys = [[(0, n) for n in range(i, min(i + batch, len(rows)))] for i in range(0, len(rows), batch)]
            ready = [b.to(device) for b in iterate_batches(iter(keys), rows, folder, processor, train=False)]
            return lambda: answer_prepared(model, ready)

        single, batched, empty = alone(1), alone(arguments.batch), [1] * len(rows)
        ways = {
            ORIGINAL: (lambda: answer_one_by_one(model, processor, rows, folder), lengths),
            OURS: (ours(0), lengths),
            "ours, with a loader process": (ours(1), lengths),
            "model, one by one": (single, lengths),
            "model": (batched, lengths),
            "prompts, one by one": (single, empty),
            "prompts": (batched, empty),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        answers: dict[str, list[str]] = {}
        for repeat in range(arguments.repeats):
            for name in random.Random(repeat).sample(list(ways), len(ways)):
                answer_all, way_lengths = ways[name]
                forced.set_lengths(way_lengths)
                began = time.perf_counter()
                answers[name] = answer_all()
                times[name].append(time.perf_counter() - began)
        same = sum(a == b for a, b in zip(answers[ORIGINAL], answers[OURS], strict=True))
        assert all(answers[ORIGINAL]), "an answer without text compares nothing"
        assert same == len(rows) or arguments.dtype == "bf16", (
            f"only {same} of {len(rows)} answers are the same"
        )
        rate = measure_loader(processor, rows, folder, arguments.batch, arguments.seconds)
    parameters = sum(p.numel() for p in model.net.parameters()) / 1e6
    threads = torch.get_num_threads()
    print(
        f"{arguments.size}, {parameters:,.1f} M parameters, {arguments.dtype} on {device}, {threads} threads; "
        f"{len(rows)} rows in batches of {arguments.batch}, answers of {statistics.mean(lengths):.1f} tokens, "
        f"{same} of {len(rows)} the same"
    )
    for name, seconds_taken in times.items():
        low, middle, high = ratios(times[ORIGINAL], seconds_taken)
        seconds = statistics.median(seconds_taken)
        print(
            f"{name:28} {len(rows) / seconds:8.2f} rows/s {seconds:8.2f} s   {middle:.2f}× ({low:.2f}-{high:.2f})"
        )
    model_rate = len(rows) / statistics.median(times["model"])
    print(
        f"prepared {rate:.1f} rows/s by a loader process, taken {model_rate:.1f} rows/s by the model: "
        f"{math.ceil(model_rate / rate)} loader process(es) keep up"
    )


if __name__ == "__main__":
    main()
