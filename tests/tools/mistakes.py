"""Mistakes as users type them: a small folder to make them in, and what kovqa answers, in each language.

tests/cli/mistakes.yaml      what is typed, and the exit code
tests/fixtures/mistakes.txt  what is answered: `python -m tests.cli.record_mistakes` writes it
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.tools.forked_commands import drop_capabilities

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "cli" / "mistakes.yaml"
RECORD = ROOT / "fixtures" / "mistakes.txt"


@dataclass(frozen=True)
class Mistake:
    """Something typed.

    Args:
        typed: after `kovqa`, as a shell takes it.
        code: exit code.
        environment: variables besides the usual ones.
    """

    typed: str
    code: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """As it would stand in a terminal."""
        variables = (f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return " ".join((*variables, "kovqa", self.typed)).rstrip()


def read_mistakes() -> list[Mistake]:
    """The list: by exit code and group, each a line or a line with variables."""
    groups = yaml.safe_load(LIST.read_text("utf-8"))
    found = []
    for group in groups.values():
        for entry in group:
            code, typed = next((k, v) for k, v in entry.items() if isinstance(k, int))
            found.append(Mistake(typed, code, {str(k): v for k, v in entry.items() if k != code}))
    return found


def make_folder(folder: Path) -> None:
    """What the mistakes are about: images, tables, an index, predictions, runs, and files that are none of them."""
    from kovqa_core.demo.dataset import write_demo_dataset
    from kovqa_core.index.build import build_index
    from PIL import Image

    folder.mkdir()
    (folder / "home").mkdir()
    write_demo_dataset(folder / "raw", 8, 4, 3)
    (folder / "raw" / "images").rename(folder / "raw" / "사진")
    shutil.copytree(folder / "raw" / "사진", folder / "raw" / "images")
    build_index("aihub", folder / "raw", None, folder / "index")
    build_index("table", folder / "raw" / "captions.jsonl", folder / "raw" / "images", folder / "captions")
    shutil.copyfile(ROOT / "fixtures" / "compat" / "tokenizer.model", folder / "tokenizer.model")
    Image.new("RGB", (40, 30), "red").save(folder / "고양이.jpg")
    Image.new("RGB", (40, 30), "blue").save(folder / "내 사진.jpg")
    _write_tables(folder)
    _write_runs(folder)


def _write_tables(folder: Path) -> None:
    texts = {
        "질문.csv": "id,image,question,answer\n1,고양이.jpg,무슨 색인가요?,빨강\n2,없는 사진.jpg,무엇인가요?,고양이\n",
        "제목 없음.csv": "가,나,다\n1,2,3\n",
        "빈 표.csv": "",
        "제목만.csv": "id,image,question,answer\n",
        "실은 json.csv": '[{"id": "1", "image": "고양이.jpg", "question": "무엇?", "answer": "고양이"}]\n',
        "실은 csv.json": "id,image,question\n1,고양이.jpg,무엇?\n",
        "깨진.json": '[{"id": "1", "image": "고양이.jpg", "question"',
        "깨진.jsonl": '{"id": "1", "image": "고양이.jpg", "question": "무엇?"}\n{"id": "2", image: 3}\n',
        "메모.txt": "오늘 할 일\n",
        "망가진.jpg": "사진이 아닙니다\n",
        "내 레시피.yaml": "family: beit3\ntask: vqa\noptim:\n  lr: [1\n",
        "sample_submission.csv": "question_id,answer\nTEST_000,x\nTEST_001,x\n",
        "남의 예측.jsonl": '{"id": "other-1", "answer": "빨강"}\n{"id": "other-2", "answer": "파랑"}\n',
        "답 없음.jsonl": '{"id": "1"}\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "utf-7.csv").write_bytes(b"id,image,question\n1,a.jpg,\xff\xfe\xfa\xc0\n")
    (folder / "표.numbers").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    (folder / "옛 표.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    (folder / "빈 사진.jpg").write_bytes(b"")
    (folder / "빈 폴더").mkdir()
    (folder / "잠긴.csv").write_text("id,image,question\n", encoding="utf-8")
    (folder / "잠긴.csv").chmod(0)
    (folder / "잠긴 폴더").mkdir(mode=0o500)
    rows = [json.loads(line) for line in (folder / "index" / "val.jsonl").read_text("utf-8").splitlines()]
    answers = [{"id": row["id"], "answer": "빨강"} for row in rows]
    (folder / "val-예측.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers), encoding="utf-8"
    )


def _write_runs(folder: Path) -> None:
    """Runs that were planned, and never trained."""
    from kovqa_core.settings.resolve import load_profile, load_recipe
    from kovqa_core.settings.run import make_run, write_run

    for name in ("tiny-first", "tiny-second", "내 실험"):
        run = make_run(load_recipe("tiny"), load_profile("cpu"), folder / "runs" / name, [])
        run.folder.mkdir(parents=True)
        write_run(run)


def answer_mistakes(mistakes: list[Mistake], folder: Path) -> list[tuple[Mistake, str, list[str]]]:
    """Each mistake with what is answered to it: exit code and stdout, then stderr in English and in Korean.

    All in one process, which is no longer root's: a file that nobody may read is one for it, too.
    """
    request = json.dumps([[each.typed, dict(each.environment)] for each in mistakes])
    words = [
        sys.executable,
        "-P",
        "-X",
        "utf8",
        "-c",
        "from tests.tools.mistakes import answer_all; answer_all()",
    ]
    done = subprocess.run(
        words, cwd=folder, input=request, capture_output=True, text=True, timeout=300, check=False,
        env={**_environment(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = []
    for mistake, outcomes in zip(mistakes, json.loads(done.stdout), strict=True):
        (code, out, english), (korean_code, korean_out, korean) = outcomes
        outcome = f"[{code}]{out}" if (code, out) == (korean_code, korean_out) else f"{outcomes}"
        answers.append((mistake, outcome, [english.rstrip("\n"), korean.rstrip("\n")]))
    return answers


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    home = str(folder / "home")
    return {
        **kept, "HOME": home, "KOVQA_HOME": home, "HF_HOME": home, "CUDA_VISIBLE_DEVICES": "", "CI": "true",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def answer_all() -> None:
    """The process: mistakes as JSON on stdin, [exit code, stdout, stderr] of both languages on stdout."""
    import typer.main

    from kovqa_cli.main import app

    # Typer builds the same parser for every command, from the functions' signatures: 30 ms each time. Help pages in
    # Korean would change it for good; no mistake is answered with one.
    build = typer.main.get_command
    parser = build(app)
    typer.main.get_command = lambda typer_app: parser if typer_app is app else build(typer_app)
    sys.modules["kovqa_cli.typer_texts"].translate_help_pages = lambda *_: None  # type: ignore[attr-defined]
    sys.modules["kovqa_cli.typer_texts"].refuse_empty_values(parser)
    sys.modules["kovqa_cli.typer_texts"].refuse_empty_values = lambda _: None  # type: ignore[attr-defined]
    sys.modules["__main__"].__package__ = None  # or it is called `python -m …`
    requests = json.load(sys.stdin)
    drop_capabilities()
    first, wire = dict(os.environ), sys.stdout
    answers = [
        [_answer(typed, {**first, **extra}, each) for each in ("en", "ko")] for typed, extra in requests
    ]
    json.dump(answers, wire)


def _answer(typed: str, environment: Mapping[str, str], language: str) -> list[object]:
    from kovqa_cli.main import run

    os.environ.clear()
    os.environ.update({"KOVQA_LANG": language, **environment})
    sys.argv = ["kovqa", *shlex.split(typed)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace") for _ in range(2))
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as left:
            code = left.code
        except BaseException:
            traceback.print_exc()
            code = 1
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode().replace(str(Path.cwd()), "HERE"))  # type: ignore[attr-defined]
    return [code, *texts]


def render(mistake: Mistake, outcome: str, answers: list[str]) -> str:
    """One mistake as it is recorded."""
    return "\n".join([f"$ {mistake.line}", outcome, *answers]) + "\n"
