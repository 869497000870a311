"""Any image-text-to-text model of transformers behind the contract of `models/family.py`.

One path for all of them: the base's own processor and chat template, its own network, peft for what
is small. A checkpoint holds what was trained and a pointer to the base; where the language model
itself was trained, the whole model.

    STEP/config.json       how it was made, name and fingerprint of the base
    STEP/processor/        tokenizer, picture processor, chat template
    STEP/adapter/          low-rank updates and token rows, in peft's form
    STEP/trained.safetensors   other trained weights, under transformers' names
    STEP/model/            instead of both: the whole model
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.files import write_text
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info, write_checkpoint_info
from kovqa_core.models.config import config_from_recipe, read_checkpoint_config
from kovqa_core.models.family import FamilyModel, LoadOptions, ModelFamily
from kovqa_core.models.vlm import base, chat_template, export_llava, from_scratch, generation, tuning
from kovqa_core.models.vlm.config import PROMPT_SETTINGS, ModelConfig, find_base_model
from kovqa_core.models.vlm.hf_libraries import save_hf_network
from kovqa_core.models.vlm.memory import component_of
from kovqa_core.models.vlm.processor import IGNORE_INDEX, VlmProcessor, left_pad_prompts
from kovqa_core.runs.folder import find_model_folder, is_huggingface_folder
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings

PROCESSOR_FOLDER, FULL_MODEL_FOLDER = "processor", "model"


class VlmModel(FamilyModel):
    """A network that reads pictures and writes texts.

    Args:
        net: a class of transformers, or peft's wrapping of one.
        config: which loss, what is in 16 bits.
        speaker: how it answers.
    """

    def __init__(self, net: Any, config: ModelConfig, speaker: generation.TextGenerator) -> None:
        super().__init__()
        self.net: Any = net
        self.config, self.speaker = config, speaker
        self.decoding = GREEDY_DECODING
        self.trie: generation.AnswerTrie | None = None

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The mean loss of a batch; rows left out count as rows without loss."""
        touched = (
            sum(_local_shard(p).sum() for p in self.net.parameters() if p.requires_grad and p.numel()) * 0.0
        )
        if not batch.ids:
            return {"loss": torch.as_tensor(touched)}
        inputs = {n: t for n, t in batch.tensors.items() if n not in ("labels", "prompt_lengths")}
        labels = batch.tensors["labels"]
        first = int((labels != IGNORE_INDEX).any(0).int().argmax())  # before it, no token has a loss
        with self._autocast():
            logits = self.net(**inputs, use_cache=False, logits_to_keep=labels.shape[1] - first + 1).logits
        rows = len(batch.ids) + len(batch.left_out)
        # `touched` gives layers that this batch does not use a gradient of 0: all processes wait for all.
        return {"loss": answer_loss(logits[:, :-1], labels[:, first:], rows, self.config.loss) + touched}

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """As `decoding` says; greedy: within a short budget, a score is the mean probability of the tokens."""
        inputs, how = self.prompts(batch), self.decoding
        with self._autocast():
            if self.trie is not None:
                return generation.choose_from_trie(self.speaker, inputs, self.trie)
            if how.choices:
                return generation.choose_by_letter(self.speaker, inputs, batch.choices)
            if how.temperature:
                return generation.answer_by_sampling(
                    self.speaker, inputs, batch.ids, how.seed, how.temperature
                )
            return generation.answer_greedily(self.speaker, inputs)

    def prompts(self, batch: ModelBatch) -> dict[str, Tensor]:
        """What the functions of `answering` go on from."""
        return left_pad_prompts(
            batch.tensors, generation.find_pad_token_id(self.speaker.tokenizer, self.speaker.ends)
        )

    def _autocast(self) -> torch.autocast:
        """What does not learn is in 16 bits, what learns in 32: each product is made in 16."""
        device = next(self.net.parameters()).device.type
        if torch.is_autocast_enabled(device):
            return torch.autocast(device, torch.get_autocast_dtype(device))
        return torch.autocast(device, torch.bfloat16, enabled=self.config.dtype == "bf16")

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Memory for time, and torch.compile of each layer of the language model."""
        if activation_checkpointing:
            self.net.gradient_checkpointing_enable({"use_reentrant": False})
        if compile:
            for layer in self.net.get_decoder().layers:
                layer.compile(dynamic=True)

    def fsdp_units(self) -> list[nn.Module]:
        """Whatever stands in a list: layers of the language model and of the picture encoder."""
        lists = [module for module in self.net.modules() if isinstance(module, nn.ModuleList)]
        return [unit for modules in reversed(lists) for unit in modules]

    @property
    def head_layer_id(self) -> int:
        """No layer has a rate of its own."""
        return 0

    def layer_id(self, name: str) -> int:
        """0 for all."""
        return 0

    def is_head_parameter(self, name: str) -> bool:
        """The projector may have another learning rate."""
        return component_of(name) == "projector"

    def no_weight_decay(self, name: str) -> bool:
        """None beyond vectors and biases."""
        return False

    def is_text_parameter(self, name: str) -> bool:
        """The language model."""
        return component_of(name) == "language"


def _local_shard(parameter: Any) -> Tensor:
    """What this process holds of a parameter that may be cut up."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def answer_loss(logits: Tensor, labels: Tensor, rows: int, mean: str) -> Tensor:
    """Cross-entropy of the answers' tokens, in fp32.

    Args:
        logits: [B, T, V]; position t names the token at t.
        labels: [B, T]; IGNORED where nothing is to be learned.
        rows: rows the batch was made of.
        mean: "rows": of each row's mean, so that long answers weigh no more than short ones and the
            size of a micro-batch changes nothing; "tokens": over all tokens, as LLaVA v1.
    """
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
    )
    counted = (labels != IGNORE_INDEX).sum(1)
    if mean == "tokens":
        return losses.sum() / counted.sum()
    return (losses.sum(1) / counted).sum() / rows


