"""Find the image that a row names: one rule for every data set and for `predict`.

1. The path below the image folder as it is written; a bare name first in a folder that has the row's own name
   (its category, its split). Any Unicode form, "\\" for "/", with or without suffix.
2. Else the files of that bare name anywhere below. What contradicts the path that is given is none of them,
   nor is what lies in another category's or split's folder. Of several, the longest end in common with the
   path given decides, then the row's own folders, in their order.
3. Several left: nobody knows which, so it is none (`FoundImage.others` names them), never the first.

A name that leads out of the image folder (`data/image_names.py`) is followed where the user allows it; else the image
is none if a file is there, and is looked for by its bare name if none is: then it is a path of another machine.
"""

from __future__ import annotations

import functools
import itertools
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kovqa_core.data.image_formats import IMAGE_SUFFIXES
from kovqa_core.data.image_names import has_parent_part, leads_outside, path_below
from kovqa_core.data.tar_images import TAR_SUFFIX, find_in_tar
from kovqa_core.errors import name_or_name
from kovqa_core.files import to_nfc
from kovqa_core.index.folder_names import folder_word, other_splits, split_of_name
from kovqa_core.index.image_listing import FolderListing
from kovqa_core.index.left_out import IMAGE_AMBIGUOUS, IMAGE_MISSING, IMAGE_OUTSIDE
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.messages.readable_name import readable_name

# Looked for without a listing, for a name without suffix; a listing knows all formats, in any case.
_USUAL_SUFFIXES = (*IMAGE_SUFFIXES[:4], ".JPG", ".PNG", ".JPEG")
# A name that more files bear says nothing; comparing them all, for every row, would take hours.
_MOST_CANDIDATES = 1000
# Which names may lead out of the image folder: none, absolute paths without `..`, or all.
OutsideNames = Literal["none", "absolute", "all"]


@dataclass(frozen=True, slots=True)
class FoundImage:
    """The image that a row names, or why there is none.

    Attributes:
        path: below the image folder, as this disk spells it; None: there is none.
        name: what the row calls it.
        others: files that it might be, where nothing decides between them; or those that belong to others.
        is_outside: it is a file outside the image folder, where the user has not allowed any.
    """

    path: str | None
    name: str = ""
    others: tuple[str, ...] = ()
    is_ambiguous: bool = False
    is_outside: bool = False

    @property
    def reason(self) -> str:
        """Why the row is left out: a key of `index.json`."""
        if self.is_outside:
            return IMAGE_OUTSIDE
        return IMAGE_AMBIGUOUS if self.is_ambiguous else IMAGE_MISSING

    @property
    def problem(self) -> str:
        """What is wrong: the name, and the files that it might be."""
        if not self.others:
            return self.name
        names = [*map(readable_name, self.others[:3])]
        if len(self.others) > 3:
            names[-1] += " …"
        listed = name_or_name(names)
        if self.is_ambiguous:
            return join_messages(": ", [self.name, message("index.which-image", "{images}?", images=listed)])
        return message(
            "index.image-elsewhere", "{image} (in another folder: {images})", image=self.name, images=listed
        )


def row_with_problem(row: str, image: FoundImage, name: str = "") -> Message:
    """A row that is left out for its image, and what is wrong with that.

    Args:
        row: its place or id.
        image: that was not found.
        name: what is said of an image that the data do not name.
    """
    return join_messages(": ", [row, image.problem or name])


def find_image(
    images: Path,
    name: str,
    folders: tuple[str, ...] = (),
    other_folders: tuple[str, ...] = (),
    *,
    outside: OutsideNames = "none",
) -> FoundImage:
    """The image of a row.

    Args:
        images: the image folder.
        name: path below it, or bare file name, NFC.
        folders: names of the row's own folders, what decides first coming first: category, split.
        other_folders: names of folders that belong to other rows: other categories, other splits.
        outside: which names may lead out of the image folder; the path is an absolute one then.
    """
    # Called millions of times; nearly all names are right as they are.
    if name and not leads_outside(name) and "//" not in name and "./" not in name:
        own_folders = _own_folders(images, folders) if folders and "/" not in name else ()
        path = f"{own_folders[0]}/{name}" if own_folders else name
        if _is_file(images, path):
            return FoundImage(path)
    return _find_other_spelling(images, name, folders, other_folders, outside)


def find_table_image(
    table: Path,
    images: Path,
    name: str,
    question_type: str = "",
    split: str = "",
    *,
    outside: OutsideNames = "none",
) -> FoundImage:
    """The image of a row of a user's own table.

    Where several have the name, the row's type, its split and a table's name decide: the images of Dacon's
    `test.csv` lie in `image/test`, and never in `image/train`.

    Args:
        table: the file.
        images: the image folder.
        name: what the row calls it.
        question_type, split: of the row; "" where it has none.
        outside: which names may lead out of the image folder.
    """
    named = _split_of_table(table.stem)
    others = other_splits(named) if named and not split else ()
    folders = (question_type, split, named or "")
    found = find_image(images, name, folders, others, outside=outside)
    # A file's name may begin or end with a blank; far more often only the cell does.
    is_blank_meant = found.path is not None or bool(found.others) or name == name.strip()
    return found if is_blank_meant else find_image(images, name.strip(), folders, others, outside=outside)


