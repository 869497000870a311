"""The weights of LLaVA's folders under transformers' names, whole: base, vision tower, projector, LoRA.

Source: docs/sources/llava.md, L11, L16, L17, L22, L23 and L39.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.vlm.llava_adapter import merge_lora, read_non_lora_weights
from kovqa_core.models.vlm.llava_folder import (
    IMAGE_END_TOKEN,
    IMAGE_START_TOKEN,
    NON_LORA_FILE,
    PATCH_TOKEN,
    LlavaFolder,
    find_weight_files,
)
from kovqa_core.models.vlm.llava_weight_files import (
    EMBEDDING_NAME,
    LM_HEAD_NAME,
    PROJECTOR_PREFIX,
    StateDict,
    missing_weights_error,
    read_weight_files,
    to_transformers_name,
    to_vision_tower_name,
)

_PROJECTOR_NAME_FORMAT = PROJECTOR_PREFIX + "linear_{}.{}"


@dataclass(frozen=True)
class LlavaDimensions:
    """Sizes a LLaVA's own weights have.

    Attributes:
        vision_width: width of the vision tower.
        text_width: width of the language model.
        vocab_size: rows of the text table and of the head, added tokens included.
        initializer_range: standard deviation of newly drawn rows.
        shared_tables: is the head the text table?
    """

    vision_width: int
    text_width: int
    vocab_size: int
    initializer_range: float
    shared_tables: bool = False


def read_llava_state_dict(
    source: LlavaFolder, language: Path, vision: Path, dimensions: LlavaDimensions, seed: int
) -> StateDict:
    """All weights under transformers' names, in the precision of the language model's.

    A weight that transformers' class does not have keeps the name it has in its file.

    Args:
        source: LLaVA's folder.
        language: folder of the language model; the source itself where that is whole.
        vision: folder of the CLIP model; read only where the source has no vision tower of its own.
        dimensions: of the network to be filled.
        seed: of a new projector and the row of `<im_patch>`; for a plain language model.

    Raises:
        ModelError: a file cannot be read, an adapter belongs to another base, or a table does not fit.
    """
    new_name = partial(to_transformers_name, projector_layers=source.projector_layers)
    state = read_weight_files(find_weight_files(language), new_name)
    if EMBEDDING_NAME not in state:
        raise missing_weights_error(language, [EMBEDDING_NAME])
    dtype = state[EMBEDDING_NAME].dtype
    if dimensions.shared_tables:
        _drop_shared_head(state, language)
    if not any(name.startswith("model.vision_tower.") for name in state):
        if source.folder_type == "merged" and source.config.get("unfreeze_mm_vision_tower"):
            raise missing_weights_error(source.path, ["model.vision_tower"])  # trained: CLIP's own are others
        state |= read_weight_files(find_weight_files(vision), to_vision_tower_name)
    # One generator, drawn from in this order: the projector, then the rows of both tables. Another order
    # would give other weights for the same seed.
    generator = torch.Generator().manual_seed(seed)
    trained: StateDict = {}
    if source.projector_file is not None:
        trained = read_weight_files([source.projector_file], new_name)
    elif source.folder_type == "lora":
        merge_lora(state, source.path, new_name)
        trained = read_non_lora_weights(source.path, new_name)
    elif source.folder_type == "language":
        trained = _init_projector(dimensions, generator)
    if trained:  # a base may be a LLaVA itself: its projector is replaced as a whole
        state = {name: tensor for name, tensor in state.items() if not name.startswith(PROJECTOR_PREFIX)}
    _require_token_rows(source, trained, dimensions)
    state |= trained
    if source.projector_layers == 1:
        # transformers' class always has two layers: v1's one is followed by an identity, with "linear" as
        # the activation between, so that the result is the same number for number.
        state[_PROJECTOR_NAME_FORMAT.format(2, "weight")] = torch.eye(dimensions.text_width)
        state[_PROJECTOR_NAME_FORMAT.format(2, "bias")] = torch.zeros(dimensions.text_width)
    own_tables = state.keys() if source.folder_type == "merged" else trained.keys()
    _fit_tables(state, own_tables, source, language, dimensions, generator)
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


# ------------------------------------------------------------------------------ projector and rows


def _init_projector(dimensions: LlavaDimensions, generator: torch.Generator) -> StateDict:
    """As torch initialises a linear layer: uniform within 1 / √(input width)."""
    bound = dimensions.vision_width**-0.5
    tensors = {
        "weight": torch.empty(dimensions.text_width, dimensions.vision_width),
        "bias": torch.empty(dimensions.text_width),
    }
    return {
        _PROJECTOR_NAME_FORMAT.format(1, name): tensor.uniform_(-bound, bound, generator=generator)
        for name, tensor in tensors.items()
    }


def _drop_shared_head(state: StateDict, language: Path) -> None:
    """Take out a head that is the text table.

    Raises:
        ModelError: it is not.
    """
    head = state.pop(LM_HEAD_NAME, None)
    if head is not None and not torch.equal(head, state[EMBEDDING_NAME]):
        raise ModelError(
            message(
                "vlm.shared-tables-differ",
                "{folder} says that lm_head is the text table (tie_word_embeddings), but its weights differ",
                folder=language,
            ),
            message("vlm.shared-tables-differ.hint", "correct its config.json, or fetch it again"),
        )


def _require_token_rows(source: LlavaFolder, trained: StateDict, dimensions: LlavaDimensions) -> None:
    """What was trained holds the whole text table where `<im_start>` and `<im_end>` learned with the projector.

    Raises:
        ModelError: it is missing, or of another vocabulary.
    """
    num_rows = dimensions.vocab_size - (len(source.new_tokens) - len(source.added_tokens))
    table = trained.get(EMBEDDING_NAME)
    found = 0 if table is None else len(table)
    is_needed = source.projector_file is not None and source.has_image_frame
    if found == num_rows or (table is None and not is_needed):
        return
    raise ModelError(
        message(
            "vlm.token-rows",
            "{file} has {found} rows of model.embed_tokens.weight, the language model with LLaVA's tokens {expected}",
            file=source.projector_file or source.path / NON_LORA_FILE,
            found=found,
            expected=num_rows,
        ),
        message(
            "vlm.token-rows.hint",
            "give the language model it was trained on (--base), and its own config.json (mm_use_im_patch_token, "
            "mm_use_im_start_end)",
        ),
    )


def _fit_tables(
    state: StateDict,
    own_tables: Iterable[str],
    source: LlavaFolder,
    language: Path,
    dimensions: LlavaDimensions,
    generator: torch.Generator,
) -> None:
    """Give text table and head a row for each token, no more and no fewer.

    Args:
        state: all weights; changed.
        own_tables: names of weights that are LLaVA's: they hold the rows of its tokens already.
        source: LLaVA's folder.
        language: folder of the language model.
        dimensions: of the network.
        generator: for `<im_patch>`.

    Raises:
        ModelError: a table is missing or too short.
    """
    for name in (EMBEDDING_NAME,) if dimensions.shared_tables else (EMBEDDING_NAME, LM_HEAD_NAME):
        if name not in state:
            raise missing_weights_error(language, [name])
        state[name] = _fit_vocab_rows(
            state[name], source, language, dimensions, generator, is_own=name in own_tables
        )
    if dimensions.shared_tables:
        state[LM_HEAD_NAME] = state[EMBEDDING_NAME].clone()


def _fit_vocab_rows(
    table: Tensor,
    source: LlavaFolder,
    language: Path,
    dimensions: LlavaDimensions,
    generator: torch.Generator,
    *,
    is_own: bool,
) -> Tensor:
    """The table [V, D] with rows for the added tokens, as the original adds them.

    It resizes to the tokenizer's length, which cuts off the rows that a base was padded with, but for one that
    becomes `<im_patch>`; else that is drawn, and then replaced by image features. The rows of `<im_start>` and
    `<im_end>` are the mean of all rows before. The row of `<image>`, which the original does not have, is zero.
    """
    tokens, num_tokens = source.new_tokens, dimensions.vocab_size
    num_base = num_tokens - len(tokens)
    if len(table) < num_base:
        raise ModelError(
            message(
                "vlm.table-too-short",
                "{folder} has {rows} rows in its text table, and {tokens} tokens",
                folder=language,
                rows=len(table),
                tokens=num_base,
            ),
            message("vlm.table-too-short.hint", "tokenizer and weights are of two models: fetch both again"),
        )
    if is_own:
        table = table[: num_base + len(source.added_tokens)]
    else:
        table = table[: num_base + (PATCH_TOKEN in tokens)]
    for token in tokens[len(table) - num_base :]:
        row = torch.zeros_like(table[:1])
        if token == PATCH_TOKEN and source.folder_type == "language":
            row.normal_(0, dimensions.initializer_range, generator=generator)
        elif token in (PATCH_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN):
            row = table.float().mean(0, keepdim=True).to(table.dtype)
        table = torch.cat([table, row])
    return table