# ------------------------------------------------------------------------- new, load, save


def new_model(recipe: Recipe, answers: list[str]) -> tuple[VlmModel, VlmProcessor, str]:
    """A base model, opened for training; it writes freely, so the list of answers is not used.

    Raises:
        SettingsError: a task or an average this family does not have.
        AssetError: no base is named, or it is not here.
        ModelError: it cannot be used.
    """
    _refuse_unsupported(recipe)
    config = config_from_recipe(ModelConfig, recipe)
    if config.random_init:
        return _new_random_model(config, recipe)
    folder = find_base_model(config.base)
    config = base.pin_base_fingerprint(folder, config)
    model, processor = _build_vlm(folder, folder, config, recipe.seed)
    note = f"base {folder.name}"
    if config.weights is not None:
        step = find_model_folder(Path(config.weights), "vqa")
        _require_same_base(step, config)
        tuning.load_trained_weights(model.net, step)
        note += f", goes on from {step}"
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return model, processor, f"{note}; {learned:,} of {total:,} parameters learn"


def _new_random_model(config: ModelConfig, recipe: Recipe) -> tuple[VlmModel, VlmProcessor, str]:
    """A small model of nothing but the index; its checkpoints hold the whole of it."""
    with tempfile.TemporaryDirectory() as name:
        from_scratch.write_random_base(Path(name), from_scratch.iterate_index_texts(recipe.data), recipe.seed)
        model, processor = _build_vlm(Path(name), Path(name), config, recipe.seed)
    return model, processor, f"newly initialised; {sum(p.numel() for p in model.parameters()):,} parameters"


def _refuse_unsupported(recipe: Recipe) -> None:
    """What other families have, and this one would pass over in silence."""
    data, learned = recipe.data, recipe.optim
    lacking = {
        f"task {recipe.task}": recipe.task != "vqa",
        f"data.augment={data.augment}": data.augment != "none",
        "data.flip": data.flip,
        "optim.ema_decay": learned.ema_decay > 0,
        "optim.layer_decay": learned.layer_decay < 1,
    }
    for what, asked in lacking.items():
        if asked:
            raise SettingsError(f"family vlm has no {what}", "leave it away, or use another family")


def _require_same_base(step: Path, config: ModelConfig) -> None:
    before = _read_vlm_config(
        step, LoadOptions(trust_remote_code=True)
    )  # its wish does not matter: it is not opened
    if (before.fingerprint, before.train) != (config.fingerprint, config.train):
        raise ModelError(
            f"{step} was trained on another base, or in another way",
            "use the same model.base and model.train, or merge it first and take that as the base",
        )


def _build_vlm(weights: Path, texts: Path, config: ModelConfig, seed: int) -> tuple[VlmModel, VlmProcessor]:
    """Model and processor of folders that hold the weights, and tokenizer and template."""
    hf = base.load_hf_processor(texts, config)
    net = base.load_base_network(weights, config)
    ends = base.find_eos_token_ids(net, hf)
    net = tuning.apply_tuning(net, config, hf, seed)
    if any(parameter.requires_grad for parameter in net.parameters()):
        own = chat_template.answer_eos_token_id(
            hf, ends
        )  # what the template writes: a model may know others, too
        ends.sort(key=lambda token: token != own)
    silent = generation.find_suppress_tokens(hf.tokenizer, ends)
    speaker = generation.TextGenerator(net, hf.tokenizer, ends, silent, config.max_new_tokens)
    return VlmModel(net, config, speaker), VlmProcessor(hf, config, ends)


def set_decoding(model: VlmModel, decoding: DecodingOptions) -> None:
    """From now on the model answers in this way."""
    model.decoding = decoding
    model.trie = generation.build_answer_trie(model.speaker, decoding.answers) if decoding.answers else None


