"""Vision, projector, language: which parameters learn, and what of them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.files import read_json, write_json
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_libraries import peft
from kovqa_core.models.vlm.memory import component_of

ADAPTER_FOLDER, TRAINED_FILE = "adapter", "trained.safetensors"


def apply_tuning(net: Any, config: ModelConfig, processor: Any, seed: int) -> Any:
    """The network with what learns set free, in fp32, and low-rank updates in place.

    Raises:
        SettingsError: a target of `lora.targets`, or a token of `tokens`, is nowhere.
    """
    net.requires_grad_(False)
    adapter = _adapter_config(net, config, processor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned = net if adapter is None else peft.get_peft_model(net, adapter)
    for name, parameter in net.named_parameters():
        module = name.rpartition(".")[0].removesuffix(".base_layer")
        learned = config.train.parts[component_of(name)] == "full" and not _is_adapter_parameter(name)
        if (
            learned
            and not (config.frozen and module.endswith(config.frozen))
            and parameter.is_floating_point()
        ):
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
        elif not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if config.dtype == "fp32" else torch.bfloat16)
    return tuned


def _adapter_config(net: Any, config: ModelConfig, processor: Any) -> Any:
    """Low-rank updates for the linear layers of parts, and for rows of the text table."""
    parts = {part for part, how in config.train.parts.items() if how == "lora"}
    targets = _lora_target_modules(net, parts, config.lora.targets)
    rows = _trainable_token_ids(config.tokens, processor.tokenizer)
    if targets:
        return peft.LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=targets,
            trainable_token_indices={"embed_tokens": rows} if rows else None,
        )
    if rows:
        return peft.TrainableTokensConfig(token_indices=rows, target_modules=["embed_tokens"])
    return None


def _lora_target_modules(net: nn.Module, parts: set[str], ends: Sequence[str]) -> list[str]:
    """Names of the linear layers of these parts; the head that names tokens stays as it is."""
    found = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
        and component_of(name) in parts
        and not name.endswith("lm_head")
        and (not ends or name.endswith(tuple(ends)))
    ]
    if parts and not found:
        raise SettingsError(
            f"no linear layer of {', '.join(sorted(parts))} ends in {' or '.join(ends) or 'any name'}",
            "leave model.lora.targets away to adapt all of them",
        )
    return found


def _trainable_token_ids(tokens: Sequence[str], tokenizer: Any) -> list[int]:
    known = tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in known]
    if unknown:
        raise SettingsError(
            f"model.tokens: the tokenizer has no token {unknown[0]!r}", "see its tokenizer.json"
        )
    return [known[token] for token in tokens]


def _is_adapter_parameter(name: str) -> bool:
    return "lora_" in name or "trainable_tokens_" in name


def trained_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn as they are, under the base model's names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and not _is_adapter_parameter(name)
    }


def has_adapter(net: Any) -> bool:
    """Has low-rank updates or rows of its own?"""
    return isinstance(net, peft.PeftModel)


def save_trained_weights(net: Any, folder: Path) -> None:
    """adapter/ in peft's own form, and trained.safetensors: each where there is something in it."""
    if has_adapter(net):
        net.save_pretrained(folder / ADAPTER_FOLDER, save_embedding_layers=False)
        (folder / ADAPTER_FOLDER / "README.md").unlink(missing_ok=True)  # a form to be filled in
        about = read_json(folder / ADAPTER_FOLDER / "adapter_config.json")
        # peft keeps sets: their order is another in every process
        ordered = {k: sorted(v) if k == "target_modules" else v for k, v in about.items()}
        write_json(folder / ADAPTER_FOLDER / "adapter_config.json", ordered)
    learned = {name: p.detach().contiguous() for name, p in trained_parameters(net).items()}
    if learned:
        save_file(learned, folder / TRAINED_FILE, metadata={"format": "pt"})


@torch.no_grad()
def load_trained_weights(net: Any, folder: Path) -> None:
    """Bring back what `save_trained` wrote.

    Raises:
        ModelError: a file is missing or broken, or belongs to another way of tuning.
    """
    try:
        if has_adapter(net):
            tensors = load_file(folder / ADAPTER_FOLDER / "adapter_model.safetensors")
            _require_same_names(
                tensors, peft.get_peft_model_state_dict(net, save_embedding_layers=False), folder
            )
            peft.set_peft_model_state_dict(net, tensors)
        learned = trained_parameters(net)
        if learned:
            tensors = load_file(folder / TRAINED_FILE)
            _require_same_names(tensors, learned, folder)
            for name, parameter in learned.items():
                parameter.copy_(tensors[name])
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"what {folder} trained cannot be read ({str(error).splitlines()[0]})", "use another step folder"
        ) from None


def _require_same_names(found: dict[str, Tensor], expected: dict[str, Any], folder: Path) -> None:
    if found.keys() != expected.keys():
        name = min(found.keys() ^ expected.keys())
        raise ModelError(
            f"{folder} was tuned in another way than its config.json says ({name} does not fit)",
            "put back the config.json that was saved with it",
        )


def merge_adapter(net: Any) -> Any:
    """The network with its low-rank updates added to the weights: a plain model again."""
    return net.merge_and_unload() if has_adapter(net) else net
