"""Any image-text-to-text model of transformers behind the contract of `models/family.py`.

One path for all of them: the base's own processor and chat template, its own network, peft for what
is small. A checkpoint holds what was trained and a pointer to the base; where the language model
itself was trained, the whole model.

    STEP/config.json       how it was made, name and fingerprint of the base
    STEP/processor/        tokenizer, image processor, chat template
    STEP/adapter/          low-rank updates and token rows, in peft's form
    STEP/trained.safetensors   other trained weights, under transformers' names
    STEP/model/            instead of both: the whole model
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Example
from kovqa_core.data.question_prompts import CAPTION_MAX_NEW_TOKENS, caption_prompt
from kovqa_core.errors import ModelError
from kovqa_core.files import write_text
from kovqa_core.messages import join_messages, message
from kovqa_core.models.byte_tokens import fallback_byte
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.closed_folder import naming_folder
from kovqa_core.models.config import config_from_recipe, read_checkpoint_config
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.export_check import ExportCheck, ExportedModel
from kovqa_core.models.family import LoadOptions, ModelFamily
from kovqa_core.models.token_count import TokenCount, count_tokens
from kovqa_core.models.vlm import (
    base,
    chat_template,
    class_checks,
    export_check,
    export_llava,
    from_scratch,
    generation,
    template_checks,
    tuning,
)
from kovqa_core.models.vlm.config import (
    PROMPT_SETTINGS,
    ModelConfig,
    TuningSettings,
    find_base_model,
    refuse_unsupported,
)
from kovqa_core.models.vlm.explain import item_pixels, score_answer, with_pixels
from kovqa_core.models.vlm.hf_export import write_hf_export
from kovqa_core.models.vlm.hf_libraries import save_hf_network
from kovqa_core.models.vlm.lora_updates import take_quantised_weights
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.models.vlm.processor import TOKEN_TYPES, VlmProcessor
from kovqa_core.output_lock import scratch_folder
from kovqa_core.runs.events import report_warning
from kovqa_core.runs.folder import find_model_folder, is_huggingface_folder
from kovqa_core.runs.step_lease import hold_found_step
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.strict_yaml import SettingsDocument, YamlMapping, build_settings

PROCESSOR_FOLDER, FULL_MODEL_FOLDER = "processor", "model"


# ------------------------------------------------------------------------------ new


def new_model(recipe: Recipe, answers: list[str]) -> tuple[VlmModel, VlmProcessor, str]:
    """A base model, opened for training; it writes any text, so the list of answers is not used.

    Raises:
        SettingsError: a task or a setting this family does not have.
        AssetError: no base is named, or it is not here.
        ModelError: it cannot be used.
    """
    refuse_unsupported(recipe)
    config = config_from_recipe(ModelConfig, recipe)
    if config.random_init:
        return _new_random_model(config, recipe)
    folder = find_base_model(config.base)
    config = base.pin_base_fingerprint(folder, config)
    model, processor = _build_vlm(folder, folder, config, None if config.weights else recipe.seed)
    # Of a new model only: what an earlier version trained by such a template still opens.
    with naming_folder(folder):
        template_checks.require_learnable_answers(processor.hf, processor.eos_token_ids)
    step = None
    if config.weights is not None:
        with hold_found_step(partial(find_model_folder, Path(config.weights), "vqa")) as step:
            _require_same_base(step, config)
            tuning.load_trained_weights(model.net, step)
    remark = tuning.projector_remark(model.net)
    return (
        model,
        processor,
        join_messages("; ", filter(None, [tuning.start_note(folder.name, step, model), remark])),
    )


def _new_random_model(config: ModelConfig, recipe: Recipe) -> tuple[VlmModel, VlmProcessor, str]:
    """A small model made of the index alone; its checkpoints hold the whole of it."""
    with scratch_folder() as folder:
        from_scratch.write_random_base(folder, from_scratch.iterate_index_texts(recipe.data), recipe.seed)
        model, processor = _build_vlm(folder, folder, config, recipe.seed)
    note = message(
        "vlm.newly-initialised",
        "newly initialised; {total:,} parameters",
        total=sum(p.numel() for p in model.parameters()),
    )
    return model, processor, note


def _require_same_base(step: Path, config: ModelConfig) -> None:
    # Whether that step's code may run does not matter: its weights are read, its base is not opened.
    of_step = _read_vlm_config(step, LoadOptions(trust_remote_code=True))
    same = [(each.fingerprint, each.train, each.lora.scale) for each in (of_step, config)]
    if same[0] != same[1]:
        raise ModelError(
            message(
                "vlm.weights-of-another-base",
                "{step} was trained on another base, or in another way",
                step=step,
            ),
            message(
                "vlm.weights-of-another-base.hint",
                "use the same model.base, model.train and model.lora, or merge it first (kovqa export) and use that as "
                "the base",
            ),
        )


def _build_vlm(
    weights: Path,
    processor_folder: Path,
    config: ModelConfig,
    seed: int | None = None,
    *,
    four_bit: bool = False,
) -> tuple[VlmModel, VlmProcessor]:
    """Model and processor.

    Args:
        weights: folder of the network.
        processor_folder: folder of tokenizer, image processor and chat template.
        config: what learns.
        seed: of the low-rank updates; None: they are loaded afterwards.
        four_bit: the language model in 4 bits, as `train: qlora` has it anyway.
    """
    class_checks.require_chat_class(weights)
    hf = base.load_hf_processor(processor_folder, config)
    with naming_folder(processor_folder):
        template_checks.require_image_chat(hf)  # before the weights, which may take minutes
        warning = template_checks.date_warning(hf)
    if warning:
        report_warning(warning)
    net = base.load_base_network(weights, config, four_bit=four_bit)
    takes_token_types = TOKEN_TYPES in inspect.signature(net.forward).parameters
    eos_token_ids = base.find_eos_token_ids(net, hf)
    base.set_pad_token(hf, eos_token_ids)
    net = tuning.apply_tuning(net, config, hf, seed or 0, is_new=seed is not None)
    if any(parameter.requires_grad for parameter in net.parameters()):
        # A model may know several ends. The one that the template writes, and training teaches, comes first:
        # it ends the answers of a closed list.
        of_template = chat_template.answer_eos_token_id(hf, eos_token_ids)
        eos_token_ids.sort(key=lambda token_id: token_id != of_template)
    suppress_tokens = generation.find_suppress_tokens(hf.tokenizer, eos_token_ids)
    generator = generation.TextGenerator(
        net, hf.tokenizer, eos_token_ids, suppress_tokens, config.max_new_tokens
    )
    processor = VlmProcessor(hf, config, eos_token_ids, makes_token_types=takes_token_types)
    return VlmModel(net, config, generator), processor


# ------------------------------------------------------------------------------ save, load


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
    """Read what `save_model` wrote, or a Hugging Face folder as it is.

    Args:
        folder: where it lies.
        options: may Python code of a model folder run, and in which form are weights held? Images are not augmented.

    Raises:
        AssetError: the base is not here.
        ModelError: the base is another, or a file is missing or broken; code would have to run.
    """
    config = _read_vlm_config(folder, options)
    config = config.model_copy(update={"dtype": "fp32"}) if options.fp32 else config
    return _load_with_config(folder, config, four_bit=options.four_bit)


def _load_with_config(
    folder: Path, config: ModelConfig, *, four_bit: bool = False
) -> tuple[VlmModel, VlmProcessor]:
    if is_huggingface_folder(folder):
        config = base.pin_base_fingerprint(folder, config)
        return _build_vlm(folder, folder, config, four_bit=four_bit)
    if (folder / FULL_MODEL_FOLDER).is_dir():
        return _build_vlm(folder / FULL_MODEL_FOLDER, folder / PROCESSOR_FOLDER, config, four_bit=four_bit)
    base_folder = find_base_model(str(config.base))
    base.pin_base_fingerprint(base_folder, config)
    model, processor = _build_vlm(base_folder, folder / PROCESSOR_FOLDER, config, four_bit=four_bit)
    tuning.load_trained_weights(model.net, folder)
    return model, processor


def _read_vlm_config(folder: Path, options: LoadOptions) -> ModelConfig:
    """The configuration of a checkpoint or a plain folder, either of which may come from anybody.

    Raises:
        ModelError: it says that code is to be run, and the user did not.
    """
    if is_huggingface_folder(folder):
        stored = read_checkpoint_info(folder).model or {}
        settings = {key: value for key, value in stored.items() if key in PROMPT_SETTINGS}
        from_json = cast("YamlMapping", settings)
        document = SettingsDocument({**from_json, "base": str(folder), "train": "none"}, {})
        config = build_settings(ModelConfig, document)
    else:
        config = read_checkpoint_config(ModelConfig, folder, "vlm")
    if config.trust_remote_code and not options.trust_remote_code:
        raise ModelError(
            message(
                "vlm.stored-trust-remote-code",
                "{file} wants Python code of its base model to run (trust_remote_code), "
                "which no folder may decide",
                file=folder / "config.json",
            ),
            message(
                "vlm.stored-trust-remote-code.hint",
                "if you have read that code and trust it: --trust-remote-code",
            ),
        )
    return config.model_copy(update={"trust_remote_code": options.trust_remote_code})


# ------------------------------------------------------------------------------ export


def export_model(step: Path, folder: Path, options: LoadOptions) -> ExportedModel:
    """A checkpoint as a plain Hugging Face folder: updates merged into the weights, its processor beside them,
    and for kovqa how questions were put to it.

    Of a base in 4 bits its weights are written as it computed with them: what was learned belongs to these, not to the
    16 bits they were rounded from.

    Raises:
        ModelError: see `load_model`.
    """
    model, processor = load_model(step, options)
    was_quantised = model.config.train.language == "qlora"
    if was_quantised:
        in_16_bits = TuningSettings(**{**model.config.train.model_dump(), "language": "lora"})
        merged, _ = _load_with_config(step, model.config.model_copy(update={"train": in_16_bits}))
        take_quantised_weights(merged.net, model.net)
        model = merged
    return write_hf_export(model, processor, step, folder, was_quantised=was_quantised)


def export_upstream(step: Path, folder: Path, options: LoadOptions) -> ExportedModel:
    """A checkpoint of LLaVA's shape as `mm_projector.bin` and `config.json`.

    Raises:
        ModelError: see `load_model`; another shape; more was trained than these files hold.
    """
    config = _read_vlm_config(step, options)
    if (config.train.vision, config.train.language) != ("none", "none"):
        raise ModelError(
            message(
                "vlm.more-than-projector",
                "{step} trained more than mm_projector.bin holds: vision {vision}, language {language}",
                step=step,
                vision=config.train.vision,
                language=config.train.language,
            ),
            message("vlm.more-than-projector.hint", "leave out --as-upstream: the whole model is written"),
        )
    # In fp32, which the file is in: frozen rows of the text table must not be rounded on the way.
    model, processor = _load_with_config(step, config.model_copy(update={"dtype": "fp32"}))
    imported = read_checkpoint_info(find_base_model(str(config.base))).imported
    vision_tower = str(imported["vision_tower"]) if "vision_tower" in imported else None
    net = tuning.merge_adapter(model.net)
    return ExportedModel(export_llava.write_llava_projector(net, processor.hf, vision_tower, folder))


def count_text_tokens(processor: VlmProcessor, examples: Sequence[Example]) -> TokenCount:
    """What the base model's tokenizer makes of questions and of the answers that are learned."""
    tokenizer = processor.hf.tokenizer
    texts = [
        " ".join([*filter(None, [example.context]), example.question, *list(example.answers)[:1]])
        for example in examples
    ]
    return count_tokens(
        texts,
        lambda text: tokenizer.encode(text, add_special_tokens=False),
        unknown_id=tokenizer.unk_token_id,
        is_byte=lambda id: fallback_byte(tokenizer.convert_ids_to_tokens([id])[0] or "") is not None,
    )


