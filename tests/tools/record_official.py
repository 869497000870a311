"""Records what the published programs of VQAv2 and VizWiz score on the rows of `tests/evaluate/official_rows.py`.

The programs stay where they are, unchanged; only numbers are stored, in `tests/fixtures/official/`:

    python -m tests.tools.record_official --vqa CHECKOUT --vizwiz CHECKOUT --python2 PYTHON2

CHECKOUT of VQAv2: github.com/GT-Vision-Lab/VQA; its program is Python 2. CHECKOUT of VizWiz: any repository with
the folders of the API that vizwiz.org hands out (`PythonHelperTools`, `PythonEvaluationTools`), at its root or in `src`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.evaluate.official_rows import SEED, TEN_ROWS, OfficialRow, generate_rows, hash_rows

RECORD = Path(__file__).parents[1] / "fixtures" / "official" / "scores.json"

# For Python 2 and 3. The caption metrics, which VizWiz's program computes after the scores, need Java: they are left out.
_RUN_VQAV2 = """
import json, sys
tools, folder = sys.argv[1:]
sys.path[:0] = [tools + "/PythonHelperTools/vqaTools", tools + "/PythonEvaluationTools/vqaEvaluation"]
from vqa import VQA
from vqaEval import VQAEval
vqa = VQA(folder + "/annotations.json", folder + "/questions.json")
program = VQAEval(vqa, vqa.loadRes(folder + "/results.json", folder + "/questions.json"), n=2)
program.evaluate()
json.dump({"each": program.evalQA, "accuracy": program.accuracy}, open(folder + "/scores.json", "w"))
"""
_RUN_VIZWIZ = """
import json, sys, types
tools, folder = sys.argv[1:]
sys.path[:0] = [tools + "/PythonHelperTools/vqaTools", tools + "/PythonEvaluationTools"]
class Anything(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        return type(name, (), {})
metrics = ("tokenizer.ptbtokenizer", "bleu.bleu", "meteor.meteor", "rouge.rouge", "cider.cider")
for name in ("sklearn.metrics", *("vqaEvaluation.pycocoevalcap." + name for name in metrics)):
    while name not in ("", "vqaEvaluation"):
        sys.modules[name] = Anything(name)
        name = name.rpartition(".")[0]
from vqa import VQA
from vqaEvaluation import vqaEval
class NoCaptionMetrics:
    eval = {}
    def __init__(self, *arguments):
        pass
    def evaluate(self):
        pass
vqaEval.COCOEvalCap = NoCaptionMetrics
program = vqaEval.VQAEval(VQA(folder + "/annotations.json"), VQA(folder + "/results.json"), n=2)
program.evaluate()
json.dump({"each": program.evalQA, "accuracy": program.accuracy}, open(folder + "/scores.json", "w"))
"""


def main() -> None:
    """Run both programs and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("vqa", "vizwiz"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--python2", default="python2.7")
    given = parser.parse_args()
    vizwiz_tools = given.vizwiz / "src" if (given.vizwiz / "src").is_dir() else given.vizwiz
    rows = generate_rows()
    record = {
        "seed": SEED,
        "rows_sha256": hash_rows(rows),
        "vqav2": {
            "program": "github.com/GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py",
            **_read_versions(given.vqa, given.python2),
            **_run_program(_RUN_VQAV2, given.python2, given.vqa, rows, _write_vqav2_files),
        },
        "vizwiz": {
            "program": "VizWiz's API (vizwiz.org), PythonEvaluationTools/vqaEvaluation/vqaEval.py",
            **_read_versions(given.vizwiz, sys.executable),
            **_run_program(_RUN_VIZWIZ, sys.executable, vizwiz_tools, rows, _write_vizwiz_files),
        },
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_versions(checkout: Path, python: str) -> dict[str, str]:
    def output(*words: str | Path) -> str:
        run = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return run.stdout.strip()

    return {
        "repository": output("git", "-C", checkout, "remote", "get-url", "origin"),
        "commit": output("git", "-C", checkout, "rev-parse", "HEAD"),
        "python": output(python, "--version"),
    }


def _run_program(
    script: str,
    python: str,
    tools: Path,
    rows: list[OfficialRow],
    write_files: Callable[[Path, list[OfficialRow]], None],
) -> dict[str, object]:
    """Scores of the rows with ten annotators alone, then of the others: `accuracy` is that of the ten."""
    scores = []
    for some in (rows[:TEN_ROWS], rows[TEN_ROWS:]):
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), some)
            subprocess.run([python, "-c", script, tools, folder], check=True, stdout=subprocess.DEVNULL)
            scores.append(json.loads((Path(folder) / "scores.json").read_text()))
    each = [scores[0]["each"][str(row.number)] for row in rows[:TEN_ROWS]]
    names = {
        score: "0123456789"[round(score / 100 * 9)] for score in sorted(set(each))
    }  # one character a score
    assert len(set(names.values())) == len(names), names
    text = "".join(names[score] for score in each)
    return {
        "accuracy": scores[0]["accuracy"],
        "score_of_character": {character: score for score, character in names.items()},
        "scores_of_ten": [text[first : first + 100] for first in range(0, len(text), 100)],
        "scores_of_others": json.dumps([scores[1]["each"][str(row.number)] for row in rows[TEN_ROWS:]]),
    }


def _write_vqav2_files(folder: Path, rows: list[OfficialRow]) -> None:
    annotations = [
        {
            "question_id": row.number, "image_id": row.number, "question_type": row.question_type,
            "answer_type": row.answer_type, "multiple_choice_answer": row.annotations[0],
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": id} for id, text in enumerate(row.annotations, 1)
            ],
        }
        for row in rows
    ]  # fmt: skip
    questions = [{"question_id": row.number, "image_id": row.number, "question": "?"} for row in rows]
    about = dict.fromkeys(("info", "task_type", "data_type", "data_subtype", "license"), "")
    _write_json(folder / "annotations.json", {**about, "annotations": annotations})
    _write_json(folder / "questions.json", {**about, "questions": questions})
    _write_json(folder / "results.json", [{"question_id": row.number, "answer": row.answer} for row in rows])


def _write_vizwiz_files(folder: Path, rows: list[OfficialRow]) -> None:
    annotations = [
        {
            "image": str(row.number), "question": "?", "answerable": 1, "answer_type": row.answer_type,
            "answers": [{"answer": text, "answer_confidence": "yes"} for text in row.annotations],
        }
        for row in rows
    ]  # fmt: skip
    _write_json(folder / "annotations.json", annotations)
    _write_json(folder / "results.json", [{"image": str(row.number), "answer": row.answer} for row in rows])


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="ascii")


if __name__ == "__main__":
    main()
