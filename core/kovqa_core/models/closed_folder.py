"""A model folder is opened by itself: what of it leads elsewhere, or is not a file at all, is refused by name.

Model folders come from anybody, and the libraries that open them follow what they say: names of the Hub, paths, links.
So the files are looked at first. Code of a folder is another matter: only the user's own flag lets it run
(`LoadOptions.trust_remote_code`), and none of these rules gives way to that flag.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from kovqa_core.errors import KovqaError, ModelError
from kovqa_core.files import read_json
from kovqa_core.messages import Message, error_text, message
from kovqa_core.messages.system_reasons import system_reason

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_MODEL_FILES = (*_WEIGHTS, ".json", ".txt", ".model", ".jinja", ".py")
_OTHER_FOLDERS = ("trainer",)  # what a checkpoint keeps for resuming has checks of its own
_REASON_LENGTH = 240  # characters of a library's error
_MAX_DEPTH = 4  # of folders in a model folder
_LARGE_FILES = ("tokenizer.json", "vocab.json")  # the tokenizers' library reads them, and follows nothing

# Sources of models that timm and transformers know by a prefix: `hf-hub:timm/resnet18`, `local-dir:/elsewhere`.
_SOURCE_PREFIX = re.compile(r"\s*(hf[-_]hub|local-dir|https?|file|ftp|s3|gs):", re.IGNORECASE)
# Keys by whose values a library chooses what it opens. Elsewhere a name or an address is only a remark.
_OPENED_KEYS = frozenset((
    "architecture", "backbone", "checkpoint_path", "audio_tokenizer_name_or_path", "tokenizer_file", "vocab_file",
    "merges_file", "spm_file", "added_tokens_file", "special_tokens_map_file",
))  # fmt: skip
_REPOSITORY_KEYS = frozenset(("checkpoint_path", "audio_tokenizer_name_or_path"))  # any name leads elsewhere
_KERNEL_KEYS = re.compile(r"_?(attn|experts)_implementation(_internal)?")


def require_closed_folder(folder: Path) -> None:
    """See that what a model folder holds are files, lies in it, and names nothing outside of it.

    Args:
        folder: of transformers, timm, LLaVA or kovqa.

    Raises:
        ModelError: something else in a file's place (a folder, a pipe, a broken link), cannot be opened, or lies outside; a
            name in a configuration that leads to the Hub or to another folder.
        DataError: a configuration is not JSON.
    """
    for file in _model_files(folder, folder):
        if file.suffix != ".json" or file.name in _LARGE_FILES:
            continue
        values = read_model_json(file)
        if file.name.endswith(".index.json"):
            shard_names(file, values)
        else:
            require_no_way_out(file, values)


def read_model_json(file: Path) -> dict[str, object]:
    """The JSON object in a file of a model folder.

    Raises:
        ModelError: it is not a file, or another JSON value.
        DataError: it is not JSON.
    """
    _require_file(file.parent, file)
    values = read_json(file)
    if not isinstance(values, dict):
        raise _damaged(
            message(
                "models.not-an-object",
                "{file} holds {value:.40}, not a JSON object",
                file=file,
                value=repr(values),
            )
        )
    return values


def shard_names(index: Path, values: Mapping[str, object]) -> list[str]:
    """The shards that a weight index names, sorted: files beside it.

    Args:
        index: `model.safetensors.index.json` and the like.
        values: what it holds.

    Raises:
        ModelError: it names none, or one elsewhere.
    """
    weight_map = values.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _damaged(message("models.not-a-shard-index", "{index} names no shards", index=index))
    for name in weight_map.values():
        if not isinstance(name, str) or PurePosixPath(name).name != name or "\\" in name:
            raise _leads_elsewhere(index, "weight_map", name)
    return sorted(set(weight_map.values()))


@contextlib.contextmanager
def hub_offline() -> Iterator[None]:
    """No library asks the Hub meanwhile, whatever a folder names."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def building(config_file: Path) -> Iterator[None]:
    """Whatever the making of a network raises, as a `ModelError` that names the configuration it follows."""
    try:
        yield
    except MemoryError:
        raise
    except KovqaError as error:
        raise ModelError(
            message(
                "models.cannot-be-built-of", "{file}: {problem}", file=config_file, problem=error.message
            ),
            error.hint,
        ) from None
    except Exception as error:  # of any kind: sizes that do not go together, values that are missing
        raise _damaged(
            message(
                "models.cannot-be-built",
                "{file} describes no network that can be made ({reason})",
                file=config_file,
                reason=error_reason(error),
            )
        ) from None


