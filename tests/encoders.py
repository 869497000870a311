"""Published encoders as folders, tiny and with random weights: made offline, read like downloaded ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from kovqa_core.files import write_json
from kovqa_core.models.torchvision_compat import load_torchvision
from safetensors.torch import save_file

PICTURE = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}


def question_folder(folder: Path, tokenizer: Path) -> Path:
    """A Hugging Face folder of an XLM-RoBERTa, with the names of a masked language model."""
    load_torchvision()
    from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    vocab = load_xlmr_tokenizer(tokenizer).vocab_size
    XLMRobertaForMaskedLM(
        XLMRobertaConfig(vocab_size=vocab, max_position_embeddings=66, **sizes, **ids)
    ).save_pretrained(folder)
    shutil.copy(tokenizer, folder / "sentencepiece.bpe.model")
    return folder


def picture_folder(folder: Path) -> Path:
    """A timm folder of a ResNet-50 that tells a thousand classes apart."""
    load_torchvision()
    import timm

    torch.manual_seed(2)
    net = timm.create_model("resnet50", pretrained=False, **PICTURE)
    folder.mkdir()
    write_json(
        folder / "config.json", {"architecture": "resnet50", "num_classes": 1000, "model_args": PICTURE}
    )
    save_file(net.state_dict(), folder / "model.safetensors")
    return folder
