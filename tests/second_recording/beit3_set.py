"""The second set of BEiT-3: other width, heads, layers, patches, vocabulary, classes, batches and steps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests import parity
from tests.second_recording import beit3_reference as reference
from tests.second_recording.beit3_recorder import (
    CLASSES,
    FFN,
    HEADS,
    LAYERS,
    PATCH,
    SIDE,
    SIDES,
    SIZES,
    UNUSED_TOKENS,
    WIDTH,
    Recorder,
    half,
    whole,
)
from tests.second_recording.beit3_reference import State

# Of the first set, whatever does not depend on a model's sizes.
SAME = ("images", "aihub", "vqav2", "coco_caption", "expected_vqa_normalize.json", "expected_caption_metrics.json",
        "expected_randaug_ops.safetensors", "expected_caption_mask_counts.json")  # fmt: skip


def write_beit3_set(folder: Path) -> None:
    """Write the second set into an empty folder."""
    r = Recorder(folder)
    for name in SAME:
        copy = shutil.copytree if parity.path(name).is_dir() else shutil.copy
        copy(parity.path(name), folder / name)
    about = {
        "embed_dim": WIDTH, "num_heads": HEADS, "num_layers": LAYERS, "ffn_dim": FFN, "image_size": SIDE,
        "patch_size": PATCH, "num_classes": CLASSES, "vocab_size": r.vocab, "tokenizer_vocab": r.ids, "mask_id": r.mask,
    }  # fmt: skip
    r.json("config.json", r.first | about)
    vqa = r.body(final_norm=False) | r.vqa_heads()
    torch.save({"model": vqa}, folder / "vqa.pth")
    captioning = half(r.body(final_norm=True) | r.word_head())
    torch.save({"module": captioning}, folder / "captioning.pth")
    pretraining = captioning | half(r._linear("mim_head", 31, WIDTH))
    torch.save({"model": pretraining}, folder / "pretrain_fp16.pth")
    r.tensors("other_heads.safetensors", **r.other_heads())
    write_tokenizer(r)
    write_pixels(r)
    write_forward(r, vqa, whole(captioning))
    write_vqa_training(r, vqa)
    write_rules(r, vqa, whole(captioning))
    write_loading(r, vqa, whole(pretraining))
    write_captions(r, whole(captioning))


# ------------------------------------------------------------------------- tokenizer and pixels


def write_tokenizer(r: Recorder) -> None:
    """Tokens of private characters are added at the end: only the number of ids and `<mask>` move."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(parity.path("tokenizer.model").read_bytes())
    for number in range(UNUSED_TOKENS):
        model.pieces.add(piece=chr(0xE100 + number), score=-99.0)
    (r.folder / "tokenizer.model").write_bytes(model.SerializeToString())
    old = r.first["mask_id"]

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        return r.mask if type(value) is int and value == old else value

    ids = moved(parity.json_of("expected_tokenizer.json"))
    r.json("expected_tokenizer.json", ids | {"vocab_size": r.ids})
    r.json("expected_tokenizer_decode.json", moved(parity.json_of("expected_tokenizer_decode.json")))


def write_pixels(r: Recorder) -> None:
    """Other sides, horizontal pass first: as Pillow before 13.0 resized all images."""
    recorded: dict[str, Tensor] = {}
    for path in sorted((r.folder / "images").iterdir()):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        for side in (24, 40):
            rows = rgb.resize((side, rgb.height), Image.Resampling.BICUBIC)
            pixels = np.array(rows.resize((side, side), Image.Resampling.BICUBIC), np.float32)
            recorded[f"{path.stem}.{side}"] = torch.from_numpy(pixels).permute(2, 0, 1) / 255 * 2 - 1
    r.tensors("expected_preprocess.safetensors", **recorded)


# ------------------------------------------------------------------------------------- networks