_split_of_table = functools.lru_cache(maxsize=64)(split_of_name)  # the same for all rows of a table


def one_image_of(id: str, first: FoundImage, second: FoundImage) -> FoundImage:
    """The image of an id that a label file gives to two images: the one, if both are the same file, else nobody's."""
    if second.path is None or first.path == second.path:
        return first
    if first.path is None and not first.others:
        return second
    return FoundImage(None, f"image id {id}", (*_files_of(first), *_files_of(second)), is_ambiguous=True)


def _files_of(image: FoundImage) -> tuple[str, ...]:
    return image.others if image.path is None else (image.path,)


def clear_listings() -> None:
    """Forget what image folders held: files may have come and gone since."""
    for cache in (_is_file, _find_other_spelling, _cached_listing, _present_folders, _own_folders):
        cache.cache_clear()


@functools.lru_cache(maxsize=1 << 16)  # several questions about one image follow each other
def _find_other_spelling(
    images: Path, name: str, folders: tuple[str, ...], other_folders: tuple[str, ...], outside: OutsideNames
) -> FoundImage:
    if leads_outside(name) and "\0" not in name:
        found_outside = _find_outside(images, name, outside)
        if found_outside is not None:
            return found_outside
    path = posixpath.normpath(name.replace("\\", "/")) if name.strip() else ""
    if not path or "\0" in path or path == ".":
        return FoundImage(None, name)
    found: list[str] = []
    if "/" not in path:
        own_paths = (f"{own}/{path}" for own in _own_folders(images, folders))
        found = next(filter(None, (_direct_files(images, own) for own in own_paths)), [])
    if not found and not leads_outside(path):
        # As it is written first: on this system a backslash may be a letter of a name.
        found = [name] if "\\" in name and _is_file(images, name) else _direct_files(images, path)
    if not found:
        # Without the slash: an absolute path of another machine still ends in the folder and the name.
        return _search(images, name, to_nfc(path.lstrip("/")).split("/"), folders, other_folders)
    return _only_one(images, name, found)


def _only_one(images: Path, name: str, found: Sequence[str]) -> FoundImage:
    """The file, if it is one; two links to one file are one."""
    first = os.path.join(images, found[0])  # noqa: PTH118
    if all(os.path.samefile(first, os.path.join(images, other)) for other in found[1:]):  # noqa: PTH118, PTH121
        return FoundImage(found[0])
    return FoundImage(None, name, tuple(found), is_ambiguous=True)


def _find_outside(images: Path, name: str, outside: OutsideNames) -> FoundImage | None:
    """What a name that leads outside means; None: no file, so that it is looked for inside by its bare name."""
    below = path_below(images, name)
    if below is not None and (found := _direct_files(images, below)):
        return _only_one(images, name, found)
    path = posixpath.normpath(name.replace("\\", "/"))
    # Neither `가/../나.jpg`, which stays inside, nor a home or an address; a drive is a path of Windows alone.
    if not os.path.isabs(path) and not path.startswith("../"):  # noqa: PTH117
        return None
    if outside == "none" or (outside == "absolute" and has_parent_part(name)):
        return FoundImage(None, name, is_outside=True) if _direct_files(images, path) else None
    if not (found := _direct_files(images, path)):
        return None
    return _only_one(images, name, [_absolute(images, each) for each in found])


def _absolute(images: Path, path: str) -> str:
    """A file's absolute path without `..`; its own name stays, also a link's."""
    # `..` as the system reads it, behind a link too.
    folder, file = os.path.split(os.path.join(images, path))  # noqa: PTH118
    folder = os.path.realpath(folder) if has_parent_part(path) else folder
    return os.path.join(folder, file).replace(os.sep, "/")  # noqa: PTH118


@functools.lru_cache(maxsize=1 << 10)  # several questions about one image follow each other
def _is_file(images: Path, path: str) -> bool:
    whole = os.path.join(images, path)  # noqa: PTH118
    return os.path.isfile(whole) or find_in_tar(Path(whole)) is not None  # noqa: PTH113


def _direct_files(images: Path, path: str) -> list[str]:
    """The files that a path means, without a search: in any Unicode form, with any usual suffix."""
    if TAR_SUFFIX in path.lower() and (tarred := _file_in_tar(images, path)):
        return [tarred]
    folder, file = posixpath.split(path)
    spellings = list(itertools.product(_present_folders(images, folder), _unicode_spellings(file)))
    for below, bare in spellings:
        candidate = posixpath.join(below, bare)
        if _is_file(images, candidate):
            return [candidate]
    if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
        return []
    for below, bare in spellings:
        candidates = (posixpath.join(below, bare + suffix) for suffix in _USUAL_SUFFIXES)
        if found := [each for each in candidates if _is_file(images, each)]:
            return found
    return []


