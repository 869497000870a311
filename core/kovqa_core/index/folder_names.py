"""What names of folders say: a split (학습, 2.검증, Training, train_labels, val2014 …) or a category."""

from __future__ import annotations

import functools
import re
from pathlib import Path, PurePosixPath

from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name

PUBLISHER_SPLITS = ("train", "val", "test")  # in the order of an index

# Whole words only: `constraint`, `festival` and `latest` say nothing, nor do the categories 학습용품 and 시험지.
_KOREAN_SPLITS = {"train": "학습|훈련", "val": "검증", "test": "시험|평가|테스트"}
_ENGLISH_SPLITS = {"train": "train", "val": "valid|val(?![a-z])", "test": "test(?![a-z])|testing(?![a-z])"}
_SPLIT_WORDS = {
    split: re.compile(
        rf"(?<![a-z])(?:{_ENGLISH_SPLITS[split]})|(?<![가-힣])(?:{korean})(?:용|셋|세트|데이터|데이터셋|라벨|라벨링|이미지)*(?![가-힣])"
    )
    for split, korean in _KOREAN_SPLITS.items()
}


@functools.lru_cache(maxsize=1 << 12)
def split_of_name(name: str) -> str | None:
    """ "train", "val" or "test", if a folder's name speaks of one of them alone; in any Unicode form."""
    # A capital begins a word: KoreanTrain.
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", to_nfc(name)).lower()
    said = [split for split, pattern in _SPLIT_WORDS.items() if pattern.search(words)]
    return said[0] if len(said) == 1 else None


# AI-Hub marks labels and images of one category: [라벨]거실 and [원천]거실, TL_거실 and TS_거실.
_MARK = re.compile(r"^(?:\[[^\]]*\]|[TV][LS]\d*[_.])\s*")


@functools.lru_cache(maxsize=1 << 12)
def folder_word(name: str) -> str:
    """What a folder's name means, to be compared: its split, else the name itself without AI-Hub's marks."""
    text = to_nfc(readable_name(name)).strip()
    return split_of_name(text) or _MARK.sub("", text).lower() or text.lower()


def other_splits(split: str) -> tuple[str, ...]:
    """The other splits, as names of folders that hold no image of this one."""
    return tuple(other for other in PUBLISHER_SPLITS if other != split)


def publisher_split(folder: Path, root: Path) -> str:
    """The publisher's split of the labels in a folder: the nearest folder name that speaks of one decides.

    Names above the root, and its own, say nothing: they are the user's.

    Args:
        folder: of label files, below `root`.
        root: of the raw data.

    Raises:
        DataError: no name says it.
    """
    names = PurePosixPath(folder.relative_to(root).as_posix()).parts
    for name in reversed(names):
        if split := split_of_name(name):
            return split
    raise DataError(
        message(
            "index.no-split-in-path",
            "{folder}: no folder below {root} says whether this is training or validation data",
            folder=folder,
            root=root,
        ),
        message(
            "index.no-split-below-root.hint",
            "keep the publisher's folders (1.Training, 2.검증 …), or put the data into folders train and valid",
        ),
    )
