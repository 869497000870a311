"""The rows of `gpu_speed.py` beyond BEiT-3's steps: the fusion family, a vision language model, a whole run."""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fusion_speed
import numpy as np
import torch
from answering_speed import QUESTIONS, make_model
from gpu_contestants import BATCHES, Bench, kovqa_strategy, ready
from gpu_rows import RowResult
from gpu_timing import Contestant, held_bytes
from kovqa_core.data.example import Example
from kovqa_core.index.build import build_index
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.fusion.config import ModelConfig as FusionConfig
from kovqa_core.models.fusion.config import image_encoder_config, question_encoder_config
from kovqa_core.models.fusion.family import FusionModel
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.tokenizer.train import train_tokenizer
from loader_speed import draw_photo
from torch.nn import functional

TINY_QUESTIONS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TINY_IMAGES = {"architecture": "resnet50", "layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}


def nia_row(bench: Bench) -> RowResult:
    """Row 10: training steps of recipe nia, beside the original's way on the same encoders."""
    result, examples = RowResult(), bench.examples(64)
    classes, vocab = (7, 400) if bench.tiny else (fusion_speed.CLASSES, fusion_speed.VOCAB)
    config = FusionConfig(
        question_config=question_encoder_config(TINY_QUESTIONS if bench.tiny else {}, None, vocab),
        picture_config=image_encoder_config(TINY_IMAGES if bench.tiny else {}, None),
        num_classes=classes,
    )
    before = held_bytes(bench.device)
    with torch.device(bench.device):
        net = FusionNet(config)
    original = fusion_speed.OriginalWay(copy.deepcopy(net)).train()
    strategy = kovqa_strategy(bench, FusionModel(net, [f"답 {n}" for n in range(classes)]), "nia", examples)
    batches = []
    for number in range(BATCHES):
        image, tokens, _ = fusion_speed.make_batch(examples, number)
        image = image[..., :32, :32] if bench.tiny else image
        tokens = tokens.where(tokens == fusion_speed.PAD, tokens % (vocab - 4) + 4)
        targets = torch.randint(0, classes, (examples,), generator=torch.Generator().manual_seed(number))
        kept, padding = fusion_speed.cut(tokens)
        kovqa = ModelBatch(
            {"image": image, "tokens": kept, "padding": padding, "targets": targets},
            [str(n) for n in range(examples)],
        )
        batches.append((kovqa.to(bench.device), tokens.to(bench.device)))

    def kovqa_step(number: int) -> None:
        strategy.backward(batches[number][0], 0, last=True)
        strategy.step(torch.ones((), device=strategy.device), torch.zeros((), device=strategy.device))

    kovqa_one = ready(Contestant("kovqa", examples, kovqa_step), bench, before)
    before = held_bytes(bench.device)
    optimizer = torch.optim.AdamW(original.parameters(), lr=1e-5, weight_decay=1e-3)

    def original_step(number: int) -> None:
        batch, tokens = batches[number]
        with bench.autocast():
            logits = original(batch.tensors["image"], tokens)
        functional.cross_entropy(logits.float(), batch.tensors["targets"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    peer = ready(Contestant("the original's way, bf16", examples, original_step), bench, before)
    result.add(bench, [kovqa_one, peer], count_flops=("kovqa",))
    return result


def write_photos(folder: Path, number: int) -> list[Example]:
    """JPEG photos of 640 × 480 pixels, with a question and an answer each."""
    rng = np.random.default_rng(0)
    for n in range(number):
        draw_photo(640, rng).save(folder / f"{n}.jpg", quality=90)
    return [Example(str(n), f"{n}.jpg", QUESTIONS[n % len(QUESTIONS)], {"두 명": 1.0}) for n in range(number)]


def vlm_row(bench: Bench) -> RowResult:
    """Row 11: a vision language model of 0.8 billion parameters: a LoRA step, and answers of 16 tokens."""
    result, examples = RowResult(), bench.examples(16)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = write_photos(folder, examples)
        base, processor = make_model("tiny" if bench.tiny else "0.5b", torch.bfloat16, bench.device)
        base.net.save_pretrained(folder / "base")
        processor.hf.save_pretrained(folder / "base")
        del base, processor
        before = held_bytes(bench.device)
        recipe = resolve_settings("dacon-vlm-lora", "cpu", [f"model.base={folder / 'base'}"]).recipe
        model, processor, _ = family.create_model(recipe, [])
        learn, ask = (
            processor.collate(
                [processor.encode(row, folder, train=train, rng=np.random.default_rng(0)) for row in rows]
            ).to(bench.device)
            for train in (True, False)
        )
    strategy = kovqa_strategy(bench, model, "dacon-vlm-lora", examples)

    def step(_: int) -> None:
        strategy.backward(learn, 0, last=True)
        strategy.step(torch.ones((), device=strategy.device), torch.zeros((), device=strategy.device))

    @torch.inference_mode()
    def answer(_: int) -> None:
        model.answer(ask)

    result.add(bench, [ready(Contestant("kovqa, LoRA step", examples, step), bench, before)], shapes=1)
    model.eval()
    result.add(bench, [Contestant("kovqa, answers", examples, answer)], shapes=1)
    return result


# ---------------------------------------------------------------------------------- a whole run

TINY_RUN = (
    "model.size=custom", "model.custom=[32, 2, 2, 64]", "model.image_size=32", "optim.global_batch=4",
    "optim.steps=6", "save.every_steps=4", "profile.threads=1",
)  # fmt: skip


def whole_run_row(bench: Bench) -> RowResult:
    """Row 12: `kovqa train` as it is typed: loaders, log, checkpoints and all.

    Told by when each step's line comes into the log: the first, the median distance, and how much longer the
    distance is in which a checkpoint was written.
    """
    result, steps, save_at = RowResult(), (6, 4) if bench.tiny else (60, 40), None
    total, save_at = steps
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = _training_words(bench, folder, total, save_at)
        with _idle_share_of(bench) as idle:
            began = time.perf_counter()
            arrivals = _run_and_watch(words, folder / "run" / "log.jsonl", idle)
    if len(arrivals) < total:
        result.notes.append(f"the log has {len(arrivals)} of {total} steps")
        return result
    distances = {step: arrivals[step] - arrivals[step - 1] for step in arrivals if step - 1 in arrivals}
    usual = statistics.median(d for step, d in distances.items() if step > total // 4)
    result.numbers = {
        "seconds to the first step": arrivals[1] - began,
        "seconds of a step": usual,
        "seconds that a checkpoint holds it up": max(
            0.0, max(distances[save_at], distances[save_at + 1]) - usual
        ),
    }
    if idle:
        result.numbers["idle share"] = 1 - statistics.mean(idle) / 100
    else:
        result.notes.append("idle share: nvidia-smi says nothing here")
    return result


def _training_words(bench: Bench, folder: Path, steps: int, save_at: int) -> list[str]:
    (folder / "images").mkdir()
    rows = write_photos(folder / "images", 8 if bench.tiny else 512)
    # Enough rows for one epoch: the same photos again and again.
    lines = [
        json.dumps({"id": f"{turn}-{row.id}", "image": row.image, "question": row.question, "answer": "예"})
        for turn in range(1 if bench.tiny else 8)
        for row in rows
    ]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "text.txt").write_text("\n".join(QUESTIONS * 5), encoding="utf-8")
    train_tokenizer([folder / "text.txt"], folder / "spm.model", 320)
    build_index("table", folder / "train.jsonl", folder / "images", folder / "index")
    recipe = ["-r", "tiny", "-p", "cpu"] if bench.tiny else ["-r", "kobeit3"]
    sets = TINY_RUN if bench.tiny else (
        "model.weights=null", "model.reinit=[]", "model.text_rows=original", "optim.global_batch=256",
        f"optim.steps={steps}", f"save.every_steps={save_at}", "optim.epochs=null", "optim.warmup_epochs=0",
    )  # fmt: skip
    options = [word for each in (*sets, "eval.every_steps=999", "log_every=1") for word in ("--set", each)]
    files = [
        "--data",
        str(folder / "index"),
        "--tokenizer",
        str(folder / "spm.model"),
        "-o",
        str(folder / "run"),
    ]
    return [sys.executable, "-P", "-m", "kovqa_cli", "train", *recipe, *files, *options]


def _run_and_watch(words: list[str], log: Path, idle: list[float]) -> dict[int, float]:
    """When each step came into the log, by `time.perf_counter`; raises where the run fails."""
    arrivals: dict[int, float] = {}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    running = True
    while running:
        running = process.poll() is None
        lines = log.read_text("utf-8").splitlines() if log.is_file() else []
        now = time.perf_counter()
        for line in lines[len(arrivals) :]:
            if '"train"' in line and line.endswith("}"):
                arrivals.setdefault(json.loads(line)["step"], now)
        if not arrivals:
            idle.clear()  # before the first step nothing is to be busy
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"kovqa train ended with {process.returncode}: {process.stderr.read()[-500:]}")
    return arrivals


@contextmanager
def _idle_share_of(bench: Bench) -> Iterator[list[float]]:
    """Percentages of the time in which the GPU computed, twice a second, while the context lasts."""
    seen: list[float] = []
    words = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "-i",
        "0",
        "-lms",
        "500",
    ]
    if bench.device.type != "cuda":
        yield seen
        return
    try:
        watcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield seen
        return
    from threading import Thread

    def read() -> None:
        for line in watcher.stdout or ():
            if line.strip().isdigit():
                seen.append(float(line))

    Thread(target=read, daemon=True).start()
    try:
        yield seen
    finally:
        watcher.terminate()
        watcher.wait()
