"""Published sets' scores beside those of the programs that others score them with, on the same drawn predictions.

    python -m venv V && V/bin/pip install pandas loguru requests pyyaml      # what their scoring files import
    V/bin/python bench/benchmark_parity.py --lmms-eval DIR --vlmevalkit DIR --kreta DIR

DIR holds the package `lmms_eval`, the package `vlmeval`, or KRETA's repository (docs/sources/benchmarks.md names the
versions). Only their scoring files are loaded; what reads and writes files for them is replaced. Predictions are texts
of many forms about drawn questions. Every row on which two programs differ is counted under a reason, and one of each is
shown. Exit code 1: a difference without a reason.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data.circular_rows import circular_rows
from kovqa_core.data.decoding import CHOICE_LETTERS, find_choice
from kovqa_core.data.example import Example
from kovqa_core.evaluate.answer_scores import score_answers
from kovqa_core.evaluate.choice_readers import (
    ChoiceReader,
    Unread,
    read_answer_line,
    read_choice,
    read_first_letter,
)

WORDS = (
    "고양이", "검은 고양이", "강아지", "토끼", "빨간색", "파란색", "3", "12", "두 명", "Apple", "Banana", "예",
    "아니요", "서울역",
)  # fmt: skip
# {l}: a letter, {m}: another, {t}: its choice, {u}: the other's, {n}: its number, {c}: that in a circle.
FORMS = (
    "{l}", "{s}", "({l})", "{l}.", "{l})", "[{l}]", "{c}", "{n}", "{n}번", "{t}", "{t}입니다", "{l}. {t}",
    "({l}) {t}", "{l}: {t}", "정답은 {l}입니다", "정답은 {l}입니다.", "정답: {l}", "정답: ({l})", "답은 {l}",
    "최종 답: {l}", "따라서 정답은 ({l}) {t}입니다.", "Answer: {l}", "Answer: ({l})", "The answer is {l}.",
    "The correct answer is **{l}**.", "Option {l}", "I think {l}", "{l}, because {m} is wrong",
    "{m}는 틀리고 {l}가 맞다", "정답은 {m}가 아니라 {l}입니다", "{l} or {m}", "{l} 또는 {m}", "{t}, {u}",
    "{u} 말고 {t}", "A cat sits on the mat", "모르겠습니다", "", "그림에서 {t}를 볼 수 있습니다",
    "The image shows {t}", "*{l}*", "`{l}`", "({m})는 아니고 Answer: {l}",
    "생각해 보면 {u}일 수도 있지만 이 그림에는 {t}가 가장 잘 보입니다.", "E",
    "{l}\n설명: {u}는 보이지 않습니다",
    "Let me think step by step about this picture and its parts. Answer: {l}", "{l}입니다",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A drawn question and what a model wrote, with the form that was drawn for it."""

    question: Example
    text: str
    form: str

    @property
    def right_letter(self) -> str:
        return CHOICE_LETTERS[self.question.choices.index(next(iter(self.question.answers)))]


def draw_rows(times: int, seed: int) -> list[Row]:
    """So many rows of every form."""
    draw, rows = random.Random(seed), []
    for form in FORMS:
        for _ in range(times):
            choices = tuple(draw.sample(WORDS, 4))
            one, other = draw.sample(range(4), 2)
            text = form.format(
                l=CHOICE_LETTERS[one], s=CHOICE_LETTERS[one].lower(), m=CHOICE_LETTERS[other], t=choices[one],
                u=choices[other], n=one + 1, c="①②③④"[one],
            )  # fmt: skip
            # Half of them right, so that both outcomes are seen.
            right = choices[one] if draw.random() < 0.5 else draw.choice(choices)
            category = f"c{draw.randrange(4)}"
            columns = {"l2-category": f"l{draw.randrange(3)}", "l2_category": f"m{draw.randrange(5)}"}
            id = str(len(rows) + 1)
            question = Example(id, f"{id}.png", "?", {right: 1.0}, category, choices=choices, columns=columns)
            rows.append(Row(question, text, form))
    return rows


# ---------------------------------------------------------------------------------- their programs


def load_packages(folder: Path, names: Sequence[str]) -> None:
    """Packages whose modules can be imported without what the packages themselves import."""
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package


