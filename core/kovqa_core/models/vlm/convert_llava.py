"""LLaVA's own folders of 2023 -> plain Hugging Face folders. What a folder is, its content says.

The linear projector of LLaVA v1 becomes `linear_1`, followed by an identity: nothing of ours is needed
to read the result. Source: docs/sources/llava.md, L7 to L11, L15 to L18 and L23.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json, write_folder
from kovqa_core.models.checkpoint_info import CheckpointInfo, write_checkpoint_info
from kovqa_core.models.vlm.hf_libraries import save_hf_network, transformers

LlavaFolderType = Literal["projector", "merged", "lora", "language", "hub"]
StateDict = dict[str, Tensor]

PATCH_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN, IMAGE_TOKEN = (
    "<im_patch>",
    "<im_start>",
    "<im_end>",
    "<image>",
)
SYSTEM_TEMPLATE = (
    "A chat between a curious {who} and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the {who}'s questions."
)
SYSTEM_PROMPTS = {"v1": SYSTEM_TEMPLATE.format(who="user"), "llava_v1": SYSTEM_TEMPLATE.format(who="human")}


@dataclass(frozen=True)
class LlavaFolder:
    """A folder of LLaVA's, or of the language model it starts from."""

    path: Path
    kind: LlavaFolderType
    config: dict[str, Any]

    @property
    def marks(self) -> list[str]:
        """Tokens LLaVA added to the language model's."""
        patch = [PATCH_TOKEN] if self.config.get("mm_use_im_patch_token") else []
        return patch + (
            [IMAGE_START_TOKEN, IMAGE_END_TOKEN] if self.config.get("mm_use_im_start_end") else []
        )


def detect_llava_folder(path: Path) -> LlavaFolder:
    """What a folder holds.

    | kind | content |
    |---|---|
    | projector | `mm_projector.bin` beside the configuration |
    | lora | `adapter_config.json` and `non_lora_trainables.bin` |
    | merged | all weights, in LLaVA's names |
    | hub | all weights, in transformers' names: nothing to do |
    | language | a plain Llama, to begin a training of LLaVA v1 with |

    Raises:
        ModelError: none of these.
    """
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if "mm_vision_tower" in config:
        if (path / "adapter_config.json").is_file() and (path / "non_lora_trainables.bin").is_file():
            return LlavaFolder(path, "lora", config)
        if (path / "mm_projector.bin").is_file():
            return LlavaFolder(path, "projector", config)
        if _weight_files(path):
            return LlavaFolder(path, "merged", config)
    if config.get("model_type") == "llava" and "text_config" in config:
        return LlavaFolder(path, "hub", config)
    if config.get("model_type") == "llama" and _weight_files(path):
        return LlavaFolder(path, "language", {**config, **_PUBLISHED_SETTINGS})
    raise ModelError(
        f"{path} is no folder of LLaVA's: it has neither projector, adapter nor weights of one",
        "give the folder that train.py or the Hub wrote, with its config.json",
    )


# What the published recipe (`--version v1 --mm_use_im_start_end`) makes of a Vicuna.
_PUBLISHED_SETTINGS = {
    "mm_use_im_patch_token": True,
    "mm_use_im_start_end": True,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "square",
}


