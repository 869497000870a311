"""Dacon 236118 whole: the contest's folder, an index, a training, killed and resumed predictions, a submission sent."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.data.answers import read_answers
from kovqa_core.demo.questions import ask_questions
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.index.reader import open_index

from tests.conftest import VLM, Kovqa, clean_env, command, sets
from tests.submit.server import TEAM, TOKEN, running

TRAIN, TEST, CLASSES = 40, 40, 10  # images, images, answers to choose from
FEW_STEPS = ("optim.epochs=null", "optim.steps=4", "optim.warmup_epochs=0", "eval.every_steps=4")


def write_contest(root: Path, train: int = TRAIN, test: int = TEST) -> Path:
    """What open.zip holds: three tables and the images, several questions an image, rows not in their order."""
    rng = random.Random(236118)
    for split, images in (("train", train), ("test", test)):
        (root / "image" / split).mkdir(parents=True)
        rows = []
        for number in range(images):
            scene, name = make_scene(rng), f"{split}_{number:05d}"
            paint_scene(scene, 48).save(root / "image" / split / f"{name}.jpg")
            rows += [
                [name, each.question, each.answer]
                for each in ask_questions(scene, rng, heldout=split == "test")
            ]
        rng.shuffle(rows)
        named = [[f"{split.upper()}_{number:05d}", *row] for number, row in enumerate(rows)]
        columns = ["ID", "image_id", "question", "answer"]
        write_csv(root / f"{split}.csv", columns if split == "train" else columns[:3], named)
        if split == "test":
            write_csv(root / "sample_submission.csv", ["ID", "answer"], [[row[0], "0"] for row in named])
    return root


def write_csv(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([columns, *(row[: len(columns)] for row in rows)])


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contest's folder, `open`, and the index of it, `index`."""
    folder = tmp_path_factory.mktemp("데이콘 대회")
    root = write_contest(folder / "open")
    words = ["index", "dacon", "--root", root, "--answers", CLASSES, "-o", folder / "index"]
    done = subprocess.run(
        command(words), env=clean_env(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def predicted(words: list[object], output: Path, more_than: int) -> str:
    """Predict, killed when some rows are there, and again; the notes of the second."""
    part = output.with_name(output.name + ".part")
    with subprocess.Popen(command(words), env=clean_env(), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (part.exists() and part.read_bytes().count(b"\n") > more_than):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not output.exists(), "it ended before it could be killed"
    done = subprocess.run(
        command(words), env=clean_env(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not part.exists()
    return done.stderr


def test_the_index_holds_the_most_frequent_answers_and_divides_by_picture(contest: Path) -> None:
    index = open_index(contest / "index")
    splits = {name: list(index.split(name)) for name in ("train", "val", "test")}
    answer_of = {row[0]: row[3] for row in read_csv(contest / "open" / "train.csv")[1:]}
    in_val = {example.id for example in splits["val"]}
    counts = Counter(answer for id, answer in answer_of.items() if id not in in_val)
    assert index.answers() == sorted(counts, key=lambda answer: (-counts[answer], answer))[:CLASSES]
    assert len(counts) > CLASSES
    assert not {e.image for e in splits["train"]} & {e.image for e in splits["val"]}
    assert len(in_val) > len({e.image for e in splits["val"]}) > 0  # some image has several questions
    assert [e.id for e in splits["test"]] == [row[0] for row in read_csv(contest / "open" / "test.csv")[1:]]


def test_from_the_folder_to_a_submission_that_was_accepted(
    contest: Path, tiny_vlm: Callable[[str], Path], tmp_path: Path, kovqa: Kovqa
) -> None:
    """By a model that writes; the winner's goes the same way in the README's cells for Colab (tests/docs)."""
    settings = sets(*VLM, f"model.base={tiny_vlm('qwen2_5_vl')}", "model.dtype=fp32")
    words = [
        "train",
        "-r",
        "dacon-vlm-lora",
        "-p",
        "cpu",
        "--data",
        contest / "index",
        *settings,
        *sets(*FEW_STEPS),
    ]
    done = kovqa(*words, "-o", "run")
    assert done.returncode == 0, done.stderr

    test, output = contest / "index" / "test.jsonl", tmp_path / "predictions.jsonl"
    predict = ["predict", "--model", tmp_path / "run", "--input", test, "-o", output, "--batch", "2"]
    predicted(predict, output, more_than=20)
    lines = output.read_text("utf-8").splitlines()
    sample = contest / "open" / "sample_submission.csv"
    assert [json.loads(line)["id"] for line in lines] == [row[0] for row in read_csv(sample)[1:]]

    submit = ["submit", "dacon", "--predictions", "predictions.jsonl", "--sample", sample, "-o"]
    with running() as dacon:
        env = {
            "KOVQA_DACON_ENDPOINT": dacon.url,
            "DACON_API_TOKEN": TOKEN,
            "KOVQA_HOME": str(tmp_path / "home"),
        }
        sent = kovqa(*submit, "submission.csv", "--upload", "--team", TEAM, "-q", **env)
    written = (tmp_path / "submission.csv").read_bytes()
    assert (sent.returncode, sent.stdout) == (0, "accepted\n"), sent.stderr
    assert [received.content for received in dacon.received] == [written]
    answers = {row["id"]: row["answer"].strip() for row in map(json.loads, lines)}
    assert read_csv(tmp_path / "submission.csv") == [["ID", "answer"], *map(list, answers.items())]

    random.Random(1).shuffle(lines)
    output.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    assert kovqa(*submit, "shuffled.csv").returncode == 0
    assert (tmp_path / "shuffled.csv").read_bytes() == written


@pytest.mark.parametrize(
    ("recipe", "lacking"),
    [
        ("dacon-beit3", ["4 GPUs", "tokenizer beit3.spm", "weights beit3_large_indomain_patch16_224.pth"]),
        ("dacon-llava", ["4 GPUs", "no base model named"]),
        ("dacon-vlm-lora", ["4 GPUs", "no base model named"]),
    ],
)
def test_what_is_not_here_is_named_once_by_a_dry_run(
    recipe: str, lacking: list[str], contest: Path, tmp_path: Path, kovqa: Kovqa
) -> None:
    words = ["train", "-r", recipe, "-p", "a100x4", "--data", contest / "index", "-o", "run", "-n"]
    words += sets("optim.global_batch=64")  # the recorded index is smaller than the recipes' batches
    done = kovqa(*words, KOVQA_HOME=str(tmp_path / "home"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(lacking)
    for line, what in zip(warnings, lacking, strict=True):
        assert what in line


@pytest.mark.parametrize("fault", ["missing", "double", "foreign", "empty"])
def test_a_fault_ends_with_three_and_names_the_first_ten(
    fault: str, contest: Path, tmp_path: Path, kovqa: Kovqa
) -> None:
    sample = contest / "open" / "sample_submission.csv"
    ids = [row[0] for row in read_csv(sample)[1:]]
    rows, wrong = [(id, "예") for id in ids], ids[5:17]
    if fault == "missing":
        rows = [row for row in rows if row[0] not in wrong]
    elif fault == "double":
        rows += [(id, "아니요") for id in wrong]
    elif fault == "foreign":
        wrong = [f"TRAIN_{n:05d}" for n in range(12)]
        rows += [(id, "예") for id in wrong]
    else:
        rows = [(id, " " if id in wrong else text) for id, text in rows]
    lines = "".join(json.dumps({"id": id, "answer": text}) + "\n" for id, text in rows)
    (tmp_path / "p.jsonl").write_text(lines, "utf-8")
    done = kovqa("submit", "dacon", "--predictions", "p.jsonl", "--sample", sample, "-o", "s.csv")
    assert (done.returncode, done.stdout) == (3, "")
    assert re.search(rf"12 ids: {', '.join(wrong[:10])}, … \[KOVQA-\d+\] →", done.stderr)
    assert wrong[10] not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "s.csv").exists()
    assert ("--fill TEXT" in done.stderr) == (fault in ("missing", "empty"))


def test_what_was_not_predicted_is_filled_when_asked(contest: Path, tmp_path: Path, kovqa: Kovqa) -> None:
    """An image that is gone leaves its questions unanswered; all else is still an error."""
    sample = contest / "open" / "sample_submission.csv"
    (tmp_path / "p.jsonl").write_text('{"id": "TEST_00001", "answer": "둘"}\n', "utf-8")
    words = ["submit", "dacon", "--predictions", "p.jsonl", "--sample", sample, "-o", "s.csv", "--fill"]
    done = kovqa(*words, "예")
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "s.csv")[1:]
    assert rows == [[row[0], "둘" if row[0] == "TEST_00001" else "예"] for row in read_csv(sample)[1:]]
    assert f"{len(rows) - 1} of them had no prediction and were filled" in done.stderr
    (tmp_path / "p.jsonl").write_text('{"id": "TEST_00001", "answer": ""}\n', "utf-8")
    done = kovqa(*words, "예")
    assert (done.returncode, "1 of them had an empty prediction and were filled" in done.stderr) == (0, True)
    assert kovqa(*words, " ").returncode == 3


def test_a_list_of_answers_is_taken_as_it_is(contest: Path, tmp_path: Path, kovqa: Kovqa) -> None:
    """The winner's `answer2label.txt`: his order of equally frequent answers, and answers nobody gave."""
    classes = ["아니요", "예", "얼룩말"]
    rows = [json.dumps({"answer": answer, "label": label}) for label, answer in enumerate(classes)]
    (tmp_path / "answer2label.txt").write_text("\n".join(rows), "utf-8")
    words = ["index", "dacon", "--root", contest / "open", "-o", "index", "--answers"]
    done = kovqa(*words, "answer2label.txt", "--json")
    assert done.returncode == 0, done.stderr
    assert read_answers(tmp_path / "index" / "answers.txt") == classes
    document = json.loads(done.stdout)
    answers = {next(iter(e.answers)) for e in open_index(tmp_path / "index").split("train")}
    assert (answers, document["answers"], document["min_count"]) == ({"예", "아니요"}, 3, 0)
    assert document["left_out"]["answer is no class"] > 0
    assert document["answers_without_rows"] == {"count": 1, "first": "얼룩말"}
    (tmp_path / "answer2label.txt").write_text("얼룩말\n", "utf-8")
    for answers_file, error in (
        ("answer2label.txt", "no training answer is in the list"),
        ("nowhere.txt", "nowhere.txt"),
    ):
        refused = kovqa(*words, answers_file)
        assert (refused.returncode, error in refused.stderr) == (3, True), refused.stderr
    assert kovqa(*words, "0").returncode == 2