def load_lmms_eval(folder: Path) -> dict[str, Any]:
    """Its scoring modules."""
    parts = ("", "._task_utils", ".mmbench", ".mmstar", ".dtcbench", ".seedbench")
    load_packages(folder, ["lmms_eval", *(f"lmms_eval.tasks{part}" for part in parts)])
    import loguru

    loguru.logger.remove()
    names = (
        "mmbench.mmbench_evals",
        "mmstar.utils",
        "dtcbench.utils",
        "seedbench.ko_utils",
        "_task_utils.mcq_extract",
    )
    return {name: importlib.import_module(f"lmms_eval.tasks.{name}") for name in names}


def load_vlmevalkit(folder: Path) -> Any:
    """Its module for multiple choice."""
    load_packages(folder, ["vlmeval", "vlmeval.utils", "vlmeval.dataset", "vlmeval.dataset.utils"])
    import logging

    store: dict[str, Any] = {}
    smp = types.ModuleType("vlmeval.smp")
    smp.__path__ = [str(folder / "vlmeval" / "smp")]
    for name in ("cn_string", "d2df", "timestr"):
        setattr(smp, name, lambda *_: "")
    smp.get_logger = logging.getLogger  # type: ignore[attr-defined]
    smp.get_pred_file_format = lambda: "kept"  # type: ignore[attr-defined]
    smp.istype = lambda value, kind: isinstance(value, kind) or float(value).is_integer()  # type: ignore[attr-defined]
    smp.dump = lambda value, path: store.__setitem__(path, value)  # type: ignore[attr-defined]
    smp.load = store.__getitem__  # type: ignore[attr-defined]
    sys.modules["vlmeval.smp"] = smp
    matching = importlib.import_module("vlmeval.utils.matching_util")
    utils = sys.modules["vlmeval.utils"]
    for name in ("can_infer", "can_infer_lego"):
        setattr(utils, name, getattr(matching, name))
    utils.track_progress_rich = None  # type: ignore[attr-defined]  # asks a model: never without one
    return importlib.import_module("vlmeval.dataset.utils.multiple_choice")


# ---------------------------------------------------------------------------------------- readings


def our_letter(reader: ChoiceReader, row: Row) -> str:
    """The letter that our reading finds; "" where it names no choice, "?" where several."""
    found = reader(row.text, row.question.choices)
    if isinstance(found, Unread):
        return "" if found is Unread.NONE else "?"
    return CHOICE_LETTERS[found]


def why_they_differ(row: Row, ours: str, theirs: str) -> str:
    """The reason of a difference; "" where there is none that we know."""
    if find_choice(row.question.choices, row.text) is not None:
        return "the text is that of a choice, which kovqa's predictions hold"
    if "\n" in row.text:
        return "a letter alone in the first line: ours takes it, theirs looks at the last words"
    if (
        theirs
        and re.search(rf"{theirs}[A-Za-z]|[A-Za-z]{theirs}", row.text)
        and theirs not in re.findall(r"\b[A-D]\b", row.text)
    ):
        return "theirs takes a letter from within a word"
    if not theirs and re.search(r"[①-④]|\d번|^\d$", row.text):
        return "a circled number or a number: ours reads it"
    if not theirs and re.search(r"[가-힣]", row.text):
        return "Korean around the letter or the choice: ours reads it"
    if not theirs and row.text.lower() == row.text and len(row.text) == 1:
        return "a small letter alone: ours reads it"
    if not theirs and "because" in row.text:
        return "a letter before because: ours leaves out what follows, theirs sees two letters"
    if not theirs:
        return "marks around the letter (a bracket, an asterisk): ours reads them"
    if ours == "?":
        return "several choices are named: theirs takes one of them, ours none"
    if not ours and row.text.startswith("A cat"):
        return "A before an English word: theirs takes the article for a letter"
    if not ours and len(row.text) > 1:
        return "no letter by itself: theirs takes one from within a word"
    if ours != theirs and re.search(r"because|아니", row.text):
        return "several letters: theirs takes another of them, ours the one that is announced or not denied"
    return ""