@torch.no_grad()
def write_forward(r: Recorder, vqa: State, captioning: State) -> None:
    image = r.image(3)
    tokens, padding = r.text(3, 11)
    hidden = torch.randint(0, 2, (3, SIDES[SIDE] ** 2), generator=r.generator)
    r.tensors("inputs.safetensors", image=image, language_tokens=tokens, padding_mask=padding,
              vision_masked_position=hidden)  # fmt: skip
    pixels, empty = image.float(), padding.bool()
    states = reference.encode(vqa, SIZES, pixels, tokens, empty)
    of_text = reference.encode(vqa, SIZES, None, tokens, empty)
    expected = {
        "vqa.logits": reference.vqa_logits(vqa, SIZES, pixels, tokens, empty),
        "vqa.pooled": reference.pooled(vqa, SIZES, pixels, tokens, empty),
        "vqa.logits_nopad": reference.vqa_logits(vqa, SIZES, pixels[:1], tokens[:1], None),
        "image.out": reference.encode(vqa, SIZES, pixels)[-1],
        "vl_vmask.out": reference.encode(vqa, SIZES, pixels, tokens, empty, hidden_patches=hidden.bool())[-1],
        "cap_vl_finalln.out": reference.encode(captioning, SIZES, pixels, tokens, empty, final_norm=True)[-1],
        "vl.out": states[-1], "text.out": of_text[-1],
        **{f"vl.hidden{i}": state for i, state in enumerate(states[:-1])},
        **{f"text.hidden{i}": state for i, state in enumerate(of_text[:-1])},
    }  # fmt: skip
    r.tensors("expected_forward.safetensors", **{name: tensor.clone() for name, tensor in expected.items()})
    labels = r.labels(3)
    best = expected["vqa.logits"].argmax(1).tolist()
    labels[torch.arange(3), torch.tensor(best)] = torch.tensor([0.6, 0.0, 1.0])
    r.tensors("vqa_eval_labels.safetensors", labels=labels)
    r.json("expected_vqa_eval.json", {
        "metric_key": "score", "stats": {"score": 100 * 1.6 / 3}, "batches": [2, 1], "top1_class": best,
        "predictions": [{"question_id": 9000001 + i, "answer": f"ans{label}"} for i, label in enumerate(best)],
    })  # fmt: skip


def write_vqa_training(r: Recorder, vqa: State) -> None:
    inputs = parity.load_tensors(r.folder / "inputs.safetensors")
    given = inputs["image"], inputs["language_tokens"], inputs["padding_mask"].bool()
    labels, w = r.labels(3), reference.leaves(vqa)
    loss = reference.vqa_loss(reference.vqa_logits(w, SIZES, *given), labels)
    loss.backward()
    gradients = {name: t.grad for name, t in w.items() if t.grad is not None}
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    some = ("beit3.text_embed.weight", "beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.proj.weight",
            f"beit3.encoder.layers.{LAYERS - 1}.self_attn.k_proj.B.weight", "head.3.bias",
            "beit3.encoder.layers.0.self_attn.q_proj.A.weight")  # fmt: skip
    r.tensors("expected_vqa_loss.safetensors", labels=labels, loss=loss, grad_norm=total,
              **{f"grad.{name}": gradients[name] for name in some})  # fmt: skip
    r.json(
        "expected_vqa_grad_norms.json",
        {n: gradients[n].norm().item() if n in gradients else None for n in vqa},
    )
    batches = [(r.image(2), *r.text(2, 9), r.labels(2)) for _ in range(4)]
    parts = ("image", "language_tokens", "padding_mask", "labels")
    stored = {
        f"{part}.{i}": t for i, batch in enumerate(batches) for part, t in zip(parts, batch, strict=True)
    }
    r.tensors("train_batches_vqa.safetensors", **stored)
    common = {"weight_decay": 0.03, "betas": [0.9, 0.97], "eps": 1e-8, "num_layers": LAYERS}
    plain = {"layer_decay": 1.0, "task_head_lr_weight": 0, "clip_grad": None, "update_freq": 1}
    cases = [
        common | plain | {"name": "one_step_const_lr", "steps": 1, "lr_per_update": [5e-4], "task_head_lr_weight": 9.0},
        common | plain | {"name": "three_steps_clip", "steps": 3, "lr_per_update": [0.0, 4e-4, 2e-4], "layer_decay": 0.8,
                          "clip_grad": 0.9},
        common | plain | {"name": "accumulate2", "steps": 4, "lr_per_update": [3e-4, 1e-4], "update_freq": 2},
    ]  # fmt: skip
    r.json("expected_train_vqa.json", [_train_vqa(case, vqa, batches, given) for case in cases])


def _train_vqa(case: dict[str, Any], vqa: State, batches: Any, given: Any) -> dict[str, Any]:
    w = reference.leaves(vqa)
    optimizer = reference.adamw(w, case)
    losses: list[float] = []
    norms: list[float | None] = []
    for number in range(case["steps"]):
        image, tokens, padding, labels = batches[number]
        logits = reference.vqa_logits(w, SIZES, image.float(), tokens, padding.bool())
        loss = reference.vqa_loss(logits, labels)
        losses.append(loss.item())
        (loss / case["update_freq"]).backward()
        update, place = divmod(number, case["update_freq"])
        is_last = place == case["update_freq"] - 1
        rate = case["lr_per_update"][update]
        norms.append(reference.step(optimizer, w, rate, case["clip_grad"]) if is_last else None)
    with torch.no_grad():
        after = reference.vqa_logits(w, SIZES, *given).tolist()
    done = {"losses": losses, "grad_norms": norms, "logits_after": after, "final_params": reference.norms(w)}
    return case | done