def _file_in_tar(images: Path, path: str) -> str:
    """A path into a tar, as this disk spells the tar's; "" where there is none. A folder in a tar is none of the disk."""
    if _is_file(images, path):
        return path
    parts = path.split("/")
    for count in (n for n, part in enumerate(parts, 1) if part.lower().endswith(TAR_SUFFIX)):
        folder, rest = "/".join(parts[: count - 1]), "/".join(parts[count:])
        for below, tar in itertools.product(
            _present_folders(images, folder), _unicode_spellings(parts[count - 1])
        ):
            candidate = posixpath.join(below, tar, rest)
            if _is_file(images, candidate):
                return candidate
    return ""


def _unicode_spellings(name: str) -> dict[str, None]:
    """A name as it is and in both Unicode forms, each once: archives of a Mac unpack into either."""
    return dict.fromkeys((name, to_nfc(name), unicodedata.normalize("NFD", name)))


@functools.lru_cache(maxsize=1 << 12)
def _present_folders(images: Path, folder: str) -> tuple[str, ...]:
    """A folder below the image folder, as this disk spells it; none where it is not there."""
    return tuple(name for name in _unicode_spellings(folder) if os.path.isdir(os.path.join(images, name)))  # noqa: PTH112, PTH118


@functools.lru_cache(maxsize=1 << 12)
def _own_folders(images: Path, folders: tuple[str, ...]) -> tuple[str, ...]:
    """The folders right below the image folder that have these names, as this disk spells them."""
    return tuple(
        own for name in folders if name and "/" not in name for own in _present_folders(images, name)
    )


# ----------------------------------------------------------------------------------- by bare name


@functools.lru_cache(maxsize=1)
def _cached_listing(images: Path) -> FolderListing:
    return FolderListing(images)


def _search(
    images: Path, name: str, given: Sequence[str], folders: tuple[str, ...], other_folders: tuple[str, ...]
) -> FoundImage:
    """The image among all files of that bare name below the folder; `given` is the name's path, in parts."""
    files = _files_of_name(_cached_listing(images), given[-1])
    if len(files) > _MOST_CANDIDATES:
        return FoundImage(None, name, tuple(files), is_ambiguous=True)
    own, foreign = ([folder_word(each) for each in names if each] for names in (folders, other_folders))
    # The more of these agree, in this order, the better does a file fit.
    fits: dict[str, tuple[int, list[bool], list[bool], int]] = {}
    own_names = [each.lower() for each in folders if each]
    given_words = list(map(folder_word, given[:-1]))
    for file, spelling in files.items():
        parents, names = _folder_words(file.rpartition("/")[0])
        is_foreign = any(word in foreign and word not in own for word in parents)
        same_end = _common_end(parents, given_words) if given_words else 0
        # Both name a folder, each another one: 폴더/1.png may lie in no folder, but not in 음식.
        contradicts = len(given) > 1 and bool(parents) and same_end == 0
        if not is_foreign and not contradicts:
            # 상_train_동물 and 하_train_동물 say the same split: only their names tell them apart.
            in_own, in_same_name = [word in parents for word in own], [each in names for each in own_names]
            fits[file] = (same_end, in_own, in_same_name, spelling)
    if not fits:
        return FoundImage(None, name, tuple(files))
    best = max(fits.values())
    return _only_one(images, name, [file for file, fit in fits.items() if fit == best])


@functools.lru_cache(maxsize=1 << 12)  # many images lie in one folder
def _folder_words(path: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """What the names of a path's folders mean, in their order; and the names themselves, in lower case."""
    folders = path.split("/") if path else []
    return tuple(map(folder_word, folders)), frozenset(
        to_nfc(readable_name(each)).lower() for each in folders
    )


def _files_of_name(listing: FolderListing, bare: str) -> dict[str, int]:
    """File -> how well its name is the one that is given: 2 alike, 1 in other case, 0 with a suffix that it lacks."""
    found: dict[str, int] = {}
    for stem in dict.fromkeys((os.path.splitext(bare)[0], bare)):  # noqa: PTH122
        for file in listing.files_of_stem(stem):
            theirs = to_nfc(readable_name(file)).rsplit("/", 1)[-1]
            if theirs.lower() == bare.lower():
                found[file] = 2 if theirs == bare else 1
            elif (
                theirs[: len(bare)].lower() == bare.lower() and theirs[len(bare) :].lower() in IMAGE_SUFFIXES
            ):
                found[file] = 0
            if len(found) > _MOST_CANDIDATES:
                return found
    return found


def _common_end(parents: Sequence[str], given: Sequence[str]) -> int:
    """How many folders before the file's own name are the same."""
    pairs = zip(reversed(parents), reversed(given), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