def compare_readings(
    title: str, rows: Sequence[Row], ours: ChoiceReader, theirs: Callable[[Row], str], *, exact: bool
) -> bool:
    """Print how many rows are read alike, and why others are not; whether all differences have a reason.

    Args:
        exact: ours is meant to be their rule: only the texts of choices may differ.
    """
    reasons: dict[str, list[tuple[Row, str, str]]] = defaultdict(list)
    same = 0
    for row in rows:
        one, other = our_letter(ours, row), theirs(row)
        if one == other or (one == "?" and not other):
            same += 1
        else:
            reasons[why_they_differ(row, one, other)].append((row, one, other))
    print(f"{title}: {same:,} of {len(rows):,} rows are read alike")
    for reason, found in sorted(reasons.items(), key=lambda item: -len(item[1])):
        row, one, other = found[0]
        shown = f"{row.text!r}: ours {one or '-'}, theirs {other or '-'}"
        print(f"    {len(found):4} {reason or 'NO REASON'} ({shown})")
    allowed = {"the text is that of a choice, which kovqa's predictions hold"}
    return not (reasons.keys() - allowed if exact else reasons.keys() & {""})


# ------------------------------------------------------------------------------------------ scores


def mmbench_table(rows: Sequence[Row], texts: dict[str, str]) -> Any:
    """Turns of questions as MMBench's programs have them."""
    import pandas as pd

    table = []
    for row in rows:
        for turn, example in enumerate(circular_rows(row.question)):
            letters = dict(zip("ABCD", example.choices, strict=True))
            right = CHOICE_LETTERS[example.choices.index(next(iter(example.answers)))]
            table.append(
                {
                    "index": int(row.question.id) + turn * 1_000_000, "question": "?", **letters, "answer": right,
                    "prediction": texts[example.id], "category": example.question_type,
                    "l2-category": example.columns["l2-category"],
                }
            )  # fmt: skip
    return pd.DataFrame(table)


def compare_circular(rows: Sequence[Row], lmms: dict[str, Any], vlmevalkit: Any, seed: int) -> bool:
    """Circular evaluation of letters: hit by hit, in all, by category and by the other column."""
    draw = random.Random(seed)
    turns = [turn for row in rows for turn in circular_rows(row.question)]
    letters = {
        turn.id: CHOICE_LETTERS[turn.choices.index(next(iter(turn.answers)))]
        if draw.random() < 0.8
        else draw.choice("ABCD")
        for turn in turns
    }
    scores = score_answers(
        [(turn, letters[turn.id]) for turn in turns], protocol="circular", columns=("l2-category",)
    )
    assert scores.circular is not None
    assert scores.examples is not None
    ours = {example.id: int(hit) for example, hit in zip(scores.examples, scores.each, strict=True)}
    by_ours = {each.name: each.score for each in (*scores.question_types, *scores.columns[0].values)}
    table = mmbench_table(rows, letters)
    judged = vlmevalkit.mcq_circular_eval(None, table.copy(), table.copy(), 1, "hits", "MMBench_DEV_KO")
    theirs = {str(index): int(hit) for index, hit in zip(judged["index"], judged["hit"], strict=True)}
    report = vlmevalkit.report_acc(judged.copy()).iloc[0].to_dict()
    same = sum(ours[id] == theirs[id] for id in ours)
    print(f"circular, VLMEvalKit: {same:,} of {len(ours):,} questions have the same hit")
    equal = same == len(ours) and abs(report["Overall"] - scores.total.score) < 1e-12
    equal &= all(abs(report[name] - score) < 1e-12 for name, score in by_ours.items())
    evaluator = lmms["mmbench.mmbench_evals"].MMBench_Evaluator()
    overall, category, l2 = evaluator.eval_result(table.to_dict("records"), eval_method="static")
    by_theirs = {**category, **l2}
    equal_lmms = abs(overall - scores.total.score) < 1e-12
    equal_lmms &= all(abs(by_theirs[name] - score) < 1e-12 for name, score in by_ours.items())
    words = {True: "equal", False: "DIFFERENT"}
    print(
        f"circular, score {scores.total.score:.4f} and {len(by_ours)} categories: VLMEvalKit {words[equal]}, "
        f"lmms-eval {words[equal_lmms]}"
    )
    first = vlmevalkit_vanilla(vlmevalkit, table[table["index"] < 1_000_000])
    print(f"first turns alone: ours {scores.circular.vanilla.score:.4f}, VLMEvalKit {first:.4f}")
    return equal and equal_lmms and abs(first - scores.circular.vanilla.score) < 1e-12


def vlmevalkit_vanilla(vlmevalkit: Any, table: Any) -> float:
    """Its accuracy of rows by themselves."""
    hits = [
        vlmevalkit.eval_vanilla(None, {**row, "GT": row["answer"]}, "MMBench")["hit"]
        for row in table.to_dict("records")
    ]
    return sum(hits) / len(hits)


