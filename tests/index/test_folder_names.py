"""What names of folders say about a split."""

from __future__ import annotations

import unicodedata

import pytest
from kovqa_core.index.folder_names import folder_word, split_of_name


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "학습 1.Training train_labels TRAIN 상_train_동물 train2014 KoreanTrain 학습데이터 01.학습용"),
        ("val", "2.검증 Validation valid_labels 상_validate_동물 val val2014 ValidSet 검증셋"),
        ("test", "시험 Test test2015 3.Test 테스트 testing"),
        (None, "constraint festival latest interval invalid valley 학습용품 시험지 모의시험 train_valid 학습_및_검증"),
    ],
)  # fmt: skip
def test_a_folders_name_speaks_of_one_split_or_none(split: str | None, names: str) -> None:
    for name in names.split():
        assert split_of_name(name) == split_of_name(unicodedata.normalize("NFD", name)) == split, name


def test_folders_of_labels_and_images_have_one_word() -> None:
    for names in (
        ["[라벨]거실", "[원천] 거실", "TL_거실", "VS2.거실"],
        ["1.Training", "학습", "train"],
        ["[원천]"],
        ["TS1"],
    ):
        assert len({folder_word(name) for name in names} - {""}) == 1, names
