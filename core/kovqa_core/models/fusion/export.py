"""A fusion model -> folders for transformers and for timm, and a file with the rest."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.answers import write_answers
from kovqa_core.files import write_json
from kovqa_core.models.family import unloadable_weights_error
from kovqa_core.models.fusion.config import SENTENCEPIECE_FILES, ModelConfig
from kovqa_core.models.fusion.export_check import MODULE_NAME
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import FastTokenizer
from kovqa_core.models.fusion.vqa import FusionProcessor
from kovqa_core.models.torchvision_compat import load_torchvision

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QUESTION_FOLDER, PICTURE_FOLDER, HEAD_FILE = "question", "picture", "head.safetensors"

_FUSION_LOADING_CODE = """\
from fusion_model import FusionModel

model = FusionModel(".")
print(model.answer("image.jpg", "무슨 색인가요?"))
"""
_XLMR_SPECIAL_TOKENS = {
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
    "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip


def write_fusion_export(net: FusionNet, processor: FusionProcessor, folder: Path) -> str:
    """Write `question/`, `picture/`, `head.safetensors`, `answers.txt` and `fusion_model.py`; Python that loads them.

    Args:
        net: the network.
        processor: its tokenizer and answers.
        folder: where to write; must exist.
    """
    import timm

    config = net.config
    net.question.config.save_pretrained(folder / QUESTION_FOLDER)
    save_file(
        _contiguous_state(net.question), folder / QUESTION_FOLDER / "model.safetensors", {"format": "pt"}
    )
    _write_tokenizer(processor, folder / QUESTION_FOLDER)
    timm.models.save_for_hf(
        net.picture,
        str(folder / PICTURE_FOLDER),
        model_config={"pretrained_cfg": _pretrained_cfg(config)},
        model_args={k: v for k, v in config.picture_config.items() if k != "architecture"},
        safe_serialization=True,
    )
    head = {
        name: t
        for name, t in _contiguous_state(net).items()
        if not name.startswith(("question.", "picture."))
    }
    save_file(head, folder / HEAD_FILE)
    write_answers(folder / "answers.txt", processor.answers)
    shutil.copyfile(Path(__file__).with_name("published_model.py"), folder / MODULE_NAME)
    return _FUSION_LOADING_CODE


def is_fusion_export(folder: Path) -> bool:
    """Was a folder written by `write_fusion_export`?"""
    return (folder / HEAD_FILE).is_file()


def read_exported_state(folder: Path) -> dict[str, Tensor]:
    """The state dict of a network, of the three files that `write_fusion_export` made of it.

    Raises:
        ModelError: one is missing or broken.
    """
    state: dict[str, Tensor] = {}
    files = {
        "question.": f"{QUESTION_FOLDER}/model.safetensors",
        "picture.": f"{PICTURE_FOLDER}/model.safetensors",
        "": HEAD_FILE,
    }
    for prefix, file in files.items():
        try:
            state |= {f"{prefix}{name}": tensor for name, tensor in load_file(folder / file).items()}
        except (SafetensorError, OSError) as error:
            raise unloadable_weights_error(folder, error, file) from None
    return state


def _contiguous_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in net.state_dict().items()}


def _pretrained_cfg(config: ModelConfig) -> dict[str, object]:
    """Preprocessing in timm's words: squashed to a square, nothing cropped."""
    return {
        "input_size": [3, config.image_size, config.image_size],
        "mean": config.mean,
        "std": config.std,
        "interpolation": config.resample,
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }


def _write_tokenizer(processor: FusionProcessor, folder: Path) -> None:
    """The tokenizer's file, and one that transformers reads.

    Of a bare SentencePiece model transformers makes a tokenizer of five words, without saying so.
    """
    tokenizer, file = processor.tokenizer, folder / "tokenizer.json"
    special_tokens: dict[str, str | None]
    if isinstance(tokenizer, FastTokenizer):
        file.write_bytes(tokenizer.model_bytes)
        added = {token["id"]: token["content"] for token in parse_json(tokenizer.model_bytes)["added_tokens"]}
        special_tokens = {"pad_token": added.get(processor.config.question_config.get("pad_token_id"))}
    else:
        (folder / SENTENCEPIECE_FILES[0]).write_bytes(tokenizer.model_bytes)
        _convert_sentencepiece(folder / SENTENCEPIECE_FILES[0]).save(str(file))
        special_tokens = {**_XLMR_SPECIAL_TOKENS}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": processor.config.max_text}
    write_json(folder / "tokenizer_config.json", {**settings, **special_tokens})


def _convert_sentencepiece(file: Path) -> Tokenizer:
    """A SentencePiece model in XLM-R layout as a `tokenizers.Tokenizer`; text is composed (NFC) first, as here."""
    load_torchvision()
    from tokenizers import normalizers
    from transformers.convert_slow_tokenizer import XLMRobertaConverter

    class Converter(XLMRobertaConverter):
        handle_byte_fallback = True

    slow = SimpleNamespace(vocab_file=str(file), convert_tokens_to_ids={"<s>": 0, "</s>": 2}.get)
    tokenizer: Tokenizer = Converter(slow).converted()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), tokenizer.normalizer])
    return tokenizer