def convert_llava_folder(
    path: Path,
    output: Path,
    language: Path | None = None,
    vision: Path | None = None,
    system: str = "v1",
    seed: int = 0,
    answering: Mapping[str, Any] | None = None,
) -> LlavaFolderType:
    """Write a folder that transformers, peft and inference servers read as it is.

    Args:
        path: the folder; see `detect`.
        output: the folder to be written, whole or not at all.
        language: the language model it was trained on; for projector and lora.
        vision: the CLIP model; for all kinds but hub.
        system: "v1" as trained, or "llava_v1", the text the original answered with.
        seed: of a new projector and of the row of `<im_patch>`; for language.
        answering: settings it is asked with, those of `ASKED`; kept in its `kovqa.json`.

    Raises:
        ModelError: it cannot be read, or a folder it needs is not given.
    """
    source = detect_llava_folder(path)
    if source.kind == "hub":
        raise ModelError(
            f"{path} is in Hugging Face's layout already", "use it as it is: --model, or --set model.base="
        )
    texts = (
        path
        if source.kind in ("merged", "language")
        else _require_model_folder(language, "its language model (--base)", path)
    )
    sight = _require_model_folder(vision, "its picture encoder (--vision)", path)
    tokenizer = _load_llama_tokenizer(texts, source.marks)
    config = _llava_config(source, texts, sight, tokenizer)
    state = _full_state_dict(source, texts, sight, len(tokenizer), config, seed)
    with torch.device("meta"):
        net = transformers.LlavaForConditionalGeneration(config)
    report = net.load_state_dict(state, strict=False, assign=True)
    if report.missing_keys:
        raise ModelError(
            f"{path} lacks {len(report.missing_keys)} weights, {report.missing_keys[0]} …", "fetch it again"
        )
    net.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    processor = _llava_processor(source, sight, tokenizer, config, SYSTEM_PROMPTS[system])

    def fill(part: Path) -> None:
        save_hf_network(net, part)
        processor.save_pretrained(part)
        tower = source.config.get("mm_vision_tower") or sight.name
        imported = {"checkpoint": path.name, "kind": source.kind, "vision_tower": tower}
        write_checkpoint_info(
            part, CheckpointInfo("vlm", "vqa", model=dict(answering or {}), imported=imported)
        )

    write_folder(output, fill)
    return source.kind


def _require_model_folder(folder: Path | None, what: str, path: Path) -> Path:
    if folder is None or not (folder / "config.json").is_file():
        raise ModelError(f"{path} does not hold {what}", "give its folder, too")
    return folder


# ---------------------------------------------------------------- tokenizer, processor, config


def _load_llama_tokenizer(folder: Path, marks: list[str]) -> Any:
    """The slow tokenizer of 2023, blanks and all.

    It put a blank before every run of text (`legacy`), and ate the blanks on both sides of an added
    token; here the tokenizer's file says so, and nobody needs to know.
    """
    tokenizer = transformers.LlamaTokenizer.from_pretrained(folder, legacy=True, local_files_only=True)
    if tokenizer.vocab_size < 1000:  # transformers reads a file it does not know as five words
        raise ModelError(
            f"the tokenizer in {folder} cannot be read", "it needs tokenizer.model: fetch it again"
        )
    added = [
        transformers.AddedToken(mark, lstrip=True, rstrip=True, special=True, normalized=False)
        for mark in marks
    ] or [transformers.AddedToken(IMAGE_TOKEN, special=True, normalized=False)]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = 2048
    return tokenizer


def _llava_config(source: LlavaFolder, texts: Path, sight: Path, tokenizer: Any) -> Any:
    pictures = read_json(sight / "config.json")
    text = {**read_json(texts / "config.json"), "model_type": "llama", "vocab_size": len(tokenizer)}
    is_patch = source.config.get("mm_vision_select_feature", "patch") == "patch"
    vision = transformers.CLIPVisionConfig(**pictures.get("vision_config", pictures))
    return transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**{k: v for k, v in text.items() if not k.startswith("mm_")}),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids(_image_token(source)),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2 + (0 if is_patch else 1),
        projector_hidden_act="gelu" if _has_mlp_projector(source) else "linear",
        vision_feature_layer=source.config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default" if is_patch else "full",
        tie_word_embeddings=False,
    )


def _image_token(source: LlavaFolder) -> str:
    """The token that stands for a piece of picture: `<im_patch>` occurs in no prompt, and has a row."""
    return PATCH_TOKEN if PATCH_TOKEN in source.marks else IMAGE_TOKEN


