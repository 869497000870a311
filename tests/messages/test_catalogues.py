"""Korean messages: all of them, with the fields of the English; particles by sound; and what no language changes."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.messages.korean_particles import choose_particle, last_sound
from kovqa_core.messages.languages import (
    known_language,
    read_catalogue,
    translate,
    translate_help,
    user_language,
)

from tests.conftest import Kovqa, clean_env
from tests.messages.test_messages import message_calls, text_of
from tools.catalogues import FOLDER, current_entries, read_translations, render_catalogue

pytestmark = pytest.mark.xdist_group("messages")
DOMAINS = sorted(path.stem for path in (FOLDER / "ko").glob("*.po"))


@cache
def entries() -> dict[str, dict[str, str]]:
    """What the code says; it takes seconds to collect."""
    return current_entries()


def test_the_catalogues_have_all_that_the_code_says() -> None:
    """`python tools/catalogues.py` adds what is missing."""
    keys = {key for domain, english in entries().items() if domain != "help" for key in english}
    assert keys == {text_of(call.args[0]) for _, call in message_calls()}
    assert sorted(entries()) == DOMAINS
    stale = [
        domain
        for domain, english in entries().items()
        if render_catalogue("ko", domain, english) != (FOLDER / "ko" / f"{domain}.po").read_text("utf-8")
    ]
    assert not stale


@pytest.mark.parametrize("domain", DOMAINS)
def test_all_is_translated(domain: str) -> None:
    translations = read_translations(FOLDER / "ko" / f"{domain}.po")
    assert not [key for key in entries()[domain] if not translations[key][1]]


def field_names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_fields_are_those_of_the_english() -> None:
    wrong = [
        key
        for domain, english in entries().items()
        if domain != "help"
        for key, text in read_catalogue("ko", domain).items()
        if text and field_names(text) != field_names(english[key])
    ]
    assert not wrong


def test_the_reader_reads_what_babel_reads() -> None:
    for domain in entries():
        path = FOLDER / "ko" / f"{domain}.po"
        assert read_catalogue("ko", domain) == {
            key: text for key, (_, text) in read_translations(path).items()
        }


def test_a_message_is_english_until_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogues = {"a.inner": "안쪽 {n:,}", "a.outer": "{inner}을(를) {name!r}(으)로", "a.end": "끝"}
    monkeypatch.setattr("kovqa_core.messages.languages.read_catalogue", lambda language, domain: catalogues)
    inner = Message("inner 1,200")
    inner.key, inner.fields = "a.inner", {"n": 1200}
    outer = Message("outer")
    outer.key, outer.fields = "a.outer", {"inner": inner, "name": "모델"}
    assert json.dumps(outer) == '"outer"'
    assert translate(outer, "ko") == "안쪽 1,200을 '모델'로"
    assert translate(outer, "en") == "outer"
    assert translate(join_messages("; ", [outer, "x", inner]), "ko") == "안쪽 1,200을 '모델'로; x; 안쪽 1,200"
    unknown = Message("not there")
    unknown.key, unknown.fields = "a.unknown", {}
    assert translate(unknown, "ko") == "not there"


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"), ({"LANG": "ko_KR.UTF-8"}, "ko"), ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "ko"), ({"LANG": "C", "LANGUAGE": "ko"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "ko:en"}, "ko"), ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"KOVQA_LANG": "en", "LANG": "ko_KR.UTF-8"}, "en"), ({"KOVQA_LANG": "ko"}, "ko"),
    ],
)  # fmt: skip
def test_whose_language(environment: dict[str, str], language: str) -> None:
    assert user_language(environment) == language
    assert known_language("ko_KR.UTF-8")
    assert not known_language("fr")


# Open, closed, ㄹ; digits read aloud; Latin letters by word and by name; quotes, brackets, paths, units.
@pytest.mark.parametrize(
    ("word", "spoken"),
    [
        ("이미지", "이미지를 이미지가 이미지로 이미지나"), ("학습", "학습을 학습이 학습으로 학습이나"),
        ("모델", "모델을 모델이 모델로 모델이나"), ("파일", "파일을 파일이 파일로 파일이나"),
        ("값", "값을 값이 값으로 값이나"), ("'질문'", "'질문'을 '질문'이 '질문'으로 '질문'이나"),
        ("0", "0을 0이 0으로 0이나"), ("1", "1을 1이 1로 1이나"), ("2", "2를 2가 2로 2나"),
        ("3", "3을 3이 3으로 3이나"), ("4", "4를 4가 4로 4나"), ("5", "5를 5가 5로 5나"),
        ("6", "6을 6이 6으로 6이나"), ("7", "7을 7이 7로 7이나"), ("8", "8을 8이 8로 8이나"),
        ("9", "9를 9가 9로 9나"), ("10", "10을 10이 10으로 10이나"), ("1,000", "1,000을 1,000이 1,000으로 1,000이나"),
        ("0.25", "0.25를 0.25가 0.25로 0.25나"), ("12%", "12%를 12%가 12%로 12%나"),
        ("3 GB", "3 GB를 3 GB가 3 GB로 3 GB나"), ("model", "model을 model이 model로 model이나"),
        ("train", "train을 train이 train으로 train이나"), ("batch", "batch를 batch가 batch로 batch나"),
        ("step", "step을 step이 step으로 step이나"), ("GPU", "GPU를 GPU가 GPU로 GPU나"),
        ("SLURM", "SLURM을 SLURM이 SLURM으로 SLURM이나"), ("cat.jpg", "cat.jpg를 cat.jpg가 cat.jpg로 cat.jpg나"),
        ("data/index.json", "data/index.json을 data/index.json이 data/index.json으로 data/index.json이나"),
        ("README.md", "README.md를 README.md가 README.md로 README.md나"),
        ("파일(3개)", "파일(3개)을 파일(3개)이 파일(3개)로 파일(3개)이나"), ("사진/", "사진/을 사진/이 사진/으로 사진/이나"),
    ],
)  # fmt: skip
def test_particles_follow_the_last_sound(word: str, spoken: str) -> None:
    forms = ("을(를)", "이(가)", "(으)", "(이)")
    chosen = [word + choose_particle(form, word) for form in forms]
    assert (
        " ".join(f"{text}{rest}" for text, rest in zip(chosen, ("", "", "로", "나"), strict=True)) == spoken
    )


def test_a_word_that_nobody_can_read_keeps_both_forms() -> None:
    assert last_sound("…") is None
    assert choose_particle("을(를)", "") == "을(를)"


def test_help_is_translated(kovqa: Kovqa) -> None:
    done = kovqa("vote", "--help", KOVQA_LANG="ko")
    assert translate_help("Only the essential value.", "ko") in " ".join(done.stdout.split())
    assert "사용법:" in done.stdout
    assert "Usage:" in kovqa("vote", "--help").stdout


@pytest.mark.parametrize("columns", [60, 80])
def test_korean_help_fits_the_terminal(kovqa: Kovqa, columns: int) -> None:
    """A syllable takes two columns, which Typer counts as one."""
    from rich.cells import cell_len

    lines = kovqa("predict", "--help", KOVQA_LANG="ko", COLUMNS=str(columns)).stdout.splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert sum(cell_len(line) > columns - 12 for line in lines) > 20  # and uses it
    assert not any("\0" in line for line in lines)


def test_json_and_exit_codes_are_the_same_in_every_language(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "1", "answer": "예"}\n', "utf-8")
    for words in (
        ["recipes", "--json"],
        ["doctor", "--json"],
        ["train", "-r", "x", "--json"],
        ["vote", "p.jsonl"],
        ["x"],
    ):
        english, korean = (kovqa(*words, KOVQA_LANG=language) for language in ("en", "ko"))
        assert english.returncode == korean.returncode
        if "doctor" not in words:  # the memory that is free
            assert english.stdout == korean.stdout
    assert kovqa("train", "-r", "x", KOVQA_LANG="fr").returncode == 2


def test_a_terminal_without_hangul_gets_english() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kovqa_cli", "train", "-r", "없음"],
        env=clean_env(KOVQA_LANG="ko", PYTHONIOENCODING="ascii"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "unknown recipe" in done.stderr


def test_a_message_of_code_is_a_message() -> None:
    assert message("cli.aborted", "Aborted!").key == "cli.aborted"
