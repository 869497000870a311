"""Vision, projector, language: which parameters learn, and what of them is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kovqa_core.errors import ModelError, SettingsError, name_or_name
from kovqa_core.files import read_json, write_json, write_text
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import error_reason
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_libraries import peft
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor, HfTokenizer
from kovqa_core.models.vlm.lora_updates import (
    begin_with_base,
    initial_updates,
    join_initial_updates,
    joined_settings,
    merge_updates,
    split_initial_updates,
    take_out_updates,
)
from kovqa_core.models.vlm.memory import component_of

ADAPTER_FOLDER, TRAINED_FILE = "adapter", "trained.safetensors"
CARD_FILE = "README.md"  # of an adapter: what peft and the Hub call a model card
# peft opens such an adapter without a word: whoever finds the folder alone must be told here.
_INCOMPLETE_ADAPTER_CARD = """\
# This adapter is not complete by itself

It belongs to a checkpoint of kovqa, which also trained weights that a LoRA adapter does not hold ({components}).
They are in `../trained.safetensors`, under the names of the base model's parameters. peft loads this folder
without them and without a warning, and then gives other answers than the trained model.

Merge everything into a plain Hugging Face folder instead:

    kovqa export RUN -o FOLDER

# 이 어댑터만으로는 모델이 되지 않습니다

이 폴더는 kovqa 체크포인트의 일부입니다. 학습할 때 LoRA 어댑터에 들어가지 않는 가중치({components})도 함께 학습했고,
그 가중치는 `../trained.safetensors`에 기본 모델의 매개변수 이름으로 저장되어 있습니다. peft는 이 폴더를 그 가중치 없이,
아무 경고도 없이 열기 때문에 학습된 모델과 다른 답이 나옵니다.

대신 모두 합친 일반 Hugging Face 폴더를 만드세요.

    kovqa export RUN -o FOLDER
"""


def apply_tuning(
    net: HfNetwork, config: ModelConfig, processor: HfProcessor, seed: int, *, is_new: bool = True
) -> HfNetwork:
    """The network with what learns set free, in fp32, and low-rank updates in place.

    Args:
        net: the base model.
        config: what learns, and how.
        processor: its processor, whose tokenizer knows `config.tokens`.
        seed: of the updates.
        is_new: draw the updates; else they are loaded afterwards, and what they begin with costs nothing.

    Raises:
        SettingsError: a target of `lora.targets` or a token of `tokens` does not exist.
    """
    _require_components(net, config)
    # All frozen first: a base may come with anything set to learn.
    net.requires_grad_(False)
    adapter = _adapter_config(net, config, processor)
    with torch.random.fork_rng(devices=[]):  # the same updates in every process and on every resume
        torch.manual_seed(seed)
        tuned = net if adapter is None else _add_updates(net, adapter)
        if adapter is not None and is_new and config.lora.changes_base:
            begin_with_base(tuned, str(config.lora.init_lora_weights))
    frozen_dtype = torch.float32 if config.dtype == "fp32" else torch.bfloat16
    # Of `net`, not of peft's wrapper around it: it holds the same parameters, under names without a prefix.
    for name, parameter in net.named_parameters():
        if not parameter.is_floating_point():
            continue  # 4-bit weights lie packed in bytes
        module = name.rpartition(".")[0].removesuffix(".base_layer")  # the name before peft wrapped it
        learns = config.train.components[component_of(name)] == "full" and not _is_adapter_parameter(name)
        if learns and not (config.frozen and module.endswith(config.frozen)):
            # AdamW's steps are smaller than the gaps between bf16 numbers: they would be rounded away.
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
        # Low-rank updates learn and stay as peft made them; all that is frozen gets the dtype of the settings.
        elif not parameter.requires_grad:
            parameter.data = parameter.data.to(frozen_dtype)
    return tuned


def _require_components(net: HfNetwork, config: ModelConfig) -> None:
    """See that what is to learn is there: the names of some classes' projectors are not known, or they have none.

    Raises:
        SettingsError: it is not.
    """
    modes = config.train.components
    missing = {name for name, mode in modes.items() if mode != "none"} - {
        component_of(name) for name, _ in net.named_parameters()
    }
    if missing and set(modes.values()) != {"full"}:
        raise SettingsError(
            message(
                "vlm.no-such-component",
                "model.train: no weight of {kind} is known to be its {component}",
                kind=type(net).__name__,
                component=", ".join(sorted(missing)),
            ),
            message("vlm.no-such-component.hint", "leave it at none, or train all with model.train=full"),
        )


def _add_updates(net: HfNetwork, adapter: object) -> HfNetwork:
    """The network with its updates, by peft.

    Raises:
        SettingsError: peft cannot: updates of experts take no dropout, and DoRA not every layer.
    """
    try:
        tuned: HfNetwork = peft.get_peft_model(net, adapter)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise SettingsError(
            message(
                "vlm.updates-refused",
                "peft cannot update this base with the settings of model.lora ({reason})",
                reason=error_reason(error),
            ),
            message(
                "vlm.updates-refused.hint",
                "of a mixture of experts: --set model.lora.dropout=0; or name other layers with model.lora.targets",
            ),
        ) from None
    return tuned


def hold_frozen_products(net: HfNetwork, dtype: torch.dtype) -> None:
    """Hold what only products read, and does not learn, in the 16-bit type that the products are made in.

    Otherwise autocast would cast it anew in every forward pass, and keep both forms until the backward pass.
    What the residual stream reads (text table, norms) stays: the stream may leave the range of fp16.

    Args:
        net: tuned; some of it in another 16-bit type.
        dtype: of products, as training's precision says.
    """
    tables = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    for module in net.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype  # type: ignore[assignment]  # of 4-bit weights, by bitsandbytes
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            for parameter in module.parameters(recurse=False):
                is_16_bit = parameter.is_floating_point() and parameter.element_size() == 2
                if is_16_bit and not parameter.requires_grad and id(parameter) not in tables:
                    parameter.data = parameter.data.to(dtype)


def start_note(base_name: str, step: Path | None, model: nn.Module) -> str:
    """Where the weights of a model came from, and how much of it learns."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if step is None:
        return message(
            "vlm.started-from-base",
            "base {base}; {trainable:,} of {total:,} parameters learn",
            base=base_name,
            trainable=trainable,
            total=total,
        )
    return message(
        "vlm.started-from-run",
        "base {base}, goes on from {step}; {trainable:,} of {total:,} parameters learn",
        base=base_name,
        step=step,
        trainable=trainable,
        total=total,
    )


