"""The base model: a Hugging Face folder as it is, opened offline, and recognised when it is opened again."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from kovqa_core.errors import MachineError, ModelError, SettingsError
from kovqa_core.messages import message, shell_quote
from kovqa_core.models.closed_folder import (
    hub_offline,
    read_model_json,
    require_closed_folder,
)
from kovqa_core.models.library_errors import library_errors
from kovqa_core.models.plausible_sizes import require_plausible_sizes
from kovqa_core.models.tokenizer_json import require_readable_tokenizer, require_tokenizer_json
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor
from kovqa_core.models.vlm.llava_folder import detect_llava_folder
from kovqa_core.models.vlm.llava_weight_files import unknown_weights_error
from kovqa_core.models.vlm.memory import component_of

_FINGERPRINT_BYTES = 1 << 20  # bytes read at both ends of a weight file
_NF4_BLOCK = 64  # numbers that share a scale; on a CPU bitsandbytes computes no rows that end within one
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")


def fingerprint_base(folder: Path) -> str:
    """SHA-256 of configuration, weight index, and both ends and the size of every weight file.

    Fine-tuned models of one architecture differ in their last tensors, so the 15 GB between need not be read.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for index in sorted(folder.glob("*.index.json")):
        digest.update(index.read_bytes())
    for path in sorted(path for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_FINGERPRINT_BYTES))
            stream.seek(max(0, size - _FINGERPRINT_BYTES), os.SEEK_SET)
            digest.update(stream.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()


def pin_base_fingerprint(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with the base's fingerprint.

    Raises:
        ModelError: the base is not the one that was trained on, or is in the original LLaVA's layout.
    """
    if "mm_vision_tower" in read_model_json(folder / "config.json"):
        raise ModelError(
            message(
                "vlm.original-llava-layout",
                "{folder} is in the layout of the original LLaVA, which transformers would read as a random model",
                folder=folder,
            ),
            message(
                "vlm.original-llava-layout.hint",
                "convert it first: {command}",
                command=llava_import_command(folder),
            ),
        )
    fingerprint = fingerprint_base(folder)
    if config.fingerprint not in (None, fingerprint):
        raise ModelError(
            message(
                "vlm.another-base",
                "{folder} is not the base this model was trained on (its fingerprint differs)",
                folder=folder,
            ),
            message(
                "vlm.another-base.hint", "put back the base that was used, at the same path or into assets/"
            ),
        )
    return config.model_copy(update={"fingerprint": fingerprint})


def llava_import_command(folder: Path) -> str:
    """The command that makes a plain folder of a LLaVA folder."""
    command = ["kovqa", "import", str(folder)]
    if detect_llava_folder(folder).folder_type in ("projector", "lora"):
        command += ["--base", "VICUNA"]
    return " ".join(map(shell_quote, [*command, "--vision", "CLIP", "-o", f"{folder.name}-plain"]))


def load_base_network(folder: Path, config: ModelConfig, *, four_bit: bool = False) -> HfNetwork:
    """The network with its weights; nothing outside of its folder is opened or asked.

    Args:
        folder: of the network.
        config: what learns, and in which form.
        four_bit: the language model in 4 bits, though `config` does not say so.

    Raises:
        SettingsError: 4 bits of weights that are quantised already.
        ModelError: transformers has no class for it; a file is damaged or leads elsewhere, or weights are missing.
        MachineError: 4-bit weights are wanted and bitsandbytes is not here.
    """
    require_closed_folder(folder)
    dtype = torch.float32 if config.dtype == "fp32" or config.train.language == "full" else torch.bfloat16
    options: dict[str, object] = {"local_files_only": True, "trust_remote_code": config.trust_remote_code}
    with hub_offline():
        # Each file by itself first, so that an error names the right one.
        with _opening(folder / "config.json"):
            hf_config = transformers.AutoConfig.from_pretrained(folder, **options)
        if (folder / "generation_config.json").is_file():
            _require_token_ids(folder / "generation_config.json")
            with _opening(folder / "generation_config.json"):
                transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
        require_plausible_sizes(folder, hf_config.to_dict())
        if four_bit or config.train.language == "qlora":
            _require_not_quantised(folder, hf_config.to_dict())
            # What was trained beside 4-bit weights keeps them as they were, whatever their widths.
            any_width = config.train.language == "qlora"
            options["quantization_config"] = _four_bit_config(folder, config, dtype, any_width=any_width)
        with _opening(folder):
            net, report = transformers.AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **options
            )
    # transformers draws missing weights at random and goes on: a half downloaded model would answer nonsense.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelError(
            message(
                "vlm.base-lacks-weights",
                "{folder} lacks {count} weights that its configuration names ({first}, …)",
                folder=folder,
                count=len(missing),
                first=missing[0],
            ),
            message("vlm.base-lacks-weights.hint", "fetch it again"),
        )
    _require_llava_without_extras(folder, net, report["unexpected_keys"])
    return net


def _require_token_ids(file: Path) -> None:
    """See that the tokens which generation settings name are ids; transformers takes whatever stands there.

    Raises:
        ModelError: one is not.
    """
    values = read_model_json(file)
    for key in ("eos_token_id", "pad_token_id", "bos_token_id"):
        value = values.get(key)
        ids = value if isinstance(value, list) and key == "eos_token_id" else [value]
        if not all(each is None or (type(each) is int and 0 <= each < 1 << 31) for each in ids):
            raise ModelError(
                message(
                    "vlm.odd-token-id",
                    "{file}: {key}: {value!r} is not a token id",
                    file=file,
                    key=key,
                    value=value,
                ),
                message("vlm.odd-token-id.hint", "put back the file that belongs to the model"),
            )


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Whatever a library raises at a damaged file, or one that wants code to run, as a `ModelError` naming it."""

    def cannot_be_opened(reason: str) -> ModelError:
        return ModelError(
            message(
                "vlm.base-cannot-be-opened", "{folder} cannot be opened ({reason})", folder=path, reason=reason
            ),
            message(
                "vlm.base-cannot-be-opened.hint",
                "fetch the whole folder again; it must be an image-text-to-text model of transformers, and code of its "
                "own runs only with --trust-remote-code",
            ),
        )  # fmt: skip

    with library_errors(cannot_be_opened):
        yield


def _require_llava_without_extras(folder: Path, net: HfNetwork, unexpected: Iterable[str]) -> None:
    """Of other models transformers knows which weights it may pass over; a LLaVA uses all but computed buffers.

    Raises:
        ModelError: one has no place: tiles joined by a line end, a third projector layer.
    """
    extra = sorted(name for name in unexpected if not name.endswith(("position_ids", "rotary_emb.inv_freq")))
    if extra and net.config.model_type == "llava":
        raise unknown_weights_error(
            folder,
            extra,
            message(
                "vlm.base-weights-unknown.hint",
                "its config.json is of another model, or it was made for code of its own: take another folder",
            ),
        )


def load_hf_processor(folder: Path, config: ModelConfig) -> HfProcessor:
    """Tokenizer, image processor and chat template.

    Images are resized by Pillow: the other way gives other pixels, and a folder does not say which
    one it was trained with (docs/sources/llava.md, L35).

    Raises:
        ModelError: transformers cannot open it.
    """
    require_closed_folder(folder)
    options: dict[str, object] = {"local_files_only": True, "trust_remote_code": config.trust_remote_code}
    names = ("processor_config.json", "preprocessor_config.json")
    processor_file = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
    require_tokenizer_json(folder / "tokenizer.json")
    with hub_offline(), _opening(processor_file):
        try:
            processor: HfProcessor = transformers.AutoProcessor.from_pretrained(folder, **options)
            processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", **options
            )
            _ = processor.tokenizer
        except Exception:
            _open_parts(folder, options)
            raise
    return processor


def _open_parts(folder: Path, options: Mapping[str, object]) -> None:
    """Open the parts of a processor by themselves, where the whole could not be: to name the file that is to blame.

    Only then: a tokenizer of today takes half a second and more to be read.

    Raises:
        ModelError: one of them cannot be opened, either.
    """
    if (folder / "config.json").is_file():
        with _opening(folder / "config.json"):
            transformers.AutoConfig.from_pretrained(folder, **options)
    require_readable_tokenizer(folder / "tokenizer.json")
    with _opening(folder / "tokenizer_config.json"):
        transformers.AutoTokenizer.from_pretrained(folder, **options)


def find_eos_token_ids(net: HfNetwork, processor: HfProcessor) -> list[int]:
    """Tokens that end an answer: those of the model's generation settings, and the tokenizer's.

    Both, because they differ: Gemma's tokenizer ends with <eos>, its turns with <end_of_turn>.

    Raises:
        ModelError: neither names one.
    """
    of_model = net.generation_config.eos_token_id
    token_ids = {*(of_model if isinstance(of_model, list) else [of_model]), processor.tokenizer.eos_token_id}
    token_ids.discard(None)
    if not token_ids:
        raise ModelError(
            message(
                "vlm.no-end-token",
                "neither generation_config.json nor the tokenizer of the base model names a token that ends "
                "an answer (eos_token_id, eos_token)",
            ),
            message(
                "vlm.no-end-token.hint",
                "name the one its chat template writes: eos_token in the folder's tokenizer_config.json",
            ),
        )
    return sorted(token_id for token_id in token_ids if token_id is not None)


def set_pad_token(processor: HfProcessor, eos_token_ids: Sequence[int]) -> None:
    """Give a tokenizer without a pad token its end token for places that do not count, as `generate` does."""
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        # The attention mask, not the token, says which places count: any token would do.
        [tokenizer.pad_token] = tokenizer.convert_ids_to_tokens(eos_token_ids[:1])


def _require_not_quantised(folder: Path, hf_config: Mapping[str, object]) -> None:
    """See that weights which are to be held in 4 bits are whole numbers' so far: transformers takes one way or the other.

    Raises:
        SettingsError: they were published in fewer bits.
    """
    if hf_config.get("quantization_config"):
        raise SettingsError(
            message("vlm.quantised-already", "{folder} was published with quantised weights", folder=folder),
            message(
                "vlm.quantised-already.hint",
                "leave out --load 4bit or model.train=qlora, or use the model that it was made from",
            ),
        )


def _four_bit_config(folder: Path, config: ModelConfig, dtype: torch.dtype, *, any_width: bool) -> object:
    """A `BitsAndBytesConfig`: NF4 for the language model's linear layers; vision, projector and head stay as they are.

    Source: arXiv 2305.14314, section 3 (NF4 and double quantisation).
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MachineError(
            message("vlm.no-bitsandbytes", "weights in 4 bits need bitsandbytes, which is not installed"),
            message(
                "vlm.no-bitsandbytes.hint",
                "pip install 'kovqa[qlora]'; or leave out --load 4bit, or train with model.train=lora",
            ),
        )
    # The names of its modules, from a network on the meta device: no weights are read or allocated.
    with torch.device("meta"):
        hf_config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=config.trust_remote_code
        )
        net = transformers.AutoModelForImageTextToText.from_config(
            hf_config, trust_remote_code=config.trust_remote_code
        )
    skipped = [
        name
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (component_of(name) != "language" or not (any_width or module.in_features % _NF4_BLOCK == 0))
    ]
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*skipped, "lm_head"],
    )
