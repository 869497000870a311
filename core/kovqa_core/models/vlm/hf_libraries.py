"""transformers and peft, silenced, and imported after torchvision, which both need.

Their types change with every release and say little: `hf_types` lists what we use of them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kovqa_core.files import read_json, write_json
from kovqa_core.models.torchvision_compat import load_torchvision
from kovqa_core.models.vlm.hf_types import HfNetwork, HfProcessor
from kovqa_core.models.vlm.template_bounds import BoundedEnvironment


@contextlib.contextmanager
def _without_hub_kernels() -> Iterator[None]:
    """No library fetches compiled code from the hub meanwhile, as bitsandbytes would on being imported.

    peft imports it wherever it is installed, whatever is in 4 bits (docs/surprises.md).
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    before = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if before is not None:
            sys.modules["kernels"] = before


load_torchvision()

transformers: Any = importlib.import_module("transformers")
with _without_hub_kernels():
    peft: Any = importlib.import_module("peft")

# The sandbox of all chat templates; transformers looks up the name when it compiles one.
_chat_template_utils: Any = importlib.import_module("transformers.utils.chat_template_utils")
_chat_template_utils.ImmutableSandboxedEnvironment = BoundedEnvironment

transformers.utils.logging.set_verbosity_error()  # what matters is said by our own messages
transformers.utils.logging.disable_progress_bar()
# peft uses what transformers is about to remove: nothing that a user can act on
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")


# Encoders that lost the prefix `vision_model.` of their weights' names in transformers 5. It reads both names;
# version 4 takes weights without the prefix for missing ones, and draws them at random.
_PREFIXED_ENCODERS = ("CLIPVisionModel", "SiglipVisionModel", "Siglip2VisionModel", "MLCDVisionModel")
_ENCODER_PREFIX = "vision_model."


def save_hf_network(net: HfNetwork, folder: Path) -> None:
    """Write a network under the names that its published weights have, which older transformers reads, too.

    DeepSpeed, which transformers imports where it is installed, would print on stdout.
    """
    encoders = [name for name, module in net.named_modules() if type(module).__name__ in _PREFIXED_ENCODERS]
    state = {_published_name(name, encoders): tensor for name, tensor in net.state_dict().items()}
    with contextlib.redirect_stdout(sys.stderr):
        net.save_pretrained(folder, state_dict=state)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", _with_older_rope_keys(config))


def save_hf_processor(processor: HfProcessor, folder: Path) -> None:
    """Write a processor for others: version 4 of transformers, from 4.50 on, reads a LLaVA's, too.

    It looks for the image processor in a file of its own, and takes no list of `extra_special_tokens`, which
    transformers 5 makes of the tokenizer's own named tokens.
    """
    processor.save_pretrained(folder)
    section = read_json(folder / "processor_config.json").get("image_processor")
    if section and not (folder / "preprocessor_config.json").is_file():
        write_json(folder / "preprocessor_config.json", section)
    settings = read_json(folder / "tokenizer_config.json")
    named = {settings.get(f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list) and named.issuperset(extra):
        del settings["extra_special_tokens"]
        write_json(folder / "tokenizer_config.json", settings)


def _published_name(name: str, encoders: list[str]) -> str:
    for encoder in encoders:
        rest = name.removeprefix(f"{encoder}.")
        if rest != name and not rest.startswith(_ENCODER_PREFIX):
            return f"{encoder}.{_ENCODER_PREFIX}{rest}"
    return name


def _with_older_rope_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with `rope_theta` and `rope_scaling` beside `rope_parameters`, the one name of transformers 5.

    Version 4 knows only the two, and takes its defaults where they are missing.
    """
    config = {
        key: _with_older_rope_keys(value) if isinstance(value, dict) and key != "rope_parameters" else value
        for key, value in config.items()
    }
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:  # elsewhere one for each type of layer
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
    return config
