"""VQA_NIA's table of AI-Hub 71357, its list of answers and its choice of rows (docs/sources/vqa_nia.md, N19 to N23).

One habit is not copied: where both facts of a `multiple` question fill the same column, the original puts an
earlier row's value into the other column; here it stays empty.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, unknown_name_error
from kovqa_core.files import read_json
from kovqa_core.index.find_image import find_image
from kovqa_core.index.sources.nia import NIA_LANGUAGES, NIA_SPLITS, nia_question_type, nia_questions
from kovqa_core.index.upstream.rows import EncodeText
from kovqa_core.messages import message

NIA_CSV_COLUMNS = ("img_path", "question", "answer", "kb_source", "triple", "abstract", "split")
# What pandas 1.5 takes for a missing value; "None" became one in 2.0.
_PANDAS_MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
     "NA", "NULL", "NaN", "n/a", "nan", "null"]
)  # fmt: skip
NEEDS_TOKENIZER = False


def write_upstream_files(root: Path, images: Path, folder: Path, encode: EncodeText) -> None:
    """Write `data_ko.csv` and `data_en.csv`; questions about images that do not exist are missing."""
    facts = _read_facts(root / "knowledge_base.json")
    for language in NIA_LANGUAGES:
        with (folder / f"data_{language}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(NIA_CSV_COLUMNS)
            writer.writerows(_nia_csv_rows(root, images, facts, language))


def _read_facts(file: Path) -> dict[str, JsonRecord]:
    """Facts by id, without the id's first part."""
    content = read_json(file)
    try:
        return {_fact_key(fact["fact_id"]): fact for fact in content["knowledgebase"]["fact"]}
    except (KeyError, TypeError):
        raise DataError(
            message("index.no-knowledge-base", "{file}: no knowledgebase.fact[].fact_id", file=file),
            message("index.no-knowledge-base.hint", "fetch or unpack it again"),
        ) from None


def _fact_key(id: str) -> str:
    return id.split("/", 1)[-1]


def _nia_csv_rows(
    root: Path, images: Path, facts: Mapping[str, JsonRecord], language: str
) -> Iterator[list[object]]:
    for split in NIA_SPLITS:
        for name, letter, record in nia_questions(root / f"{split}.json"):
            image = find_image(images, name)
            if image.path or image.is_ambiguous:  # the original asks only whether it is there
                source = nia_question_type(letter, record, name)
                question_facts = [
                    facts.get(id) or facts.get(_fact_key(id)) for id in record.get("fact") or []
                ]
                question, answer = record.get(f"question_{language}"), record.get(f"answer_{language}")
                texts = _knowledge_texts(source, question_facts)
                yield [f"./data/image/{name}", question, answer, source, *texts, split]


def _knowledge_texts(source: str, facts: Sequence[JsonRecord | None]) -> tuple[str, str]:
    """`triple` and `abstract` of a row: texts of its facts, Korean in both languages."""
    surfaces = [(fact or {}).get("surface_ko") for fact in facts]
    labels = [(fact or {}).get("e2_label") or "" for fact in facts]
    if source == "triple":
        return ("=".join(surfaces) if all(surfaces) else ""), ""  # type: ignore[arg-type]
    if source == "abstract":
        return "", next(iter(labels), "")
    if source == "multiple":
        # Two facts: one has a text of a triple, the other none and so an abstract (docs/sources/vqa_nia.md, N19).
        pairs = list(zip(surfaces[:2], labels[:2], strict=True))
        # Reversed: the original writes them one after the other, so the later one stays.
        triple = next((surface for surface, _ in reversed(pairs) if surface), "")
        return triple, next((label for surface, label in reversed(pairs) if not surface), "")
    return "", ""


# ------------------------------------------------------------------- reading such a table


def read_nia_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a `data_ko.csv`, all cells as text.

    Raises:
        DataError: file and line of what is broken or lacks a column.
    """
    return [row for _, row in read_table(file, {name: (name,) for name in NIA_CSV_COLUMNS})]


def count_nia_answers(rows: Iterable[Mapping[str, str]]) -> Counter[str]:
    """How often the original counts each answer, in the order they are first seen.

    `pinned_order` of it is the list of classes of its checkpoints. Rows of training and validation
    count; those without image, question or answer do not, nor do answers that pandas 1.5 takes for
    missing values, such as `NA` (but not `None`).
    """
    needed = ("img_path", "question", "answer")
    return Counter(
        row["answer"]
        for row in rows
        if row["split"] != "test" and _PANDAS_MISSING.isdisjoint(row[name] for name in needed)
    )


def nia_train_rows(rows: Sequence[Mapping[str, str]], part: str) -> dict[str, list[int]]:
    """Numbers of the rows that `--train_data` A, B or all trains on and validates with.

    Returns:
        "train_rows", "valid_A_rows", "valid_B_rows". A trains on `triple` alone, and validates with B
        questions it never saw; B validates with A questions of every type.
    """
    if part not in ("A", "B", "all"):
        raise unknown_name_error(
            message("index.unknown-training-part", "unknown part '{part}'", part=part),
            part,
            ("A", "B", "all"),
        )

    def row_numbers(split: str, sources: set[str]) -> list[int]:
        return [i for i, row in enumerate(rows) if row["split"] == split and row["kb_source"] in sources]

    # The original's own choice, odd as it is (docs/sources/vqa_nia.md, N23).
    a_sources = {"triple"} if part == "A" else {row["kb_source"] for row in rows} - {"vqa"}
    a, b = row_numbers("train", a_sources), row_numbers("train", {"vqa"})
    return {
        "train_rows": {"A": a, "B": b, "all": a + b}[part],
        "valid_A_rows": row_numbers("valid", a_sources),
        "valid_B_rows": row_numbers("valid", {"vqa"}),
    }


def nia_infer_rows(rows: Sequence[Mapping[str, str]], source: str) -> list[int]:
    """Numbers of the test rows that `--infer_data` all, abstract, triple or vqa answers."""
    tests = [i for i, row in enumerate(rows) if row["split"] == "test"]
    return tests if source == "all" else [i for i in tests if rows[i]["kb_source"] == source]