def compare_scores(rows: Sequence[Row], lmms: dict[str, Any]) -> bool:
    """K-SEED, K-DTCBench and K-MMStar's means: by their aggregation, of texts that both read alike."""
    usable = [row for row in rows if find_choice(row.question.choices, row.text) is None]
    pairs = [(row.question, row.text) for row in usable]
    ours = score_answers(pairs, protocol="choice-first-letter").total.score
    dtc, seed = lmms["dtcbench.utils"], lmms["seedbench.ko_utils"]
    by_dtc, by_seed = [], []
    for row in usable:
        doc = {"answer": row.right_letter, "index": row.question.id, "question_id": row.question.id}
        by_dtc.append(dtc.dtcbench_process_result(doc, [row.text])["dtcbench_acc"])
        by_seed.append(seed.seed_process_result({**doc, "data_type": "image"}, [row.text])["seed_image"])
    dtc_score, seed_score = dtc.dtcbench_aggregation_result(by_dtc), seed.seed_aggregation_result(by_seed)
    print(
        f"K-DTCBench, K-SEED: ours {ours:.6f}, lmms-eval {dtc_score:.6f} and {seed_score:.6f} ({len(usable):,} rows)"
    )
    letters = [row for row in usable if re.fullmatch(r"\(?[A-D]\)?", row.text)]
    star = score_answers(
        [(row.question, row.text) for row in letters], protocol="choice", columns=("l2_category",)
    )
    mmstar, found = lmms["mmstar.utils"], []
    for row in letters:
        doc = {
            "answer": row.right_letter, "category": row.question.question_type, "index": row.question.id,
            "l2_category": row.question.columns["l2_category"],
        }  # fmt: skip
        found.append(mmstar.mmstar_process_results_ko(doc, [row.text])["average"])
    theirs = mmstar.mmstar_aggregate_results(found)
    mean = star.columns[0].mean.score
    print(f"K-MMStar, mean of l2_category: ours {mean:.6f}, lmms-eval {theirs:.6f} ({len(letters):,} rows)")
    return max(abs(ours - dtc_score), abs(ours - seed_score), abs(mean - theirs)) < 1e-12


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lmms-eval", type=Path, required=True)
    parser.add_argument("--vlmevalkit", type=Path, required=True)
    parser.add_argument("--kreta", type=Path)
    parser.add_argument("--rows", type=int, default=20, help="of every form")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = draw_rows(options.rows, options.seed)
    lmms, vlmevalkit = load_lmms_eval(options.lmms_eval), load_vlmevalkit(options.vlmevalkit)
    print(f"{len(rows):,} rows, {len(FORMS)} forms")

    def first_letter(row: Row) -> str:
        found = lmms["dtcbench.utils"].dtcbench_process_result({"answer": "A", "index": 0}, [row.text])
        return letter_of(found["dtcbench_acc"]["pred"].upper())

    def letter_of(text: str) -> str:
        return text if text and text in "ABCD" else ""

    def by_vlmevalkit(row: Row) -> str:
        choices = dict(zip("ABCD", row.question.choices, strict=True))
        return letter_of(vlmevalkit.prefetch_answer({**choices, "prediction": row.text}) or "")

    extract = lmms["_task_utils.mcq_extract"].extract_mcq_answer
    done = [
        compare_readings("K-SEED and K-DTCBench, lmms-eval", rows, read_first_letter, first_letter, exact=True),
        compare_readings("K-MMBench, VLMEvalKit before it asks a model", rows, read_choice, by_vlmevalkit, exact=False),
        compare_readings("K-MMStar, lmms-eval", rows, read_choice, lambda row: extract(row.text, list("ABCD")), exact=False),
        compare_circular(rows, lmms, vlmevalkit, options.seed),
        compare_scores(rows, lmms),
    ]  # fmt: skip
    if options.kreta:
        sys.path.insert(0, str(options.kreta / "eval"))
        kreta = importlib.import_module("evaluate")
        kreta.random = types.SimpleNamespace(choice=lambda _: "")  # where it would draw, it names none
        done.append(
            compare_readings(
                "KRETA, its own program", rows, read_answer_line,
                lambda row: kreta.parse_multi_choice_response(
                    row.text, list("ABCD"), dict(zip("ABCD", row.question.choices, strict=True))
                ), exact=True,
            )
        )  # fmt: skip
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