def set_decoding(model: VlmModel, processor: VlmProcessor, decoding: DecodingOptions) -> None:
    """From now on the model answers in this way; where it samples, or has a list, prompts list no choices."""
    model.set_decoding(decoding)
    processor.set_decoding(decoding)


def set_top_k(model: VlmModel, top_k: int) -> None:
    """From now on each answer out of a list brings so many of the likeliest.

    Raises:
        SettingsError: it writes freely: nobody can say which texts come next after the likeliest.
    """
    model.set_top_k(top_k)


def set_on_text(model: VlmModel, on_text: Callable[[str], None] | None) -> None:
    """From now on the first greedy answer of a batch is told as it grows; None: answers come at once."""
    model.on_text = on_text


def set_prompt(
    model: VlmModel, processor: VlmProcessor, instruction: str | None, max_new_tokens: int | None
) -> None:
    """From now on questions are asked with this instruction, and texts have at most so many tokens; None: as before."""
    if instruction is not None:
        processor.instruction = instruction
    if max_new_tokens is not None:
        model.generator = replace(model.generator, max_new_tokens=max_new_tokens)


def ask_for_captions(model: VlmModel, processor: VlmProcessor, instruction: str) -> None:
    """From now on the model describes images: each is shown with this instruction alone."""
    processor.caption_prompt = caption_prompt(instruction)
    length = max(model.generator.max_new_tokens, CAPTION_MAX_NEW_TOKENS)
    model.generator = replace(model.generator, max_new_tokens=length)


def prompt_columns(processor: VlmProcessor) -> tuple[str, ...]:
    """What a prompt shows of a row besides its question; choices also where the answer alone is one of them."""
    return ("context", "choices") if processor.offers_choices else ("context",)


FAMILY = ModelFamily(
    new_model,
    load_model,
    save_model,
    export_model,
    export_check=ExportCheck(
        "transformers", export_check.own_logits, export_check.example_row, export_check.CHECK_CODE
    ),
    export_upstream=export_upstream,
    set_decoding=set_decoding,
    set_top_k=set_top_k,
    set_on_text=set_on_text,
    ask_for_captions=ask_for_captions,
    set_prompt=set_prompt,
    has_four_bit=True,
    prompt_columns=prompt_columns,
    has_remote_code=True,
    count_text_tokens=count_text_tokens,
    explain=ExplainFunctions(
        score_answer, item_pixels, with_pixels, as_stored=lambda processor: processor.config.load_as_stored
    ),
)