def write_rules(r: Recorder, vqa: State, captioning: State) -> None:
    """Parameter groups in the first set's settings, schedules and drop path rates by their formulas."""
    cases = []
    for case in parity.json_of("expected_param_groups.json"):
        case = {key: value for key, value in case.items() if key != "params"} | {"num_layers": LAYERS}
        heads = parity.load_tensors(r.folder / "other_heads.safetensors")
        own = {n.split(":", 1)[1]: t for n, t in heads.items() if n.startswith(f"{case['model']}:")}
        body = {name: tensor for name, tensor in captioning.items() if name.startswith("beit3.")}
        weights: Mapping[str, Tensor] = {"vqa": vqa, "captioning": captioning}.get(case["model"], body | own)
        rules = {name: reference.parameter_rule(name, t.ndim, case) for name, t in weights.items()}
        # A group for each layer (or head) and each of decay and none.
        keys = {name: (_group_of(name, case), rule[0] > 0) for name, rule in rules.items()}
        order = list(dict.fromkeys(keys.values()))
        params = {
            name: {"weight_decay": decay, "lr_scale": scale, "group": order.index(keys[name])}
            for name, (decay, scale) in rules.items()
        }
        cases.append(case | {"params": params})
    r.json("expected_param_groups.json", cases)
    schedules = []
    for epochs, steps, warmup, base, final in ((3, 7, 2, 3e-4, 1e-6), (2, 5, 0, 1e-3, 0.0)):
        rise = np.linspace(0, base, warmup * steps)
        fall = np.arange(epochs * steps - warmup * steps) / max(1, epochs * steps - warmup * steps)
        values = [*rise, *(final + (base - final) / 2 * (1 + np.cos(np.pi * fall)))]
        schedules.append({
            "base_value": base, "final_value": final, "epochs": epochs, "niter_per_ep": steps,
            "warmup_epochs": warmup, "warmup_steps": -1, "values": list(map(float, values)),
        })  # fmt: skip
    r.json("expected_lr_schedules.json", schedules)
    rates = [(0.12, LAYERS), (0.3, 9)]
    drops = [{"rate": x, "layers": n, "values": [x * i / (n - 1) for i in range(n)]} for x, n in rates]
    r.json("expected_drop_path.json", drops)


def _group_of(name: str, case: Mapping[str, Any]) -> float:
    """What sets a parameter's group apart beside its decay: its rate, which every layer has for itself."""
    return reference.parameter_rule(name, 2, case)[1]


@torch.no_grad()
def write_loading(r: Recorder, vqa: State, pretraining: State) -> None:
    tokens, padding = r.text(2, 9)
    expected: dict[str, Tensor] = {"language_tokens": tokens, "padding_mask": padding}
    report = {}
    table = "beit3.encoder.embed_positions.A.weight"
    unused = [name for name in pretraining if name not in vqa]
    for side, grid in SIDES.items():
        rows, square = (
            pretraining[table][:3],
            pretraining[table][3:].reshape(1, SIDES[SIDE], SIDES[SIDE], WIDTH),
        )
        if grid != SIDES[SIDE]:
            moved = torch.nn.functional.interpolate(square.permute(0, 3, 1, 2), (grid, grid), mode="bicubic")
            square = moved.permute(0, 2, 3, 1)
        positions = torch.cat([rows, square.reshape(grid * grid, WIDTH)])
        image = r.image(2, side)
        seen = reference.encode(
            pretraining | {table: positions}, SIZES, image.float(), tokens, padding.bool()
        )[-1]
        expected |= {f"image.{side}": image, f"{side}.pos_embed_A": positions, f"{side}.encoder_out": seen}
        lacking = [name for name in vqa if name not in pretraining]
        report[str(side)] = {
            "grid": [SIDES[SIDE], grid], "loaded": len(vqa) - len(lacking), "not_loaded": lacking,
            "log": [f"Weights from pretrained model not used in the model: {unused}"],
        }  # fmt: skip
    r.tensors("expected_load_interpolate.safetensors", **expected)
    r.json("expected_load_report.json", report)


