"""The base model: a Hugging Face folder as it is, opened offline and recognised again."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
from pathlib import Path
from typing import Any

import torch

from kovqa_core.errors import MachineError, ModelError
from kovqa_core.files import read_json
from kovqa_core.models.vlm import convert_llava
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.memory import component_of

_FINGERPRINT_BYTES = 1 << 20  # bytes read at both ends of a weight file
CODE_HINT = (
    "code of its own runs only with --trust-remote-code, in a training --set model.trust_remote_code=true"
)
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


def fingerprint_base(folder: Path) -> str:
    """SHA-256 of configuration, weight index and both ends of every weight file.

    Two models of one kind differ in their last tensors, so that 15 GB need not be read.
    """
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for index in sorted(folder.glob("*.index.json")):
        found.update(index.read_bytes())
    for path in sorted(path for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern)):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as stream:
            found.update(stream.read(_FINGERPRINT_BYTES))
            stream.seek(max(0, size - _FINGERPRINT_BYTES), os.SEEK_SET)
            found.update(stream.read(_FINGERPRINT_BYTES))
    return found.hexdigest()


def pin_base_fingerprint(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the base's fingerprint.

    Raises:
        ModelError: the base is another than what was trained on, or in a layout of its own.
    """
    if "mm_vision_tower" in read_json(folder / "config.json"):
        raise ModelError(
            f"{folder} is in the layout of the original LLaVA, which transformers would read as a random model",
            f"convert it first: {llava_import_command(folder)}",
        )
    found = fingerprint_base(folder)
    if config.fingerprint not in (None, found):
        raise ModelError(
            f"{folder} is not the base this model was trained on (its fingerprint is another)",
            "put back the base that was used, at the same path or into assets/",
        )
    return config.model_copy(update={"fingerprint": found})


def llava_import_command(folder: Path) -> str:
    """What to type to make a plain folder of one of LLaVA's."""
    words = ["kovqa", "import", str(folder)]
    if convert_llava.detect_llava_folder(folder).kind in ("projector", "lora"):
        words += ["--base", "VICUNA"]
    return shlex.join([*words, "--vision", "CLIP", "-o", f"{folder.name}-plain"])


def load_base_network(folder: Path, config: ModelConfig) -> Any:
    """The network with its weights.

    Raises:
        ModelError: no class for it, or weights are missing.
        MachineError: 4-bit weights are asked for and bitsandbytes is not here.
    """
    dtype = torch.float32 if config.dtype == "fp32" or config.train.language == "full" else torch.bfloat16
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": config.trust_remote_code}
    if config.train.language == "qlora":
        options["quantization_config"] = _four_bit_config(folder, options, dtype)
    try:
        net, report = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{folder} cannot be opened ({str(error).strip().splitlines()[0]})",
            f"it must be an image-text-to-text model of transformers; {CODE_HINT}",
        ) from None
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} weights its configuration asks for ({lacking[0]}, …)",
            "fetch it again",
        )
    return net


def load_hf_processor(folder: Path, config: ModelConfig) -> Any:
    """Tokenizer, picture processor and chat template.

    Pictures are resized by Pillow: the other way gives other pixels, and a folder does not say which
    one it was trained with (docs/sources/llava.md, L35).
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": config.trust_remote_code}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **options)
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", **options
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise ModelError(
            f"the processor in {folder} cannot be opened ({str(error).strip().splitlines()[0]})",
            f"fetch the whole folder again; {CODE_HINT}",
        ) from None
    return processor


def find_eos_token_ids(net: Any, processor: Any) -> list[int]:
    """Tokens that end an answer: what the model's generation settings say, and the tokenizer's end."""
    named = net.generation_config.eos_token_id
    found = {*(named if isinstance(named, list) else [named]), processor.tokenizer.eos_token_id}
    return sorted(token for token in found if token is not None)


def _four_bit_config(folder: Path, options: dict[str, Any], dtype: torch.dtype) -> Any:
    """NF4 for the language model; vision, projector and head stay as they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MachineError(
            "model.train=qlora needs bitsandbytes, which is not installed",
            "pip install bitsandbytes, or use model.train=lora",
        )
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        net = transformers.AutoModelForImageTextToText.from_config(
            config, trust_remote_code=options["trust_remote_code"]
        )
    linear = [name for name, module in net.named_modules() if isinstance(module, torch.nn.Linear)]
    plain = [name for name in linear if component_of(name) != "language"] + ["lm_head"]
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=plain,
    )
