"""A locale that is not UTF-8: file names, questions and what is printed are Hangul all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from kovqa_cli.utf8_mode import convert_argument
from tests.conftest import Kovqa, Small, clean_env, command, training

# C alone would be read as UTF-8 by Python; with its UTF-8 mode off it knows nothing but ASCII.
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def old_korean(tmp_path: Path) -> dict[str, str]:
    """An EUC-KR locale, as older Korean servers have it; C where localedef is not here."""
    folder = tmp_path / "locales"
    folder.mkdir()
    if shutil.which("localedef") is None:
        return C_LOCALE
    made = ["localedef", "-i", "ko_KR", "-f", "EUC-KR", str(folder / "ko_KR.eucKR")]
    subprocess.run(made, capture_output=True, check=False)  # 1: warnings about the charmap
    if not (folder / "ko_KR.eucKR").is_dir():
        return C_LOCALE
    return {"LOCPATH": str(folder), "LC_ALL": "ko_KR.eucKR"}


@pytest.mark.parametrize(
    ("typed", "encoding", "expected"),
    [
        ("무슨 색인가요?".encode("euc-kr"), "euc_kr", "무슨 색인가요?"),
        ("무슨 색인가요?".encode(), "euc_kr", "무슨 색인가요?"),  # by a script that is written in UTF-8
        ("똠방각하".encode("cp949"), "euc_kr", "똠방각하"),  # a syllable that only Windows' code page has
        ("타".encode("euc-kr"), "euc_kr", "타"),  # the same bytes are Ÿ in UTF-8
        ("--question=색".encode("euc-kr"), "euc_kr", "--question=색"),
        ("何色".encode("shift-jis"), "shift_jis", "何色"),
        ("café".encode("latin-1"), "iso8859-1", "café"),
        ("색".encode(), "ascii", "색"),
        (b"--input", "euc_kr", "--input"),
    ],
)
def test_words_of_the_command_line(typed: bytes, encoding: str, expected: str) -> None:
    assert convert_argument(typed, encoding) == expected.encode()


def test_a_path_that_is_there_by_its_bytes_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "그림".encode("euc-kr")
    (Path(name.decode("utf-8", "surrogateescape"))).mkdir()
    assert convert_argument(name, "euc_kr") == name
    assert convert_argument(b"--images=" + name, "euc_kr") == b"--images=" + name
    assert convert_argument("새 그림".encode("euc-kr"), "euc_kr") == "새 그림".encode()


@pytest.mark.parametrize("output", [["--json"], ["-q"]])
def test_an_index_of_hangul_names(
    small: Small, tmp_path: Path, old_korean: dict[str, str], output: list[str]
) -> None:
    (tmp_path / "표.csv").write_text("image,question,answer\n그림_1.png,무슨 색인가요?,빨강\n", "utf-8")
    shutil.copy(next((small.root / "images").glob("*.png")), tmp_path / "그림_1.png")
    words = ["index", "table", "--root", "표.csv", "-o", "색인", "--min-count", "1", *output]
    done = subprocess.run(
        command(words), cwd=tmp_path, env=clean_env(**old_korean), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # JSON is UTF-8 everywhere; what a terminal shows is in its own encoding (of C nobody knows it: UTF-8).
    encoding = "euc-kr" if output == ["-q"] and "LOCPATH" in old_korean else "utf-8"
    shown = done.stdout.decode(encoding).strip()
    assert (json.loads(shown)["path"] if output == ["--json"] else shown) == "색인"
    assert "그림_1.png" in (tmp_path / "색인" / "train.jsonl").read_text("utf-8") + (
        tmp_path / "색인" / "val.jsonl"
    ).read_text("utf-8")


def test_an_answer_in_a_c_locale(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    """The image, the tokenizer (C++) and the model's folder get Hangul."""
    shutil.copy(next((small.root / "images").glob("*.png")), tmp_path / "그림.png")
    (tmp_path / "모델").symlink_to(trained)
    words = ["predict", "-i", "그림.png", "--question", "무슨 색인가요?", "--model", "모델", "--json"]
    done = kovqa(*words, **C_LOCALE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"].startswith("모델")


@pytest.mark.soak
@pytest.mark.parametrize("name", ["C", "EUC-KR"])
def test_a_training(
    kovqa: Kovqa, small: Small, tmp_path: Path, old_korean: dict[str, str], name: str
) -> None:
    shutil.copytree(small.root / "images", tmp_path / "그림들")
    for number, image in enumerate(sorted((tmp_path / "그림들").iterdir())):
        image.rename(image.with_name(f"그림_{number}{image.suffix}"))
    rows = [
        f"그림_{n}.png,무슨 색인가요?,{'빨강' if n % 2 else '파랑'},{'train' if n < 24 else 'val'}"
        for n in range(33)
    ]
    (tmp_path / "표.csv").write_text("\n".join(["image,question,answer,split", *rows]), "utf-8")
    env = clean_env(**(C_LOCALE if name == "C" else old_korean))
    index = ["index", "table", "--root", "표.csv", "--images", "그림들", "-o", "색인", "-q"]
    train = [*training(small, "optim.steps=2", "eval.every_steps=2"), "--data", "색인", "-o", "실행", "-q"]
    for words in (index, train):
        done = subprocess.run(command(words), cwd=tmp_path, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "실행" / "result.json").read_text("utf-8"))["steps"] == 2
