"""`kovqa download --from FOLDER`: what the user fetched by hand, checked and put where a fetched asset would be.

Of a repository of the Hugging Face hub: a folder of `hf download --local-dir`, of the hub's cache, of `git clone`, or
files saved with a browser. The first two say what the hub's checksums are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.download.asset_record import write_asset_record
from kovqa_core.download.checks import HEAD_BYTES, checksum_mismatch, file_checksums, is_web_page
from kovqa_core.download.fetch import FetchOptions, asset_folder, unpack_file, unpacked_folder
from kovqa_core.download.hub import check_safe_name, wanted_hub_files
from kovqa_core.download.local_file import adopt_local_file, link_or_copy
from kovqa_core.download.part_file import download_lock, write_receipt
from kovqa_core.download.table import Asset
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.files import disk_errors, make_folder, open_file, read_bytes, read_text, to_nfc
from kovqa_core.messages import Message, message
from kovqa_core.progress import OnProgress, ignore_progress

_LFS_POINTER = b"version https://git-lfs.github.com/"
_MODEL_SUFFIXES = (
    ".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".gguf", ".onnx", ".model", ".spm", "tokenizer.json",
)  # fmt: skip
_MAX_HEADER_BYTES = 100 << 20  # of a safetensors file; its own library allows no more
_BY_HAND = "by hand"


def adopt_local_folder(
    asset: Asset, local_folder: Path, options: FetchOptions, on_progress: OnProgress = ignore_progress
) -> list[Path]:
    """Take the files of a folder: check what can be checked, put them in their places, unpack them.

    Returns:
        What to use, as `fetch_asset` does.

    Raises:
        SettingsError: the folder does not hold the asset's files.
        AssetError: a file is not what it should be.
    """
    if asset.repo:
        return _adopt_repository(asset, local_folder, options, on_progress)
    if asset.key:
        return _adopt_all_files(asset, local_folder, options, on_progress)
    missing = [file.name for file in asset.files if not (local_folder / file.name).is_file()]
    if missing or not asset.files:
        raise SettingsError(
            message(
                "download.from-folder-lacks", "{folder} lacks {names} of {asset}",
                folder=local_folder, names=", ".join(missing) or "a file", asset=asset.name,
            ),
            message("download.from-folder-lacks.hint", "name a single file with --from, or the folder that has them"),
        )  # fmt: skip
    return [
        path
        for file in asset.files
        for path in adopt_local_file(
            asset.model_copy(update={"files": (file,)}), local_folder / file.name, options, on_progress
        )
    ]


def _adopt_all_files(
    asset: Asset, local_folder: Path, options: FetchOptions, on_progress: OnProgress
) -> list[Path]:
    """Every file, in its place below the asset's folder; archives are unpacked beside themselves."""
    folder = make_folder(asset_folder(asset, options.output))
    names = _file_names(local_folder)
    for name in names:
        target = folder / to_nfc(name)
        with disk_errors(target), download_lock(target, on_progress):
            link_or_copy(local_folder / name, target)
    for name in names:
        target = folder / to_nfc(name)
        if unpacked := unpacked_folder(asset, target):
            unpack_file(target, unpacked, on_progress, keep_archive=True)
    write_asset_record(asset, folder, [folder], _BY_HAND, [to_nfc(name) for name in names])
    return [folder]


