"""VQA_NIA's data from its JSON files to scores by kind, on two processes, killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.index.reader import open_index
from kovqa_core.runs.folder import follow_pointer

from tests import parity
from tests.conftest import Kovqa, Small, clean_env, command, sets
from tests.encoders import picture_folder, question_folder

STEPS = 24


@pytest.fixture(scope="module")
def words(small: Small, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`train …` with recipe nia on the recorded files, encoders and pictures made here."""
    folder = tmp_path_factory.mktemp("엔아이에이")
    shutil.copytree(parity.path("aihub_json", "vqa_nia"), folder / "raw")
    (folder / "raw" / "image").mkdir()
    import random

    for number, name in enumerate(parity.json_of("aihub_json/images_present.json", "vqa_nia")):
        paint_scene(make_scene(random.Random(number)), 64).convert("RGB").save(
            folder / "raw" / "image" / name
        )
    done = subprocess.run(
        # Two of the eighteen recorded rows have no image; the original leaves them out too.
        command(["index", "nia", "--root", folder / "raw", "-o", folder / "index", "--allow-left-out"]),
        env=clean_env(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    question, picture = question_folder(folder / "xlm", small.tokenizer), picture_folder(folder / "resnet")
    settings = (
        f"model.question='{question}'", f"model.picture='{picture}'", "model.image_size=32", "model.hidden_size=48",
        "optim.epochs=null", f"optim.steps={STEPS}", "optim.global_batch=4", "save.every_steps=2",
        "eval.every_steps=12", "log_every=1", "profile.threads=1", "profile.processes_per_node=2",
    )  # fmt: skip
    return ["train", "-r", "nia", "-p", "cpu", "--data", folder / "index", *sets(*settings)]


def weights(folder: Path) -> dict[str, bytes]:
    last = follow_pointer(folder, "last")
    assert last is not None
    assert last.name == f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}


def test_from_json_to_scores_by_kind(kovqa: Kovqa, words: list[object], tmp_path: Path) -> None:
    whole = kovqa(*words, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command([*words, "-o", folder]), env=clean_env(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while follow_pointer(folder, "last") is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()
    resumed = kovqa(*words, "-o", folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step-" in resumed.stderr
    assert weights(folder) == weights(tmp_path / "whole")  # dropout and BatchNorm too

    index = Path(str(words[words.index("--data") + 1]))
    test = index / "test.jsonl"
    kinds = {example.question_type for example in open_index(index).split("test")}
    for kind in sorted(kinds):
        output = tmp_path / f"{kind}.jsonl"
        done = kovqa("predict", "--model", folder, "--input", test, "-o", output, "--kind", kind)
        assert done.returncode == 0, done.stderr
        scored = kovqa("evaluate", output, "--index", test, "--kind", kind, "--json")
        assert scored.returncode == 0, scored.stderr
        assert [row["kind"] for row in json.loads(scored.stdout)["kinds"]] == [kind]
    everything = tmp_path / "all.jsonl"
    assert (
        kovqa("predict", "--model", folder, "--input", test, "-o", everything, "--kind", "all").returncode
        == 0
    )
    told = json.loads(kovqa("evaluate", everything, "--index", test, "--json").stdout)
    assert {row["kind"] for row in told["kinds"]} == kinds
    assert [row["kind"] for row in told["groups"]] == ["A", "B"]


def test_one_kind_is_trained_and_validated(kovqa: Kovqa, words: list[object], tmp_path: Path) -> None:
    sets_ = sets("data.kinds=[vqa]", "optim.global_batch=2", "profile.processes_per_node=1", "optim.steps=2",
                 "eval.every_steps=2")  # fmt: skip
    done = kovqa(*words, *sets_, "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    index = open_index(Path(str(words[words.index("--data") + 1])))
    assert [line["rows"] for line in lines if line["kind"] == "eval"] == [
        sum(example.question_type == "vqa" for example in index.split("val"))
    ]
    foreign = kovqa(*words, *sets_, "--set", "data.kinds=[nonsense]", "-o", tmp_path / "c")
    assert foreign.returncode != 0
    assert "its kinds: " in foreign.stderr
