"""Every mistake of a user ends with one line, the promised exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from kovqa_core.runs.folder import follow_pointer

from tests.conftest import Kovqa, Small, clean_env, command, sets, training


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command failed with one line that has these words."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("kovqa:")]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0]
    assert done.stdout == ""


def trains_without(done: subprocess.CompletedProcess[str], problem: str) -> None:
    """A training left rows out and ended well; they are named when they come, and counted at the end."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert any(line.startswith("warning: left out: id ") and problem in line for line in lines)
    assert any(line.startswith("training: ") and problem in line for line in lines)


def train(small: Small, *extra: object) -> list[object]:
    return [*training(small, "optim.steps=4", "eval.every_steps=4"), *extra]


@pytest.fixture
def copy(small: Small, tmp_path: Path) -> Small:
    """A copy of the data set that a test may spoil."""
    shutil.copytree(small.root.parent, tmp_path / "자료")
    return Small(
        tmp_path / "자료/raw", tmp_path / "자료/index", tmp_path / "자료/tokenizer.model", small.captions
    )


def test_wrong_recipe_key(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    done = kovqa(*train(small, "--set", "optim.layer_deacy=0.9"))
    one_line(done, 2, "layer_deacy", "did you mean layer_decay")
    recipe = kovqa("recipes", "show", "tiny").stdout.replace("weight_decay", "weight_deacy")
    (tmp_path / "my.yaml").write_text(recipe)
    line = next(n for n, text in enumerate(recipe.splitlines(), 1) if "weight_deacy" in text)
    one_line(kovqa("train", "-r", "my.yaml"), 2, f"my.yaml:{line}:3", "did you mean weight_decay")
    assert not (tmp_path / "runs").exists()


def test_unknown_names(kovqa: Kovqa) -> None:
    one_line(kovqa("train", "-r", "kobiet3"), 2, "did you mean kobeit3")
    one_line(kovqa("train", "-p", "a100x5"), 2, "did you mean a100x8, a100x4 or a100x1")
    one_line(kovqa("index", "aihubb", "--root", "."), 2, "did you mean aihub")


def test_too_few_gpus(kovqa: Kovqa, tmp_path: Path) -> None:
    done = kovqa("train", "--profile", "a100x4", CUDA_VISIBLE_DEVICES="")
    one_line(done, 4, "a100x4 needs 4 GPUs, this machine shows 0", "--profile cpu", "--dry-run")
    assert not (tmp_path / "runs").exists()


def test_missing_picture_in_index_and_in_training(kovqa: Kovqa, copy: Small) -> None:
    picture = sorted((copy.root / "images").glob("*.png"))[0]
    picture.unlink()
    trains_without(kovqa(*train(copy, "-o", "r")), f"{picture.name} is missing")
    done = kovqa("index", "aihub", "--root", copy.root, "-o", "again")
    assert done.returncode == 0
    assert "left out, picture missing: " in done.stderr
    assert picture.name in done.stderr


def test_truncated_jpeg(kovqa: Kovqa, copy: Small, trained: Path) -> None:
    from PIL import Image

    picture = sorted((copy.root / "images").glob("*.png"))[0]
    Image.open(picture).save(copy.root / "whole.jpg")
    picture.write_bytes((copy.root / "whole.jpg").read_bytes()[:-2000])
    trains_without(kovqa(*train(copy, "-o", "r")), f"{picture.name} cannot be read")
    done = kovqa("predict", "--model", trained, "-i", picture, "--question", "무엇?")
    one_line(done, 3, picture.name, "cannot be read")


def test_label_files(kovqa: Kovqa, copy: Small, tmp_path: Path) -> None:
    folder = next((copy.root / "labels/train_labels").rglob("annotation.json")).parent
    whole = kovqa("index", "aihub", "--root", copy.root, "-o", "whole", "--json").stdout
    question = folder / "question.json"
    text = question.read_text(encoding="utf-8")
    for data in (text.encode("utf-8-sig"), text.encode("cp949")):
        question.write_bytes(data)
        done = kovqa("index", "aihub", "--root", copy.root, "-o", "again", "--json")
        assert json.loads(done.stdout)["fingerprint"] == json.loads(whole)["fingerprint"]
    for data, word in (
        (b"", "is empty"),
        (text[:-30].encode(), "not valid JSON"),
        (b"\xff\xff", "neither UTF-8"),
        (b"\xff\xfe\xff", "damaged UTF-16"),
    ):
        question.write_bytes(data)
        one_line(kovqa("index", "aihub", "--root", copy.root, "-o", "broken"), 3, "question.json", word)
    assert not (tmp_path / "broken").exists()
    assert not (tmp_path / ".broken.part").exists()


def test_nfd_file_names(kovqa: Kovqa, copy: Small) -> None:
    import unicodedata

    for picture in list((copy.root / "images").iterdir()):
        picture.rename(picture.with_name(unicodedata.normalize("NFD", picture.name)))
    done = kovqa("index", "aihub", "--root", copy.root, "-o", copy.index, "--json")
    assert json.loads(done.stdout)["left_out"] == {}
    done = kovqa(*train(copy, "-o", "r"))
    assert done.returncode == 0, done.stderr


def test_answer_list_that_does_not_match(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    step = follow_pointer(trained, "best")
    assert step is not None
    shutil.copytree(step, tmp_path / "step")
    answers = (tmp_path / "step/answers.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "step/answers.txt").write_text("\n".join(answers[:-1]) + "\n", encoding="utf-8")
    picture = next((small.root / "images").glob("*.png"))
    done = kovqa("predict", "--model", "step", "-i", picture, "--question", "무엇?")
    one_line(done, 3, "answers.txt", f"lists {len(answers) - 1} answers", f"trained on {len(answers)}")


def test_captioning_checkpoint_given_to_vqa(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    step = follow_pointer(trained, "best")
    assert step is not None
    shutil.copytree(step, tmp_path / "step")
    about = json.loads((tmp_path / "step/kovqa.json").read_text())
    (tmp_path / "step/kovqa.json").write_text(json.dumps({**about, "task": "caption"}))
    picture = next((small.root / "images").glob("*.png"))
    done = kovqa("predict", "--model", "step", "-i", picture, "--question", "무엇?")
    one_line(done, 3, "trained for caption, not for vqa")


def test_published_captioning_file_as_vqa_weights(kovqa: Kovqa, small: Small) -> None:
    """Its vocabulary head is no answer head: a mismatch is an error until the user names it."""
    from tests.parity import path

    file = path("captioning.pth")
    config = json.loads((file.parent / "config.json").read_text())
    options = sets(
        "model.size=custom",
        "model.custom={}".format([config[k] for k in ("embed_dim", "num_heads", "num_layers", "ffn_dim")]),
        f"model.image_size={config['image_size']}", f"model.patch_size={config['patch_size']}", f"model.weights={file}",
        f"model.weights_tokenizer={path('tokenizer.model')}",
    )  # fmt: skip
    done = kovqa(*train(small, *options, "-o", "r"))
    one_line(done, 3, "captioning.pth does not fit", "model.reinit")


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_pickle_with_foreign_code(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(2)}, "args": Hostile(tmp_path / "was-run")}, tmp_path / "evil.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "was-run")))
    for name in ("evil.pth", "bare.pth"):
        weights = sets(f"model.weights={tmp_path / name}", "model.text_rows=original")
        done = kovqa(*train(small, *weights, "-o", f"r-{name}"))
        one_line(done, 3, name)
        assert not (tmp_path / "was-run").exists()


def test_missing_weights_and_tokenizer(kovqa: Kovqa, small: Small) -> None:
    done = kovqa(*train(small, "--set", "model.weights=beit3_base_patch16_224.pth"))
    one_line(done, 5, "beit3_base_patch16_224.pth not found", "kovqa download beit3_base_patch16_224;")
    one_line(kovqa("train", "-r", "tiny", "--data", small.index), 2, "--tokenizer")
    one_line(kovqa("train", "-r", "tiny", "--data", "none", "--tokenizer", small.tokenizer), 3, "kovqa index")


def test_unwritable_output(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one_line(kovqa(*train(small, "-o", "file/run")), 2, "file/run", "choose another")
    one_line(kovqa("index", "aihub", "--root", small.root, "-o", "file/index"), 2, "choose another")
    one_line(kovqa(*train(small, "-o", "/proc/kovqa")), 2, "/proc/kovqa")


def test_folder_in_use(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    one_line(kovqa(*train(small, "-o", trained)), 2, "already holds a run", "--resume")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    one_line(kovqa("index", "aihub", "--root", small.root, "-o", "mine"), 2, "not an index")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


def test_disk_full_during_a_checkpoint(small: Small, tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: the second checkpoint cannot be written."""
    words = command(
        train(small, "-o", tmp_path / "run", "--set", "optim.steps=6", "--set", "save.every_steps=2")
    )
    process = subprocess.Popen(
        words, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        import resource

        worker = None
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (tmp_path / "run" / "last").exists():
            time.sleep(0.005)
        for found in Path("/proc").glob("[0-9]*"):
            line = _cmdline(found)
            if str(tmp_path / "run" / "run.yaml") in line and "torch.distributed.run" not in line:
                worker = int(found.name)
        assert worker is not None
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (4096, 4096))
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 4, errors
    assert "larger than a file may be here" in errors
    assert "is still whole" in errors
    last = follow_pointer(tmp_path / "run", "last")
    assert last is not None
    assert not list((tmp_path / "run").glob("*.part"))
    resumed = subprocess.run(
        command(["train", "--resume", "-o", tmp_path / "run"]),
        env=clean_env(),
        capture_output=True,
        text=True,
    )
    assert resumed.returncode == 0, resumed.stderr


def _cmdline(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def test_ctrl_c_leaves_a_complete_checkpoint(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    words = command(train(small, "-o", tmp_path / "run", "--set", "optim.steps=100000"))
    process = subprocess.Popen(
        words, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell starts background jobs deaf to Ctrl-C, and tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") > 3):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    last = follow_pointer(tmp_path / "run", "last")
    assert last is not None
    assert f"{last.name} is complete" in errors
    assert "kovqa train --resume -o" in errors
    resumed = kovqa(*train(small, "--resume", "-o", tmp_path / "run"))
    one_line(resumed, 2, "other settings", "optim.steps is 100000 there, and 4 by --set")


def test_two_runs_in_one_folder(small: Small, tmp_path: Path) -> None:
    """The second waits for the first, and goes on where it ended: nothing is done twice."""
    words = command(train(small, "-o", tmp_path / "run", "--resume", "--set", "optim.steps=30"))
    both = [
        subprocess.Popen(words, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 31))


def test_worker_that_is_killed(small: Small, tmp_path: Path) -> None:
    words = command(train(small, "-o", tmp_path / "run", "--set", "optim.steps=100000"))
    process = subprocess.Popen(
        words, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    for found in Path("/proc").glob("[0-9]*"):
        line = _cmdline(found)
        if str(tmp_path / "run" / "run.yaml") in line and "torch.distributed.run" not in line:
            os.kill(int(found.name), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 6, errors
    assert "rank 0 was killed (SIGKILL)" in errors
    assert "kovqa train --resume" in errors