def _file_names(folder: Path) -> list[str]:
    """The files below a folder, by relative names; hidden ones (.git, .cache) are passed over."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]


# -------------------------------------------------------------------------------- hub


@dataclass(frozen=True)
class _LocalRepository:
    """A repository's files on this disk.

    Attributes:
        folder: where they lie.
        commit: of which commit; "" where the folder does not say it.
        checksums: name -> the hub's checksum, where the folder says it.
    """

    folder: Path
    commit: str = ""
    checksums: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _adopt_repository(
    asset: Asset, local_folder: Path, options: FetchOptions, on_progress: OnProgress
) -> list[Path]:
    local = _open_local_repository(local_folder)
    names = wanted_hub_files(asset, _file_names(local.folder))
    # Patterns like *.txt match in any folder: what makes a folder a model's are its weights or its tokenizer.
    if not names or not (asset.dataset or any(name.endswith(_MODEL_SUFFIXES) for name in names)):
        raise SettingsError(
            message(
                "download.from-folder-empty",
                "{folder} does not hold {repo}",
                folder=local_folder,
                repo=asset.repo,
            ),
            message(
                "download.from-folder-empty.hint", "name the folder that has config.json and the weights"
            ),
        )
    _require_shards(local.folder, names)
    folder = make_folder(asset_folder(asset, options.output))
    # All are checked before the first is taken.
    checksums = {
        name: _check_file(local.folder / name, local.checksums.get(name, {}), options, on_progress)
        for name in names
    }
    for name in names:
        target = folder / check_safe_name(name)
        with disk_errors(target), download_lock(target, on_progress):
            link_or_copy(local.folder / name, target)
            accepted = bool(checksum_mismatch(checksums[name], local.checksums.get(name, {})))
            write_receipt(
                target, target, f"{_BY_HAND}: {Path(name).name}", checksums[name], accepted=accepted
            )
    write_asset_record(asset, folder, [folder], local.commit or _BY_HAND, names)
    return [folder]


def _open_local_repository(folder: Path) -> _LocalRepository:
    """A folder as the hub's own tools leave it, or any other."""
    snapshots = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
    if len(snapshots) > 1:
        raise SettingsError(
            message(
                "download.from-snapshots",
                "{folder} holds {count} revisions",
                folder=folder,
                count=len(snapshots),
            ),
            message("download.from-snapshots.hint", "name one of them: --from {path}", path=snapshots[-1]),
        )
    folder = snapshots[0] if snapshots else folder
    checksums, commits = {}, set()
    for name in _file_names(folder):
        path = folder / name
        # `hf download --local-dir` writes three lines beside: commit, ETag, time. In the cache, a file is a link to
        # its checksum, in a folder named after the commit.
        notes = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        if notes.is_file():
            commit, etag = [*read_text(notes).split("\n"), ""][:2]
            commits.add(commit.strip())
        elif path.is_symlink() and path.resolve().parent.name == "blobs":
            etag = path.resolve().name
            commits.add(folder.name)
        else:
            continue
        if algorithm := {64: "sha256", 40: "git"}.get(len(etag.strip())):
            checksums[name] = {algorithm: etag.strip()}
    return _LocalRepository(folder, commits.pop() if len(commits) == 1 else "", checksums)


def _require_shards(folder: Path, names: list[str]) -> None:
    """See that all files are here that an index of weights names."""
    for name in names:
        if not name.endswith((".safetensors.index.json", ".bin.index.json")):
            continue
        try:
            shards = set(parse_json(read_bytes(folder / name))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise _broken_file_error(
                folder / name, message("download.from-bad-index", "no index of weights")
            ) from None
        missing = sorted(shard for shard in shards if not (folder / name).with_name(str(shard)).is_file())
        if missing:
            reason = message(
                "download.from-missing-shards", "it names {names}, not here", names=", ".join(missing[:3])
            )
            raise _broken_file_error(folder / name, reason)


def _check_file(
    path: Path, expected: Mapping[str, str], options: FetchOptions, on_progress: OnProgress
) -> dict[str, str]:
    """The checksums of a file that is what it should be, as far as that can be known without the hub."""
    with open_file(path) as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(_LFS_POINTER):
        raise _broken_file_error(
            path, message("download.from-lfs", "a pointer of Git LFS: run git lfs pull there")
        )
    if is_web_page(head) and path.suffix not in (".html", ".xml", ".md", ".txt"):
        raise _broken_file_error(path, message("download.from-web-page", "a web page"))
    if path.suffix == ".safetensors" and not _is_whole_safetensors(path, head):
        raise _broken_file_error(path, message("download.from-cut", "not a whole safetensors file"))
    if path.suffix == ".json":
        try:
            parse_json(read_bytes(path).removeprefix(b"\xef\xbb\xbf"))
        except ValueError:
            raise _broken_file_error(path, message("download.from-no-json", "not JSON")) from None
    checksums = file_checksums(path, expected, on_progress)
    mismatch = checksum_mismatch(checksums, expected)
    if mismatch and not options.allow_mismatch:
        raise AssetError(
            message("download.from-mismatch", "{path}: {mismatch}", path=path, mismatch=mismatch),
            message("download.from-mismatch.hint", "fetch it again, or take it with --allow-hash-mismatch"),
        )
    return checksums


def _is_whole_safetensors(path: Path, head: bytes) -> bool:
    """Is a file as long as its own header says: 8 bytes of length, JSON with the places of all tensors, the tensors?"""
    size = path.stat().st_size
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
        return False
    with open_file(path) as stream:
        stream.seek(8)
        try:
            header = parse_json(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return size == 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False


def _broken_file_error(path: Path, reason: Message) -> AssetError:
    return AssetError(
        message("download.from-broken", "{path}: {reason}", path=path, reason=reason),
        message("download.fetch-again.hint", "fetch it again"),
    )