def save_model(model: VlmModel, processor: VlmProcessor, folder: Path) -> None:
    """What was trained, and where the rest is; but not that code may run: each command says so anew."""
    config = model.config.model_copy(update={"weights": None, "trust_remote_code": False})
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    processor.hf.save_pretrained(folder / PROCESSOR_FOLDER)
    if config.train.language == "full":
        save_hf_network(model.net, folder / FULL_MODEL_FOLDER)
    else:
        tuning.save_trained_weights(model.net, folder)


def load_model(folder: Path, options: LoadOptions) -> tuple[VlmModel, VlmProcessor]:
    """Read what `save` wrote, or a Hugging Face folder as it is.

    Args:
        folder: where it lies.
        options: may code of a model folder run? Images are not augmented.

    Raises:
        AssetError: the base is not here.
        ModelError: the base is another, or a file is missing or broken; code would have to run.
    """
    return _load_with_config(folder, _read_vlm_config(folder, options))


def _load_with_config(folder: Path, config: ModelConfig) -> tuple[VlmModel, VlmProcessor]:
    if is_huggingface_folder(folder):
        return _build_vlm(folder, folder, base.pin_base_fingerprint(folder, config), 0)
    if (folder / FULL_MODEL_FOLDER).is_dir():
        return _build_vlm(folder / FULL_MODEL_FOLDER, folder / PROCESSOR_FOLDER, config, 0)
    source = find_base_model(str(config.base))
    base.pin_base_fingerprint(source, config)
    model, processor = _build_vlm(source, folder / PROCESSOR_FOLDER, config, 0)
    tuning.load_trained_weights(model.net, folder)
    return model, processor


def export_model(step: Path, folder: Path, options: LoadOptions) -> str:
    """A checkpoint as a plain Hugging Face folder: updates added to the weights, processor beside them,
    and for kovqa how it was asked.

    Returns:
        Python that loads and asks it.

    Raises:
        ModelError: see `load`; 4-bit weights cannot be merged without loss.
    """
    model, processor = load_model(step, options)
    if model.config.train.language == "qlora":
        raise ModelError(
            f"{step} has a base in 4 bits: merging would round it",
            f"take the base and {step}/{tuning.ADAPTER_FOLDER}",
        )
    save_hf_network(tuning.merge_adapter(model.net), folder)
    processor.hf.save_pretrained(folder)
    asked = model.config.model_dump(include=set(PROMPT_SETTINGS))
    write_checkpoint_info(folder, CheckpointInfo("vlm", "vqa", model=asked))
    return _HF_LOADING_CODE


_HF_LOADING_CODE = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(".", local_files_only=True)
processor = AutoProcessor.from_pretrained(".", local_files_only=True)
picture = Image.open("picture.jpg").convert("RGB")
content = [{"type": "image", "image": picture}, {"type": "text", "text": "무슨 색인가요?"}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
said = model.generate(**inputs, max_new_tokens=16, do_sample=False)
print(processor.decode(said[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def export_upstream(step: Path, folder: Path, options: LoadOptions) -> str:
    """A checkpoint of LLaVA's shape as `mm_projector.bin` and `config.json`.

    Raises:
        ModelError: see `load`; another shape; more was trained than these files hold.
    """
    config = _read_vlm_config(step, options)
    how = config.train
    if (how.vision, how.language) != ("none", "none"):
        raise ModelError(
            f"{step} trained more than mm_projector.bin holds: vision {how.vision}, language {how.language}",
            "leave --as-upstream away: the whole model is written",
        )
    model, processor = _load_with_config(
        step, config.model_copy(update={"dtype": "fp32"})
    )  # as the file will be
    imported = read_checkpoint_info(find_base_model(str(config.base))).imported
    tower = str(imported["vision_tower"]) if "vision_tower" in imported else None
    return export_llava.write_llava_projector(tuning.merge_adapter(model.net), processor.hf, tower, folder)


def _read_vlm_config(folder: Path, options: LoadOptions) -> ModelConfig:
    """The configuration of a checkpoint or a plain folder, which may come from anybody.

    Raises:
        ModelError: it says that code is to be run, and the user did not.
    """
    if is_huggingface_folder(folder):
        kept = {
            key: value
            for key, value in (read_checkpoint_info(folder).model or {}).items()
            if key in PROMPT_SETTINGS
        }
        config = build_settings(
            ModelConfig, SettingsDocument({**kept, "base": str(folder), "train": "none"}, {})
        )
    else:
        config = read_checkpoint_config(ModelConfig, folder, "vlm")
    if config.trust_remote_code and not options.trust_remote_code:
        raise ModelError(
            f"{folder / 'config.json'} wants Python code of its base model to run (trust_remote_code), "
            "which no folder may decide",
            "if you have read that code and trust it: --trust-remote-code",
        )
    return config.model_copy(update={"trust_remote_code": options.trust_remote_code})


FAMILY = ModelFamily(
    new_model,
    load_model,
    save_model,
    export_model,
    export_upstream=export_upstream,
    set_decoding=set_decoding,
    has_remote_code=True,
)