def projector_remark(net: HfNetwork) -> str:
    """What to know where the two layers of a LLaVA's projector do not learn as they should; else empty.

    One layer is what LLaVA v1 has (docs/sources/llava.md, L17): the second is an identity then. Of 1.5 both learn.
    """
    learns = {
        layer: any(
            f"multi_modal_projector.{layer}." in name and p.requires_grad
            for name, p in net.named_parameters()
        )
        for layer in ("linear_1", "linear_2")
    }
    is_single_layer = getattr(net.config, "projector_hidden_act", None) == "linear"
    if is_single_layer and learns["linear_2"]:
        return message(
            "vlm.identity-learns",
            "linear_2, which stands for the layer that LLaVA v1 does not have, learns: model.frozen=[linear_2] keeps it",
        )
    if not is_single_layer and learns["linear_1"] != learns["linear_2"]:
        return message(
            "vlm.half-a-projector-learns",
            "only {layer} of the projector's two layers learns: model.frozen=[] trains both",
            layer=next(layer for layer in learns if learns[layer]),
        )
    return ""


def _adapter_config(net: HfNetwork, config: ModelConfig, processor: HfProcessor) -> object:
    """peft's configuration: low-rank updates for linear layers, and rows of the text table; None for neither."""
    components = {name for name, mode in config.train.components.items() if mode == "lora"}
    targets = _lora_target_modules(net, components, config.lora.targets)
    token_ids = _trainable_token_ids(config.tokens, processor.tokenizer)
    if targets:
        return peft.LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            use_dora=config.lora.use_dora,
            use_rslora=config.lora.use_rslora,
            # See `begin_with_base` for the others.
            init_lora_weights=True if config.lora.changes_base else config.lora.init_lora_weights,
            target_modules=targets,
            trainable_token_indices={"embed_tokens": token_ids} if token_ids else None,
        )
    if token_ids:
        return peft.TrainableTokensConfig(token_indices=token_ids, target_modules=["embed_tokens"])
    return None


def _lora_target_modules(net: nn.Module, components: Collection[str], suffixes: Sequence[str]) -> list[str]:
    """Names of the linear layers of these components; the language model's head is left as it is.

    Whole names, not peft's "all-linear", which would take in the vision tower and the projector.
    """
    names = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear)
        and component_of(name) in components
        and not name.endswith(("lm_head", "router"))  # a router of experts returns two tensors
        and (not suffixes or name.endswith(tuple(suffixes)))
    ]
    if components and not names:
        raise SettingsError(
            message(
                "vlm.no-lora-target",
                "no linear layer of {components} ends in {suffixes}",
                components=", ".join(sorted(components)),
                suffixes=name_or_name(suffixes) if suffixes else message("vlm.any-layer-name", "any name"),
            ),
            message("vlm.no-lora-target.hint", "leave out model.lora.targets to adapt all of them"),
        )
    return names


