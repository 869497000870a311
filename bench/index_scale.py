"""How `kovqa index aihub` grows: trees of 250 k, 1 M and 7.5 M questions, the last of AI-Hub 104's size.

    python bench/index_scale.py [--rows 250000 1000000 7500000] [--original 250000] [--against CHECKOUT]

Every tree is made in a scratch folder (7.5 million questions: 2 GB and 1.35 million empty
images), indexed by the real command, and opened as training does. Memory is the sum over all
processes of the command, sampled; the file cache is not counted.

`--original N` also runs the original's way on N questions, on the same tree: everything read into
memory, every question through the slow tokenizer of transformers 4.35.2 (of the environment that
`--python` names) or, where that is not installed, through sentencepiece itself.

`--against CHECKOUT` also indexes every tree with another checkout of this repository, in turns with this one, and
prints the user CPU time of each (the least of three, for other programs take their part of a shared machine).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

IMAGES_PER_QUESTION, CATEGORIES = 0.18, 20  # categories have three levels each
QUESTION_NOUNS = [
    "신호등", "자동차", "강아지", "고양이", "건물", "나무", "사람", "모자", "가방", "의자", "책상", "그릇",
    "사과", "딸기", "우산", "자전거", "간판", "창문", "시계", "신발",
]  # fmt: skip
QUESTION_FORMS = [
    "사진 속 {}의 색깔은 무엇인가요?", "{}은 몇 개 있나요?", "사진에 {}이 보이나요?",
    "{} 옆에 있는 물건의 이름은 무엇인가요?", "사진 왼쪽에 있는 {}은 무엇으로 만들어졌나요?",
]  # fmt: skip
FREQUENT_ANSWERS = [
    "예", "아니요", "빨간색", "주황색", "노란색", "초록색", "파란색", "흰색", "검은색", "1", "2", "3", "4", "5",
    "유리", "목재", "왼쪽", "오른쪽", "실내", "형광등",
]  # fmt: skip


def make_tree(root: Path, rows: int) -> None:
    """A label tree in AI-Hub 104's layout, with empty images in one folder."""
    (root / "images").mkdir(parents=True)
    random.seed(104)
    first_id, folder_rows = 0, rows // (CATEGORIES * 3)
    for category in range(CATEGORIES):
        for level in "상중하":
            held_out = folder_rows // 10
            for split, split_rows in (("train", folder_rows - held_out), ("validate", held_out)):
                top = "train_labels" if split == "train" else "valid_labels"
                name = f"분류{category:02}"
                folder = root / "labels" / top / name / f"{level}_{split}_{name}"
                folder.mkdir(parents=True)
                _write_labels(root, folder, first_id, split_rows)
                first_id += split_rows


def _write_labels(root: Path, folder: Path, first_id: int, rows: int) -> None:
    images = [f"{folder.name}_{n:07}.jpg" for n in range(max(1, int(rows * IMAGES_PER_QUESTION)))]
    for name in images:
        (root / "images" / name).touch()
    category = folder.parent.name
    _write_records(folder / "images.json", "images", (
        f'{{"image_id": "{name[:-4]}", "image": "{name}", "category": "{category}"}}' for name in images
    ))  # fmt: skip
    ids = [f"{first_id + n:010}" for n in range(rows)]
    image_ids = [images[n % len(images)][:-4] for n in range(rows)]
    _write_records(folder / "question.json", "questions", (
        f'{{"question_id": "{id}", "image_id": "{image}", '
        f'"question": "{random.choice(QUESTION_FORMS).format(random.choice(QUESTION_NOUNS))}"}}'
        for id, image in zip(ids, image_ids, strict=True)
    ))  # fmt: skip
    _write_records(folder / "annotation.json", "annotations", (
        f'{{"question_id": "{id}", "image_id": "{image}", "multiple_choice_answer": '
        f'"{_random_answer()}", "answer_confidence": "yes"}}'
        for id, image in zip(ids, image_ids, strict=True)
    ))  # fmt: skip


def _random_answer() -> str:
    """Mostly few answers, with a long tail as real ones have."""
    if random.random() < 0.9:
        return random.choice(FREQUENT_ANSWERS)
    return f"{random.choice(QUESTION_NOUNS)} {int(random.paretovariate(0.6)) % 20000}"