@contextlib.contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """What is wrong with a part of a model folder, with the folder's name, where the error does not have it."""
    try:
        yield
    except KovqaError as error:
        if str(folder) in error.message:
            raise
        text = message("models.part-of-folder", "{folder}: {problem}", folder=folder, problem=error.message)
        raise type(error)(text, error.hint) from None


def error_reason(error: BaseException) -> str:
    """The first line of what a library's error says, at most so long; its class where it says nothing.

    An error that holds a message of ours keeps it.
    """
    if isinstance(said := error_text(error), Message):
        return said
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    # torch and transformers write a heading first, and what is wrong in the second line.
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    if not text or isinstance(error, KeyError):
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]} …"


# ------------------------------------------------------------------------------ files


def _model_files(home: Path, folder: Path, depth: int = 0) -> Iterator[Path]:
    """The files of a model folder, or of a folder in it, that make its model, each of them checked."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from None
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.suffix in _MODEL_FILES:
            _require_file(home, path)
            yield path
        elif (
            depth < _MAX_DEPTH and path.name not in _OTHER_FOLDERS and not path.is_symlink() and path.is_dir()
        ):
            yield from _model_files(home, path, depth + 1)


def _require_file(folder: Path, path: Path) -> None:
    """See that a path is a file that can be read, of this folder; of a downloaded snapshot, of its repository.

    Raises:
        ModelError: it is not.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        raise _damaged(
            message(
                "models.not-a-file",
                "{path} is {what}, not a file",
                path=path,
                what=_kind_of(mode),
            )
        )
    # Weights often lie on another disk, and nothing but weights is read from such a file. Any other file would be
    # copied into what is trained from this folder, or exported.
    if path.is_symlink() and path.suffix not in _WEIGHTS:
        target, home = path.resolve(), folder.resolve()
        blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
        if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
            raise ModelError(
                message(
                    "models.link-outside",
                    "{path} is a link to {target}, outside of its model folder",
                    path=path,
                    target=target,
                ),
                message(
                    "models.link-outside.hint",
                    "if that is the right file, put a copy in the link's place; weights alone may lie elsewhere",
                ),
            )


def _kind_of(mode: int) -> Message:
    if stat.S_ISDIR(mode):
        return message("models.a-folder", "a folder")
    if stat.S_ISFIFO(mode):
        return message("models.a-pipe", "a pipe")
    return message("models.a-device", "a device or socket")


# ------------------------------------------------------------------------------ names in configurations


def require_no_way_out(file: Path, values: Mapping[str, object]) -> None:
    """See that no value, at whatever depth, makes a library open something outside of the folder.

    Args:
        file: the configuration that holds them, for the error.
        values: its keys and values.

    Raises:
        ModelError: one does; it names file and key.
    """
    found: list[tuple[tuple[str, ...], object]] = [((), values)]  # a list, for files may be nested deeply
    while found:
        path, value = found.pop()
        if isinstance(value, dict):
            found += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            found += [(path, inner) for inner in value]
        elif path and _leads_out(file.parent, path[-1], value):
            raise _leads_elsewhere(file, ".".join(path), value)


def _leads_out(folder: Path, key: str, value: object) -> bool:
    if key == "use_pretrained_backbone":
        return value is True  # whose weights timm would fetch
    if not isinstance(value, str) or not value:
        return False
    if _KERNEL_KEYS.fullmatch(key):
        return "/" in value  # a kernel of the Hub, which is code
    if key in _REPOSITORY_KEYS:
        return True
    if key not in _OPENED_KEYS:
        return False
    if _SOURCE_PREFIX.match(value):
        return True
    # Paths of the author's machine are left over in many files, and lead nowhere.
    return key.endswith("_file") and Path(value).name != value and (folder / value).exists()


def _leads_elsewhere(file: Path, key: str, value: object) -> ModelError:
    return ModelError(
        message(
            "models.leads-elsewhere",
            "{file}: {key}: {value!r} leads out of the model folder, which is opened by itself and offline",
            file=file,
            key=key,
            value=value,
        ),
        message(
            "models.leads-elsewhere.hint",
            "put what it names into the folder, and take it out of the file; or use another model",
        ),
    )


def _damaged(problem: Message) -> ModelError:
    return ModelError(problem, message("models.damaged.hint", "fetch or copy the folder again"))


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        message(
            "models.cannot-open",
            "cannot open {path}: {reason}",
            path=path,
            reason=system_reason(error),
        ),
        message("models.cannot-open.hint", "check its permissions, or fetch the folder again"),
    )
