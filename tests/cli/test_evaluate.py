"""kovqa evaluate: scores as table, JSON and page; predictions that cannot be scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index

from tests.cli.test_bad_input import one_line
from tests.conftest import Kovqa, Small
from tests.evaluate.pages import captioned

Rows = list[dict[str, object]]


@pytest.fixture
def given(small: Small) -> Rows:
    """An answer to every test question, every other one right."""
    examples = list(open_index(small.index).split("test"))
    return [{"id": e.id, "answer": max(e.answers) if n % 2 else "틀림"} for n, e in enumerate(examples)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Rows], Path]:
    def to_file(rows: Rows) -> Path:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / "p.jsonl").write_text(text, encoding="utf-8")
        return tmp_path / "p.jsonl"

    return to_file


def test_scores_as_table_and_json(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path]
) -> None:
    words = ["evaluate", write(given[::-1]), "--index", small.index / "test.jsonl"]
    told = json.loads(kovqa(*words, "--json").stdout)
    assert told["score"] == told["all"]["score"] == (len(given) // 2) / len(given)
    assert told["normalise"] == "plain"
    assert told["all"]["low"] < told["score"] < told["all"]["high"]
    for groups in ("kinds", "types"):
        assert sum(row["rows"] for row in told[groups]) == len(given)
    shown = kovqa(*words, COLUMNS="80").stdout
    caption = "score: right or wrong by the one true answer; answers compared in the plain form"
    assert caption in " ".join(shown.split())
    assert "…" not in shown, "cut off in a usual terminal"
    assert all(row["kind"] in shown for row in told["kinds"])
    assert kovqa(*words, "-q").stdout.strip() == f"{told['score']:.4f}"


def test_other_programs_predictions_are_scored(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path]
) -> None:
    """Columns in any case, a list of one answer, scores that are none: said once, with a count."""
    rows = [{"ID": row["id"], "Answer": [row["answer"]], "score": -0.5} for row in given]
    done = kovqa("evaluate", write(rows), "--index", small.index / "test.jsonl", "--json")
    told = json.loads(done.stdout)
    assert (told["score"], told["unusable_scores"]) == ((len(given) // 2) / len(given), len(given))
    warning = f"p.jsonl: {len(given)} scores are not in 0…1 and count as missing (first: id {given[0]['id']})"
    assert warning in done.stderr


def test_the_normal_form_is_chosen(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path]
) -> None:
    """A model that says 2개 where the index says 두 개 is right in Korean, wrong letter by letter."""
    split = list(open_index(small.index).split("test"))
    numbers = {"한 개": "1", "두 개": "2개", "세 개": "셋", "네 개": "4 개", "다섯 개": "5"}
    other = [max(e.answers) for e in split]
    assert set(other) & numbers.keys()
    path = write([{"id": e.id, "answer": numbers.get(a, a)} for e, a in zip(split, other, strict=True)])
    words = ["evaluate", path, "--index", small.index / "test.jsonl", "-q"]
    assert float(kovqa(*words).stdout) < 1
    assert float(kovqa(*words, "--normalise", "korean").stdout) == 1
    one_line(kovqa(*words, "--normalise", "koraen"), 2, "unknown normal form 'koraen'", "korean")


def test_captions_are_scored(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    index, predictions = captioned(small, tmp_path)
    words = ["evaluate", predictions, "--index", index]
    told = json.loads(kovqa(*words, "--json").stdout)
    assert told["tokens"] == "korean"
    assert "syllable" in told["tokens_note"]
    assert [row["metric"] for row in told["metrics"]] == [
        "CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "exact",
    ]  # fmt: skip
    assert told["score"] == told["metrics"][0]["score"]
    done = kovqa(*words, "--tokens", "words")
    assert "tokens: words (split at white space)" in done.stdout
    assert "METEOR and SPICE are left out" in done.stderr


def test_a_report_is_written(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path], tmp_path: Path
) -> None:
    words = ["evaluate", write(given), "--index", small.index / "test.jsonl", "--examples", 3]
    done = kovqa(*words, "--report", "보고서/r.html")
    assert done.returncode == 0, done.stderr
    assert "report: 보고서/r.html" in done.stderr
    page = (tmp_path / "보고서/r.html").read_text("utf-8")
    assert page.count("<article") == page.count("<img ") == 6
    one_line(kovqa(*words, "--report", "p.jsonl/r.html"), 2, "cannot write")
    one_line(
        kovqa(*words, "--report", "x.html", "--images", "none"),
        3,
        "there is no image folder none",
        "--images",
    )


def test_ids_that_do_not_fit_are_named(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path]
) -> None:
    index = small.index / "test.jsonl"
    ids = [str(row["id"]) for row in given]

    done = kovqa("evaluate", write(given[12:]), "--index", index)
    one_line(done, 3, "p.jsonl", "no prediction for 12 ids", *ids[:10], ", …")
    assert ids[10] not in done.stderr.split("12 ids")[1].split()
    foreign = [{"id": f"남의 것 {n}", "answer": "예"} for n in range(11)]
    one_line(
        kovqa("evaluate", write([*given, *foreign]), "--index", index),
        3,
        "not in the index: 11 ids",
        "남의 것 9, …",
    )
    one_line(
        kovqa("evaluate", write([*given, *given[:2]]), "--index", index),
        3,
        f"more than once: 2 ids: {ids[0]}, {ids[1]}",
    )


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '{"id": 1}',
        '{"answer": "예"}',
        '{"id": 1, "answer": "예", "score": "high"}',
        '{"id": 1, "caption": "예"}',
    ],
)
def test_a_broken_line_is_named(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path], line: str
) -> None:
    path = write(given[:2])
    path.write_text(path.read_text("utf-8") + line + "\n", encoding="utf-8")
    one_line(kovqa("evaluate", path, "--index", small.index / "test.jsonl"), 3, "p.jsonl:3: no")


def test_nothing_to_compare(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path], tmp_path: Path
) -> None:
    index = small.index / "test.jsonl"
    one_line(kovqa("evaluate", write([]), "--index", index), 3, "p.jsonl is empty")
    write([]).write_text("\n \n")
    one_line(kovqa("evaluate", "p.jsonl", "--index", index), 3, "p.jsonl holds no predictions")
    captions = [{"id": row["id"], "caption": "그림"} for row in given]
    one_line(
        kovqa("evaluate", write(captions), "--index", index), 3, "test.jsonl has no captions to compare with"
    )
    captions_index, said = captioned(small, tmp_path)
    rows = [json.loads(line) for line in captions_index.read_text("utf-8").splitlines()]
    rows[1]["captions"] = ["그림", "..."]
    captions_index.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    one_line(kovqa("evaluate", said, "--index", captions_index), 3, "id 그림 1: a reference caption is empty")


def test_a_line_separator_inside_an_answer_is_no_line_end(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path]
) -> None:
    given[0]["answer"] = "한 줄\u2028두 줄\x85"
    assert kovqa("evaluate", write(given), "--index", small.index / "test.jsonl").returncode == 0


def test_two_files_are_compared(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path], tmp_path: Path
) -> None:
    """As text, JSON, the difference alone and a page; options hold for both files."""
    a, index = write(given), small.index / "test.jsonl"
    other = [{**row, "answer": "틀림"} if n % 3 else row for n, row in enumerate(given)]
    b = tmp_path / "b.jsonl"
    b.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in other), encoding="utf-8")
    words = ["evaluate", a, "--index", index, "--against", b]
    told = json.loads(kovqa(*words, "--json").stdout)
    against = told["against"]
    assert told["score"] == against["score_a"] == (len(given) // 2) / len(given)
    assert against["difference"] == pytest.approx(against["score_a"] - against["score_b"])
    assert against["low"] < against["difference"] < against["high"]
    mcnemar = against["mcnemar"]
    assert mcnemar["unit"] == "images"
    assert mcnemar["a_only"] == sum(n % 2 and n % 3 > 0 for n in range(len(given)))
    assert (mcnemar["b_only"], mcnemar["both"]) == (0, sum(n % 6 == 3 for n in range(len(given))))
    assert sum(row["rows"] for row in against["kinds"]) == against["rows"] == len(given)
    assert all(row["p_holm"] >= row["p"] for row in against["kinds"])
    shown = kovqa(*words, "--report", "r.html", "--examples", 2)
    assert "p of the types: after Holm's correction" in " ".join(shown.stdout.split())
    assert f"right by A alone: {mcnemar['a_only']}" in shown.stdout
    assert "McNemar over images, as questions about one image are not independent" in shown.stdout
    assert "Right by A alone" in (tmp_path / "r.html").read_text("utf-8")
    assert kovqa(*words, "-q").stdout.strip() == f"{against['difference']:+.4f}"
    same = kovqa(*words[:-1], a, "--kind", "개수")
    assert "both files say the same to every row: p = 1" in same.stdout
    strict = json.loads(kovqa(*words, "--normalise", "korean", "--kind", "개수", "--json").stdout)
    assert (strict["normalise"], len(strict["against"]["kinds"])) == ("korean", 1)


def test_two_files_that_cannot_be_compared(
    kovqa: Kovqa, small: Small, given: Rows, write: Callable[[Rows], Path], tmp_path: Path
) -> None:
    a = write(given)
    index, captions = captioned(small, tmp_path)
    words = ["evaluate", a, "--index", small.index / "test.jsonl", "--against"]
    one_line(kovqa(*words, captions), 3, "said.jsonl answers other rows")
    one_line(kovqa(*words, "none.jsonl"), 3, "none.jsonl")
    one_line(kovqa(*words, a, "--report", a), 2, "p.jsonl")
    # Rows with captions and answers, of which each file gives one.
    rows = [json.loads(line) for line in index.read_text("utf-8").splitlines()]
    both = [{**row, "answers": {"예": 1.0}} for row in rows]
    said = [{"id": row["id"], "answer": "예"} for row in rows]
    for name, lines in (("both", both), ("c", said)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    compared = kovqa("evaluate", "c.jsonl", "--index", "both.jsonl", "--against", captions)
    one_line(compared, 3, "said.jsonl holds captions, c.jsonl answers")
