"""Every command that writes: killed before any operation on a file, or at any moment, or started twice at once.

The same command again ends with the very bytes of an undisturbed one, and leaves nothing else: neither beside the
output, hidden files included, nor in the folder for temporary files. A sample runs with the other tests; `make soak`
kills everywhere.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kovqa_core.data.circular_rows import circular_rows
from kovqa_core.index.reader import IndexSplit, open_index

from tests.conftest import SMALL, Small, sets
from tests.download.server import File, running
from tests.download.test_command import PATH, WEIGHTS
from tests.models.vlm.llava_folders import CLIP, MERGED
from tests.speech.tiny_models import save_voice
from tests.tools.benchmark_index import write_benchmark_index
from tests.tools.forked_commands import Ended, ForkedCommands

pytestmark = pytest.mark.xdist_group("kill-everywhere")  # one server of forks

RANDOM_KILLS = int(os.environ.get("KOVQA_SOAK_KILLS", "20"))
PAIRS = int(os.environ.get("KOVQA_SOAK_PAIRS", "50"))
_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)?|\"mtime_ns\": \d+|\"pid\": \d+")
# Whose locks are those of another command in the table: two at once in `make soak` only.
_SAME_LOCK = (
    "index again",
    "tokenizer extend",
    "predict of images",
    "import",
    "profiles detect",
    "recipes new",
)
_HELD = ("is writing", "another run is training", "already running")
Words = Sequence[object]


@dataclass(frozen=True)
class Inputs:
    """What the commands read; none of it is written."""

    small: Small
    model: Path
    predictions: Path
    votes: tuple[Path, Path]
    archive: Path
    weights: Path
    repository: Path
    embedded: Path
    benchmarks: Path
    voice: Path
    tools: Path
    endpoint: str


# Name -> what is typed, in an empty folder. A list: what was typed there before, undisturbed, and what is typed now.
COMMANDS: dict[str, Callable[[Inputs], Words | list[Words]]] = {
    "index": lambda i: ("index", "aihub", "--root", i.small.root, "-o", "out"),
    "index again": lambda i: [
        ("index", "aihub", "--root", i.small.root, "-o", "out", "--min-count", 2),
        ("index", "aihub", "--root", i.small.root, "-o", "out"),
    ],
    "index --check": lambda i: ("index", "aihub", "--root", i.small.root, "--check"),
    "index of images": lambda i: ("index", "table", "--root", i.embedded, "-o", "out", "--check-images"),
    "index --as-upstream": lambda i: (
        "index", "aihub", "--root", i.small.root, "--as-upstream", "--tokenizer", i.small.tokenizer, "-o", "deep/out",
    ),
    "tokenizer train": lambda i: (
        "tokenizer", "train", i.small.root / "text.txt", "-o", "t.model", "--vocab-size", 500,
    ),
    "tokenizer extend": lambda i: (
        "tokenizer", "extend", i.small.tokenizer, "--with", i.small.root / "captions.txt", "-o", "t.model", "--pieces", 20,
    ),
    "predict": lambda i: (
        "predict", "--model", i.model, "--input", i.small.index / "val.jsonl", "-o", "out/p.jsonl",
    ),
    "predict of images": lambda i: ("predict", "--model", i.model, "--input", i.embedded, "-o", "p.csv"),
    "explain": lambda i: (
        "explain", "-i", max((i.small.root / "images").glob("*.png")), "--question", "뭐?", "--model", i.model,
        "-o", "out/heat.png",
    ),
    "predict aloud": lambda i: (
        "predict", "-i", max((i.small.root / "images").glob("*.png")), "--question", "뭐?", "--model", i.model,
        "--speak", "out.wav", "--speak-model", i.voice,
    ),
    "vote": lambda i: ("vote", *i.votes, "-o", "v.jsonl"),
    "evaluate": lambda i: (
        "evaluate", i.predictions, "--index", i.small.index / "val.jsonl", "--report", "r.html", "--log", "l.txt",
    ),
    "benchmark": lambda i: (
        "benchmark", "--model", i.model, "--model", max(i.model.glob("step-*")), "--sets", "bok-vqa,k-mmbench", "--data",
        i.benchmarks, "-o", "out",
    ),
    "sweep": lambda i: (
        "sweep", "-r", "tiny", "-p", "cpu", "--data", i.small.index, "--tokenizer", i.small.tokenizer, "-o", "out",
        *sets(*SMALL, "profile.launcher=sbatch"), "--grid", "optim.lr=1e-4,3e-4",
    ),
    "runs page": lambda i: ("runs", "page", i.model, "-o", "out/page.html"),
    "submit": lambda i: (
        "submit", "csv", "--predictions", i.predictions, "--sample", i.predictions.with_name("sample.csv"), "-o", "s.csv",
    ),
    "export": lambda i: ("export", i.model, "-o", "out"),
    "import": lambda i: ("import", MERGED, "--vision", CLIP, "-o", "out"),
    "profiles new": lambda i: ("profiles", "new", "mine", "--from", "cpu", *sets("threads=2")),
    "profiles detect": lambda i: ("profiles", "detect", "-o", "here.yaml"),
    "recipes new": lambda i: ("recipes", "new", "mine.yaml", "--from", "tiny", *sets("optim.steps=7")),
    "download": lambda i: ("download", "beit3_base_patch16_224", "--accept-licence"),
    "download --from archive": lambda i: ("download", "--from", i.archive, "-o", "out"),
    "download NAME --from file": lambda i: (
        "download", "beit3_base_patch16_224", "--from", i.weights, "--allow-hash-mismatch", "--accept-licence",
    ),
    "download NAME --from folder": lambda i: (
        "download", "hf:someone/model", "--from", i.repository, "--accept-licence", "-o", "out",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(small: Small, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    folder = tmp_path_factory.mktemp("입력 파일")
    rows = [json.loads(line) for line in (small.index / "val.jsonl").read_text("utf-8").splitlines()]
    votes = []
    for name, text in (("a", "예"), ("b", "아니요"), ("p", "예")):
        lines = (
            json.dumps({"id": row["id"], "answer": text, "score": 0.5}, ensure_ascii=False) for row in rows
        )
        votes.append(folder / f"{name}.jsonl")
        votes[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "sample.csv").write_text(
        "ID,answer\n" + "".join(f"{row['id']},?\n" for row in rows), encoding="utf-8"
    )
    images = sorted((small.root / "images").glob("*.png"))[:4]
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for path in images:
            archive.write(path, f"그림/{path.name}")
    (folder / "beit3_base_patch16_224.pth").write_bytes(b"PK\x03\x04" + b"w" * 1000)
    repository = folder / "model"
    repository.mkdir()
    (repository / "config.json").write_text("{}")
    (repository / "tokenizer.json").write_text("{}")
    with running() as server:
        server.routes[PATH] = File(WEIGHTS, rate=1e6)
        yield Inputs(
            small, trained, votes.pop(), (votes[0], votes[1]), folder / "a.zip",
            folder / "beit3_base_patch16_224.pth", repository, _embedded_table(folder / "e.parquet", images),
            _benchmarks(folder / "benchmarks", small),
            save_voice(folder / "voice", "".join(sorted({*"".join(open_index(small.index).answers())}))),
            _slurm_tools(folder / "bin"), server.url,
        )  # fmt: skip


def _embedded_table(path: Path, images: Sequence[Path]) -> Path:
    """A table with its images in it."""
    import pyarrow
    from pyarrow import parquet

    rows = [
        {
            "id": str(n),
            "image": {"bytes": image.read_bytes(), "path": image.name},
            "question": "뭐?",
            "answer": "예",
        }
        for n, image in enumerate(images)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _slurm_tools(folder: Path) -> Path:
    """A queue that takes every job, and knows of none afterwards."""
    folder.mkdir()
    for name, line in (("sbatch", "echo 7"), ("scontrol", ":"), ("squeue", ":"), ("sacct", ":")):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


def _benchmarks(folder: Path, small: Small) -> Path:
    """A folder of indexes with two published sets, one of them with choices in turns."""
    rows = list(IndexSplit(small.index / "val.jsonl"))
    write_benchmark_index(folder / "bok-vqa", "bok-vqa", rows, small.root / "images")
    answers = list(dict.fromkeys(next(iter(row.answers)) for row in rows))
    choosing = [replace(row, choices=tuple(dict.fromkeys((*row.answers, *answers)))[:3]) for row in rows[:6]]
    turns = [turn for row in choosing for turn in circular_rows(row)]
    write_benchmark_index(folder / "k-mmbench", "k-mmbench", turns, small.root / "images")
    return folder


class Stage:
    """An empty folder, always the same one, in which a command is disturbed."""

    def __init__(
        self, commands: ForkedCommands, folder: Path, words: Words | list[Words], inputs: Inputs
    ) -> None:
        self.commands, self.folder, self.inputs = commands, folder, inputs
        self.before, self.words = (words[:-1], words[-1]) if isinstance(words, list) else ([], words)
        self.clear()
        done = self.run()
        assert done.code == 0, done.stderr
        self.undisturbed, self.operations, self.seconds = self.contents(), len(done.operations), done.seconds
        assert self.operations

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "tmp").mkdir(parents=True)
        for words in self.before:
            assert self.run(words).code == 0

    def run(self, words: Words = (), **options: object) -> Ended:
        return self.run_at_once(1, words, **options)[0]

    def run_at_once(self, number: int, words: Words = (), **options: object) -> list[Ended]:
        environment = {
            "TMPDIR": str(self.folder / "tmp"),
            "KOVQA_HOME": str(self.folder / "home"),
            "KOVQA_GITHUB_ENDPOINT": self.inputs.endpoint,
            "PATH": f"{self.inputs.tools}{os.pathsep}{os.environ['PATH']}",
        }
        return self.commands.run_at_once(
            [words or self.words] * number, self.folder, environment=environment, **options
        )

    def contents(self) -> dict[str, bytes]:
        """Every file below the folder with its bytes, dates left out, and every folder."""
        return {
            path.relative_to(self.folder).as_posix(): b""
            if path.is_dir()
            else _TIMES.sub(b"TIME", path.read_bytes())
            for path in self.folder.rglob("*")
        }

    def kill(self, **options: object) -> None:
        """Kill it once, then let it end; see that nothing of the kill is left."""
        self.clear()
        killed = self.run(**options)
        done = self.run()
        left = f"{options}: killed at {killed.operations[-1:]}\n{done.stderr}"
        assert "Traceback" not in killed.stderr + done.stderr, left
        assert done.code == 0, left
        self.compare(left)

    def compare(self, left: str) -> None:
        contents = self.contents()
        names = {
            name
            for name in {*contents, *self.undisturbed}
            if contents.get(name) != self.undisturbed.get(name)
        }
        assert not names, f"{sorted(names)} differ; {left}"

    def two_at_once(self) -> int:
        """Two of it at the same moment; how many did it."""
        self.clear()
        ended = self.run_at_once(2)
        for each in ended:
            assert each.code == 0 or any(text in each.stderr for text in _HELD), each.stderr
        self.compare("".join(each.stderr for each in ended))
        return sum(each.code == 0 for each in ended)


@pytest.fixture
def stage(
    forked_commands: ForkedCommands, inputs: Inputs, tmp_path: Path, request: pytest.FixtureRequest
) -> Stage:
    return Stage(forked_commands, tmp_path / "자리", COMMANDS[request.param](inputs), inputs)


@pytest.mark.parametrize("stage", COMMANDS, indirect=True)
def test_a_killed_command_is_typed_again(stage: Stage, request: pytest.FixtureRequest) -> None:
    draw = random.Random(request.node.name)
    stage.kill(kill_at=draw.randint(1, stage.operations))
    if request.node.callspec.id not in _SAME_LOCK:
        assert stage.two_at_once() >= 1


@pytest.mark.soak
@pytest.mark.parametrize("stage", COMMANDS, indirect=True)
def test_a_command_killed_everywhere(stage: Stage, request: pytest.FixtureRequest) -> None:
    draw, problems = random.Random(request.node.name), list[str]()
    kills = [{"kill_at": number} for number in range(1, stage.operations + 2)]
    kills += [{"kill_after": draw.uniform(0.001, stage.seconds)} for _ in range(RANDOM_KILLS)]
    for kill in kills:
        try:
            stage.kill(**kill)
        except AssertionError as problem:
            problems.append(str(problem))
    print(
        f"\n{request.node.name}: {stage.operations} operations, {len(kills)} kills, {len(problems)} differences"
    )
    assert not problems, "\n\n".join(problems)


@pytest.mark.soak
@pytest.mark.parametrize("stage", COMMANDS, indirect=True)
def test_two_at_once(stage: Stage, request: pytest.FixtureRequest) -> None:
    both, problems = 0, list[str]()
    for _ in range(PAIRS):
        try:
            both += stage.two_at_once() == 2
        except AssertionError as problem:
            problems.append(str(problem))
    print(f"\n{request.node.name}: {PAIRS} pairs, both ended well in {both}, {len(problems)} differences")
    assert not problems, "\n\n".join(problems)