def _write_records(path: Path, name: str, records: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"{name}": [\n')
        for number, record in enumerate(records):
            stream.write(",\n" if number else "")
            stream.write(record)
        stream.write("\n]}\n")


def run_measured(words: list[str]) -> tuple[float, int, str]:
    """Seconds, peak of the bytes in memory over all processes, stdout of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_own_bytes, _process_tree(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{words} ended with {process.returncode}")
    assert process.stdout
    return time.perf_counter() - began, peak, process.stdout.read()


def compare_checkouts(words: list[str], checkouts: Sequence[Path]) -> list[tuple[float, float]]:
    """User CPU seconds and peak MB of the largest process of `kovqa WORDS`: of each checkout, the least of three runs."""
    runs: list[list[tuple[float, float]]] = [[] for _ in checkouts]
    for _ in range(3):
        for checkout, measured in zip(checkouts, runs, strict=True):
            paths = os.pathsep.join([str(checkout / "core"), str(checkout)])
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kovqa_cli", *words],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"{words} of {checkout} ended with {os.waitstatus_to_exitcode(status)}")
            measured.append((usage.ru_utime, usage.ru_maxrss * 1024 / 1e6))
    return [(min(seconds for seconds, _ in each), min(peak for _, peak in each)) for each in runs]


def _process_tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _process_tree(int(child)))]


def _own_bytes(pid: int) -> int:
    """Bytes of a process: its own, and its fraction of what several share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


OPEN_INDEX = """
import json, os, sys, time
from pathlib import Path
def rss(): return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
from kovqa_core.index.reader import open_index
began = time.perf_counter()
index = open_index(Path(sys.argv[1]))
train, answers = index.split("train"), index.answers()
import random
random.seed(1)
rows = [train[random.randrange(len(train))] for _ in range(10)]
opened = time.perf_counter() - began
print(json.dumps({"seconds": opened, "rss": rss(), "rows": len(train), "answers": len(answers)}))
"""

ORIGINAL_INDEX = """
import json, sys
from pathlib import Path
root, model = Path(sys.argv[1]), sys.argv[2]
try:
    from transformers import XLMRobertaTokenizer
    tokenizer = XLMRobertaTokenizer(model)
    encode = lambda text: tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    name = "transformers' slow tokenizer"
except ImportError:
    import sentencepiece
    encode = sentencepiece.SentencePieceProcessor(model_file=model).encode
    name = "sentencepiece"
rows, counts = [], {}
for folder in sorted(root.glob("labels/*/*/*")):
    read = lambda stem, key: json.loads((folder / f"{stem}.json").read_text("utf-8"))[key]
    images = {r["image_id"]: r["image"] for r in read("images", "images")}
    questions = {r["question_id"]: r["question"] for r in read("question", "questions")}
    for r in read("annotation", "annotations"):
        answer = r["multiple_choice_answer"]
        counts[answer] = counts.get(answer, 0) + 1
        rows.append((images[r["image_id"]], encode(questions[r["question_id"]]), answer, r["question_id"]))
classes = {answer: n for n, answer in enumerate(a for a, c in counts.items() if c >= 5)}
with open(root / "original.json", "w", encoding="utf-8") as stream:
    for image, ids, answer, id in rows:
        if answer in classes:
            row = {"image_path": image, "text_segment": ids, "labels": [classes[answer]], "scores": [1.0], "qid": id}
            stream.write(json.dumps(row) + "\\n")
print(name)
"""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 7_500_000])
    parser.add_argument("--original", type=int, default=250_000, help="questions for the original's way")
    parser.add_argument("--tokenizer", type=Path, help="SentencePiece model for the original's way")
    parser.add_argument("--python", default=sys.executable, help="one that has transformers 4.35.2")
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--scratch", type=Path, help="where the trees are made")
    options = parser.parse_args()
    print("| questions | index s | questions/s | memory MB | open s | opened process MB |")
    print("|---|---|---|---|---|---|")
    for rows in options.rows:
        scratch = Path(tempfile.mkdtemp(dir=options.scratch))
        try:
            make_tree(scratch / "tree", rows)
            kovqa = [sys.executable, "-P", "-m", "kovqa_cli"]
            words = [
                "index",
                "aihub",
                "--root",
                str(scratch / "tree"),
                "-o",
                str(scratch / "index"),
                "--json",
            ]
            seconds, memory, out = run_measured([*kovqa, *words])
            total = sum(json.loads(out)["rows"].values()) + sum(json.loads(out)["left_out"].values())
            opened = json.loads(run_measured([sys.executable, "-c", OPEN_INDEX, str(scratch / "index")])[2])
            print(
                f"| {total:,} | {seconds:.1f} | {total / seconds:,.0f} | {memory / 1e6:,.0f} "
                f"| {opened['seconds']:.3f} | {opened['rss'] / 1e6:.0f} |", flush=True,
            )  # fmt: skip
            if options.against:
                here = Path(__file__).resolve().parents[1]
                other, ours = compare_checkouts(words, [options.against.resolve(), here])
                print(
                    f"| {total:,}, user CPU: {options.against} {other[0]:.1f} s, {other[1]:,.0f} MB; "
                    f"this checkout {ours[0]:.1f} s, {ours[1]:,.0f} MB | | | | | |", flush=True,
                )  # fmt: skip
            if rows == options.original and options.tokenizer:
                words = [options.python, "-c", ORIGINAL_INDEX, str(scratch / "tree"), str(options.tokenizer)]
                seconds, memory, out = run_measured(words)
                print(
                    f"| {total:,}, the original's way ({out.strip()}) | {seconds:.1f} "
                    f"| {total / seconds:,.0f} | {memory / 1e6:,.0f} | | |", flush=True,
                )  # fmt: skip
        finally:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