def _has_mlp_projector(source: LlavaFolder) -> bool:
    """Is it LLaVA 1.5, whose projector has two layers?"""
    return "mlp2x" in str(source.config.get("mm_projector_type", "linear"))


def _llava_processor(source: LlavaFolder, sight: Path, tokenizer: Any, config: Any, system: str) -> Any:
    given = read_json(sight / "preprocessor_config.json")
    known = {k: v for k, v in given.items() if k not in ("feature_extractor_type", "image_processor_type")}
    padded = source.config.get("image_aspect_ratio") == "pad"
    pictures = transformers.LlavaImageProcessorPil(**{**known, "do_pad": padded})
    return transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=_image_token(source),
        chat_template=llava_chat_template(system, _image_token(source), IMAGE_START_TOKEN in source.marks),
    )


def llava_chat_template(system: str, mark: str, framed: bool) -> str:
    """Vicuna's chat as LLaVA renders it: the picture first, in a line of its own.

    Args:
        system: text before the chat.
        mark: the token of pictures.
        framed: between `<im_start>` and `<im_end>`?
    """
    picture = f"{IMAGE_START_TOKEN}{mark}{IMAGE_END_TOKEN}" if framed else mark
    content = (
        "{% set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}"
        "{% set pictured = message.content | selectattr('type', 'equalto', 'image') | list %}"
    )
    return (
        "{{ bos_token }}" + system + " {% for message in messages %}" + content +
        "{% if message.role == 'user' %}USER: {% if pictured %}" + picture + "{{ '\\n' }}{{ text | trim }}"
        "{% else %}{{ text }}{% endif %} "
        "{% else %}ASSISTANT: {{ text }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )  # fmt: skip


# ------------------------------------------------------------------------------------ weights


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _read_state_dict(folder: Path, kept: Callable[[str], str | None] = lambda name: name) -> StateDict:
    """Weights of a folder under the names `kept` gives them; None leaves one out."""
    state: StateDict = {}
    for path in _weight_files(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                names = {name: new for name in file.keys() if (new := kept(name))}  # noqa: SIM118
                state |= {new: file.get_tensor(name) for name, new in names.items()}
        else:
            tensors = load_torch_tensors(path)
            state |= {new: tensor for name, tensor in tensors.items() if (new := kept(name))}
    return state


def load_torch_tensors(path: Path) -> StateDict:
    """Tensors of a file torch wrote; nothing else in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a broken archive, an old format, a foreign object
        raise ModelError(f"{path} cannot be read ({str(error).splitlines()[0]})", "fetch it again") from None


_NAME_PATTERNS = (
    (re.compile(r"^model\.vision_tower\.(vision_tower\.)?(vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"^model\.mm_projector\.(0\.)?(weight|bias)$"), r"model.multi_modal_projector.linear_1.\2"),
    (re.compile(r"^model\.mm_projector\.2\."), "model.multi_modal_projector.linear_2."),
    (re.compile(r"^model\.(embed_tokens|layers|norm)\."), r"model.language_model.\1."),
)


def to_transformers_name(name: str) -> str | None:
    """LLaVA's name of a weight -> transformers'; None for what is computed."""
    if name.endswith(("rotary_emb.inv_freq", "position_ids")):
        return None
    for pattern, replacement in _NAME_PATTERNS:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def _to_vision_tower_name(name: str) -> str | None:
    """A name in a CLIP file -> its place in LLaVA; its text half and its heads stay away."""
    inside = name.removeprefix("vision_model.")
    if inside == name or name.endswith("position_ids"):
        return None
    return f"model.vision_tower.{inside}"


EMBEDDING_NAME, LM_HEAD_NAME = "model.language_model.embed_tokens.weight", "lm_head.weight"
_PROJECTOR_NAME_FORMAT = "model.multi_modal_projector.linear_{}.{}"


def _full_state_dict(
    source: LlavaFolder, texts: Path, sight: Path, vocab: int, config: Any, seed: int
) -> StateDict:
    """All weights in transformers' names, in the language model's precision."""
    state = _read_state_dict(texts, to_transformers_name)
    if not any(name.startswith("model.vision_tower.") for name in state):
        state |= _read_state_dict(sight, _to_vision_tower_name)
    generator = torch.Generator().manual_seed(seed)
    if source.kind == "projector":
        state |= _rename_tensors(load_torch_tensors(source.path / "mm_projector.bin"))
    elif source.kind == "lora":
        _merge_lora(state, source.path)
    elif source.kind == "language":
        state |= _init_projector(config, generator)
    if not _has_mlp_projector(source):
        width = config.text_config.hidden_size
        state[_PROJECTOR_NAME_FORMAT.format(2, "weight")], state[_PROJECTOR_NAME_FORMAT.format(2, "bias")] = (
            torch.eye(width),
            torch.zeros(width),
        )
    for name in (EMBEDDING_NAME, LM_HEAD_NAME):
        state[name] = _extend_vocab_rows(state[name], vocab, source, config, generator)
    dtype = state[LM_HEAD_NAME].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


def _rename_tensors(tensors: StateDict) -> StateDict:
    return {new: tensor for name, tensor in tensors.items() if (new := to_transformers_name(name))}


def _init_projector(config: Any, generator: torch.Generator) -> StateDict:
    """As torch makes a linear layer: uniform within the square root of the inverse width."""
    wide, out = config.vision_config.hidden_size, config.text_config.hidden_size
    bound = wide**-0.5
    draw = {"weight": torch.empty(out, wide), "bias": torch.empty(out)}
    return {
        _PROJECTOR_NAME_FORMAT.format(1, n): t.uniform_(-bound, bound, generator=generator)
        for n, t in draw.items()
    }


def _extend_vocab_rows(
    table: Tensor, vocab: int, source: LlavaFolder, config: Any, generator: torch.Generator
) -> Tensor:
    """The table with rows for the added tokens, as the original adds them.

    `<im_patch>` is drawn, and then replaced by pictures; the rows of `<im_start>` and `<im_end>` are the
    mean of all before. The row of `<image>`, which the original does not have, is zero.
    """
    lacking = (
        [PATCH_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN, IMAGE_TOKEN] if source.marks else [IMAGE_TOKEN]
    )
    tokens = source.marks or lacking
    for token in tokens[len(tokens) - max(0, vocab - len(table)) :]:
        row = torch.zeros_like(table[:1])
        if token == PATCH_TOKEN and source.kind == "language":
            row.normal_(0, config.text_config.initializer_range, generator=generator)
        elif token != IMAGE_TOKEN:
            row = table.float().mean(0, keepdim=True).to(table.dtype)
        table = torch.cat([table, row])
    return table


def _merge_lora(state: StateDict, folder: Path) -> None:
    """The updates of an adapter added to the weights, and what was trained beside it put in place."""
    about = read_json(folder / "adapter_config.json")
    files = [
        path
        for path in (folder / "adapter_model.bin", folder / "adapter_model.safetensors")
        if path.is_file()
    ]
    if not files:
        raise ModelError(f"{folder} has no adapter_model.bin", "fetch it again")
    if files[0].suffix == ".bin":
        tensors = load_torch_tensors(files[0])
    else:
        with safe_open(files[0], "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    scale = about["lora_alpha"] / about["r"]
    for name, down in tensors.items():
        if ".lora_A." not in name:
            continue
        up = tensors[name.replace(".lora_A.", ".lora_B.")]
        place = (
            to_transformers_name(name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight"))
            or name
        )
        if place not in state:
            raise ModelError(
                f"{folder} adapts {place}, which the language model does not have", "give its own base"
            )
        state[place] = (state[place].float() + scale * up.float() @ down.float()).to(state[place].dtype)
    trained = load_torch_tensors(folder / "non_lora_trainables.bin")
    state |= _rename_tensors({name.removeprefix("base_model.model."): t for name, t in trained.items()})