# ------------------------------------------------------------------------------------- captions


def write_captions(r: Recorder, captioning: State) -> None:
    tokens, padding = r.text(2, 10)
    places = (torch.rand(2, 10, generator=r.generator) < 0.5) & (padding == 0)
    places[:, 0], places[:, 1] = False, True
    masked = torch.where(places, r.mask, tokens)
    image = r.image(2)
    r.tensors("caption_inputs.safetensors", image=image, language_tokens=tokens, masked_tokens=masked,
              language_masked_pos=places.long(), padding_mask=padding)  # fmt: skip
    given = image.float(), masked, padding.bool()
    targets, smoothing, drop = tokens[places], 0.1, 0.2
    expected: dict[str, Tensor] = {}
    for name, share in (("keep_all", 0.0), ("drop_worst", drop)):
        w = reference.leaves(captioning)
        everywhere = reference.caption_logits(w, SIZES, *given)
        loss = reference.caption_loss(everywhere[places], targets, smoothing, share)
        loss.backward()
        gradients = {n: t.grad for n, t in w.items() if t.grad is not None}
        expected |= {f"loss.{name}": loss, f"grad_norm.{name}": torch.stack([g.norm() for g in gradients.values()]).norm(),
                     f"acc.{name}": (everywhere[places].argmax(1) == targets).float().mean()}  # fmt: skip
    expected |= {
        f"grad.{n}": gradients[n] for n in ("mlm_head.bias", "beit3.encoder.layers.1.ffn.A.fc2.bias")
    }
    expected["embed_positions_B_grad_rows0_40"] = gradients["beit3.encoder.embed_positions.B.weight"][:33]
    expected |= {"logits_all_positions": everywhere, "logits_at_masked": everywhere[places].clone()}
    with torch.no_grad():
        unmasked = reference.caption_logits(captioning, SIZES, image.float(), tokens, padding.bool())
        expected["logits_unmasked_all_positions"] = unmasked
        words = tokens[:, 1:5].contiguous()
        r.tensors("incremental_tokens.safetensors", tokens=words)
        slots = []
        for step in range(words.shape[1] + 1):
            begin, end = torch.zeros(2, 1, dtype=torch.long), torch.full((2, 1), r.mask)
            fed = torch.cat([begin, words[:, :step], end], 1)
            slots.append(reference.caption_logits(captioning, SIZES, image.float(), fed, None)[:, -1])
        expected |= {"incremental.logits": torch.stack(slots, 1), "incremental.full_last": slots[-1].clone()}
        write_beams(r, captioning)
    r.tensors("expected_caption.safetensors", **expected)
    case = {
        "lr_per_update": [4e-4, 2e-4], "weight_decay": 0.02, "betas": [0.9, 0.98], "eps": 1e-8, "layer_decay": 1.0,
        "task_head_lr_weight": 0, "label_smoothing": smoothing, "drop_worst_ratio": 0.3, "drop_worst_after": 0,
        "global_steps": [0, 1],
    }  # fmt: skip
    w, losses, norms = reference.leaves(captioning), [], []
    optimizer = reference.adamw(w, case)
    for step, rate in zip(case["global_steps"], case["lr_per_update"], strict=True):
        share = case["drop_worst_ratio"] if step > case["drop_worst_after"] else 0
        logits = reference.caption_logits(w, SIZES, *given)[places]
        loss = reference.caption_loss(logits, targets, smoothing, share)
        loss.backward()
        losses.append(loss.item())
        norms.append(reference.step(optimizer, w, rate, None))
    r.json("expected_train_caption.json", case | {"losses": losses, "grad_norms": norms})


def write_beams(r: Recorder, captioning: State) -> None:
    import sentencepiece

    image = r.image(3)
    r.tensors("beam_images.safetensors", image=image)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(r.folder / "tokenizer.model"))
    cases = []
    for num_beams, max_len, length_penalty in ((1, 7, 0.6), (4, 9, 0.9), (2, 6, 0.0)):
        settings = {"num_beams": num_beams, "max_len": max_len, "length_penalty": length_penalty}
        found = [reference.beam_search(captioning, SIZES, one.float(), r.mask, **settings) for one in image]
        cases.append(settings | {
            "decoded_ids": [reference.decoded(h, max_len) for h in found], "scores": [h.score for h in found],
            "captions": [processor.decode([i - 1 for i in h.ids[1:-1] if 3 < i < r.mask]) for h in found],
        })  # fmt: skip
    r.json("expected_beam_search.json", cases)
