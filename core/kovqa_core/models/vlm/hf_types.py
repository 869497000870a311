"""What kovqa uses of transformers' models, tokenizers and processors, as types.

Their own types change with every release and say little. These few lines are what mypy checks our code by;
what is not listed here is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from PIL import Image
from torch import Tensor, nn


class ContentBlock(TypedDict, total=False):
    """An image or a text of a chat turn."""

    type: Literal["image", "text"]
    image: Image.Image
    text: str


class ChatTurn(TypedDict):
    """One turn of a chat, as `apply_chat_template` takes it."""

    role: Literal["user", "assistant"]
    content: list[ContentBlock]


class AddedToken(Protocol):
    """A token beside the tokenizer's own vocabulary."""

    special: bool


class HfTokenizer(Protocol):
    """A `PreTrainedTokenizerBase`."""

    chat_template: str | dict[str, str] | None
    all_special_ids: list[int]
    added_tokens_decoder: Mapping[int, AddedToken]
    all_special_tokens: list[str]
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    pad_token: str | None
    unk_token_id: int | None

    def __len__(self) -> int: ...

    def get_vocab(self) -> dict[str, int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str | None]: ...

    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    def apply_chat_template(
        self, conversation: Sequence[ChatTurn], **arguments: object
    ) -> Mapping[str, Iterable[int]]: ...


class HfProcessor(Protocol):
    """A `ProcessorMixin`: tokenizer, image processor and chat template."""

    tokenizer: HfTokenizer
    image_processor: object
    model_input_names: Sequence[str]
    chat_template: str | dict[str, str] | None

    def apply_chat_template(
        self, conversation: Sequence[Sequence[ChatTurn]], **arguments: object
    ) -> Mapping[str, object]: ...

    def save_pretrained(self, save_directory: Path) -> object: ...


class HfGenerationConfig(Protocol):
    """A `GenerationConfig`."""

    eos_token_id: int | list[int] | None


class VisionConfig(Protocol):
    """A `CLIPVisionConfig`."""

    hidden_size: int
    image_size: int
    num_hidden_layers: int
    patch_size: int


class TextConfig(Protocol):
    """A `LlamaConfig`."""

    hidden_size: int
    initializer_range: float


class LlavaConfig(Protocol):
    """A `LlavaConfig`, its sections of CLIP and Llama."""

    vision_config: VisionConfig
    text_config: TextConfig
    vision_feature_select_strategy: str


if TYPE_CHECKING:

    class HfNetwork(nn.Module):
        """A `PreTrainedModel`, or peft's `PeftModel` around one, which hands these names on."""

        config: Any  # every architecture has its own
        generation_config: HfGenerationConfig

        def generate(self, **arguments: object) -> Any:
            """Token ids [B, N], or with `return_dict_in_generate` an object that holds them."""

        def get_decoder(self) -> nn.Module:
            """The language model without its head."""

        def get_input_embeddings(self) -> nn.Embedding:
            """The table of token embeddings."""

        def gradient_checkpointing_enable(self, arguments: Mapping[str, object]) -> None:
            """Recompute activations in the backward pass."""

        def save_pretrained(self, save_directory: Path, **arguments: object) -> object:
            """Write configuration and weights."""

        def merge_and_unload(self) -> HfNetwork:
            """Of peft: the network with its low-rank updates added to the weights."""
else:
    HfNetwork = nn.Module  # transformers' classes are not to be imported for a name

PromptTensors = dict[
    str, Tensor
]  # what a network's forward takes: input_ids, attention_mask, pixel_values, …