def _trainable_token_ids(tokens: Sequence[str], tokenizer: HfTokenizer) -> list[int]:
    vocab = tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in vocab]
    if unknown:
        raise SettingsError(
            message(
                "vlm.no-such-token", "model.tokens: the tokenizer has no token {token!r}", token=unknown[0]
            ),
            message("vlm.no-such-token.hint", "see its tokenizer.json"),
        )
    return [vocab[token] for token in tokens]


def _is_adapter_parameter(name: str) -> bool:
    return "lora_" in name or "trainable_tokens_" in name


def trained_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn as they are, under the base model's names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and not _is_adapter_parameter(name)
    }


def has_adapter(net: HfNetwork) -> bool:
    """Has low-rank updates or token rows of its own?"""
    return isinstance(net, peft.PeftModel)


def save_trained_weights(net: HfNetwork, folder: Path) -> None:
    """adapter/ in peft's own form, and trained.safetensors: each only where there is something in it.

    Two files, because peft's saving drops other unfrozen weights (docs/sources/llava.md, L34).
    """
    if has_adapter(net):
        net.save_pretrained(folder / ADAPTER_FOLDER, save_embedding_layers=False)
        (folder / ADAPTER_FOLDER / CARD_FILE).unlink(missing_ok=True)  # an empty form
        settings = read_json(folder / ADAPTER_FOLDER / "adapter_config.json")
        # peft keeps the targets in a set, whose order differs in every process: equal runs, equal files
        ordered = {k: sorted(v) if k == "target_modules" else v for k, v in settings.items()}
        if initial := initial_updates(net):
            file = folder / ADAPTER_FOLDER / "adapter_model.safetensors"
            save_file(join_initial_updates(load_file(file), initial), file, metadata={"format": "pt"})
            ordered |= joined_settings(settings)
        write_json(folder / ADAPTER_FOLDER / "adapter_config.json", ordered)
    trained = {name: p.detach().contiguous() for name, p in trained_parameters(net).items()}
    if trained:
        save_file(trained, folder / TRAINED_FILE, metadata={"format": "pt"})
    if trained and has_adapter(net):
        components = ", ".join(sorted({component_of(name) for name in trained}))
        write_text(
            folder / ADAPTER_FOLDER / CARD_FILE, _INCOMPLETE_ADAPTER_CARD.format(components=components)
        )


@torch.no_grad()
def load_trained_weights(net: HfNetwork, folder: Path) -> None:
    """Read what `save_trained_weights` wrote into a network tuned the same way.

    Raises:
        ModelError: a file is missing or broken, or belongs to another way of tuning.
    """
    try:
        if has_adapter(net):
            tensors = load_file(folder / ADAPTER_FOLDER / "adapter_model.safetensors")
            expected = peft.get_peft_model_state_dict(net, save_embedding_layers=False)
            _require_same_names(tensors, expected, folder)
            tensors, initial = split_initial_updates(tensors, net)
            # Not by peft's own function: it renames weights as if they were of an older release, and passes over those
            # that have no place under their new names without a word (docs/surprises.md). These are the parameters.
            for name, parameter in expected.items():
                parameter.copy_(tensors[name])
            if initial:
                take_out_updates(net, initial)
        trained = trained_parameters(net)
        if trained:
            tensors = load_file(folder / TRAINED_FILE)
            _require_same_names(tensors, trained, folder)
            for name, parameter in trained.items():
                parameter.copy_(tensors[name])
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            message(
                "vlm.trained-weights-unreadable",
                "the trained weights in {folder} cannot be read ({reason})",
                folder=folder,
                reason=str(error).splitlines()[0],
            ),
            message("vlm.trained-weights-unreadable.hint", "use another step folder"),
        ) from None


def _require_same_names(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Path) -> None:
    """peft and torch would pass over missing and superfluous names in silence."""
    if tensors.keys() != expected.keys():
        raise ModelError(
            message(
                "vlm.tuned-otherwise",
                "{folder} was tuned in another way than its config.json says ({weight} does not fit)",
                folder=folder,
                weight=min(tensors.keys() ^ expected.keys()),
            ),
            message("vlm.tuned-otherwise.hint", "put back the config.json that was saved with it"),
        )


def merge_adapter(net: HfNetwork) -> HfNetwork:
    """The network with its low-rank updates added to the weights: a plain model again."""
    return merge_updates(net)[0]
