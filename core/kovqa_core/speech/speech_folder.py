"""A folder of a speech model: opened by itself and offline, as every model folder is."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from kovqa_core.errors import ModelError
from kovqa_core.machine.gpu_environment import gpu_environment
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import hub_offline, require_closed_folder
from kovqa_core.models.library_errors import library_errors
from kovqa_core.models.torchvision_compat import load_torchvision
from kovqa_core.runs.folder import hub_model_folder

load_torchvision()  # before transformers, which looks for it

transformers: Any = importlib.import_module("transformers")
transformers.utils.logging.set_verbosity_error()  # what matters is said by our own messages
transformers.utils.logging.disable_progress_bar()
# What every `from_pretrained` of a speech model gets: nothing is fetched, and no code of a folder runs.
OPTIONS: Mapping[str, object] = {"local_files_only": True, "trust_remote_code": False}


def speech_device() -> torch.device:
    """This machine's GPU if torch sees one, else its CPU."""
    os.environ.update(gpu_environment(os.environ))  # read when CUDA starts, which is now
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_speech_folder(name: str) -> Path:
    """The folder of a speech model.

    Args:
        name: a folder, or OWNER/NAME[@REVISION] of the Hugging Face hub, of which a copy is here.

    Raises:
        ModelError: there is none.
        AssetError: a model of the hub is not on this machine, or not whole.
    """
    folder = Path(name)
    if not os.path.lexists(folder):
        folder = hub_model_folder(folder) or folder
    if not folder.is_dir():
        raise ModelError(
            message("speech.no-folder", "there is no speech model {name}", name=name),
            message(
                "speech.no-folder.hint",
                "name a folder as transformers saves it; kovqa download hf:OWNER/NAME brings one",
            ),
        )
    return folder


def read_speech_config(folder: Path) -> Any:
    """The configuration of a model folder.

    Raises:
        ModelError: there is none; it leads elsewhere, or cannot be opened.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            message("speech.no-model", "no speech model in {folder}: it has no config.json", folder=folder),
            message("speech.no-model.hint", "name a folder as transformers saves it, with its weights"),
        )
    require_closed_folder(folder)
    with opening(folder):
        return transformers.AutoConfig.from_pretrained(folder, **OPTIONS)


def load_speech_network(folder: Path, model_class: Any, device: torch.device) -> Any:
    """A network with all its weights, ready to answer.

    Args:
        folder: of the model.
        model_class: one of transformers' classes for a task, `AutoModelForCTC` for example.
        device: where it computes: in 16 bits on a GPU, else in 32.

    Raises:
        ModelError: a file is damaged, or weights are missing.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with opening(folder):
        net, report = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True, **OPTIONS)
    # transformers draws missing weights at random and goes on.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelError(
            message(
                "speech.lacks-weights", "{folder} lacks {count} weights that its configuration names ({first}, …)",
                folder=folder, count=len(missing), first=missing[0],
            ),
            message("speech.fetch-again.hint", "fetch it again"),
        )  # fmt: skip
    return net.to(device).eval()


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Whatever a library raises at a damaged folder, as a `ModelError` that names it; the Hub is not asked.

    Raises:
        ModelError: it cannot be opened.
    """

    def cannot_be_opened(reason: str) -> ModelError:
        return ModelError(
            message(
                "speech.cannot-be-opened", "{folder} cannot be opened ({reason})", folder=folder, reason=reason
            ),
            message("speech.fetch-again.hint", "fetch it again"),
        )  # fmt: skip

    with hub_offline(), library_errors(cannot_be_opened):
        yield


@contextlib.contextmanager
def answering(folder: Path) -> Iterator[None]:
    """Whatever a network raises over its own folder's settings, as a `ModelError` that names it.

    Raises:
        ModelError: it does.
    """

    def does_not_answer(reason: str) -> ModelError:  # ids that are no tokens, lengths that do not fit
        return ModelError(
            message(
                "speech.does-not-answer", "the model in {folder} fails ({reason})", folder=folder, reason=reason
            ),
            message("speech.fetch-again.hint", "fetch it again"),
        )  # fmt: skip

    with library_errors(does_not_answer):
        yield
