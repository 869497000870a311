"""A small Korean data set, its index and tokenizer; and the command line, run as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import browser, open_page  # noqa: F401 - fixtures for every test
from tests.tools.forked_commands import ForkedCommands
from tests.tools.mini_hosts import MiniHosts, possible
from tests.tools.mini_slurm import MiniSlurm

os.environ["KOVQA_LANG"] = "en"  # tests read English, also on a Korean machine

# A shell's background job ignores Ctrl-C, and so would every process a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A model that learns nothing much, fast: 2 layers of width 32 on pictures of 32 pixels.
SMALL = (
    "model.size=custom", "model.custom=[32, 2, 2, 64]", "model.image_size=32", "model.max_text=24",
    "optim.global_batch=8", "optim.warmup_steps=2", "log_every=1", "profile.threads=1",
)  # fmt: skip

# Both encoders of a fusion model as small, from nothing.
FUSION = (
    "model.random_init=true", "model.image_size=32", "model.max_text=24", "model.hidden_size=48",
    "model.question_config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}",
    "model.picture_config={architecture: resnet50, layers: [1, 1, 1, 1], channels: [8, 12, 16, 24]}",
    "optim.global_batch=8", "optim.warmup_epochs=0", "log_every=1", "profile.threads=1",
)  # fmt: skip

# A few steps of a tiny vision language model.
VLM = (
    "optim.global_batch=4", "optim.steps=4", "optim.warmup_steps=1", "eval.every_steps=99", "log_every=1",
    "model.max_pixels=1600", "model.max_new_tokens=4", "profile.threads=1", "profile.micro_batch={default: 2}",
)  # fmt: skip


@dataclass(frozen=True)
class Small:
    """Paths of the small data set."""

    root: Path
    index: Path
    tokenizer: Path
    captions: Path  # index of captions


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """24 drawn scenes to learn from, 9 held out; index and tokenizer."""
    from kovqa_core.demo.dataset import write_demo_dataset
    from kovqa_core.index.build import build_index
    from kovqa_core.tokenizer.train import train_tokenizer

    folder = tmp_path_factory.mktemp("자료 폴더")  # a blank and Hangul in every path
    write_demo_dataset(folder / "raw", 24, 9, 3)
    build_index("aihub", folder / "raw", None, folder / "index")
    train_tokenizer([folder / "raw" / "text.txt"], folder / "tokenizer.model", 500)
    captions = folder / "captions"
    build_index("table", folder / "raw" / "captions.jsonl", folder / "raw" / "images", captions)
    return Small(folder / "raw", folder / "index", folder / "tokenizer.model", captions)


@pytest.fixture(scope="session")
def tiny_vlm(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny vision language model of a type of transformers, made once."""
    from kovqa_core.index.reader import open_index

    from tests.models.vlm.tiny_vlm import write_tiny_vlm

    folder = tmp_path_factory.mktemp("작은 모델")
    texts = tuple(f"{e.question} {' '.join(e.answers)}" for e in open_index(small.index).split("train"))

    def make(model_type: str) -> Path:
        path = folder / model_type
        return path if path.is_dir() else write_tiny_vlm(model_type, path, texts)

    return make


# The user's own folder: runs whose settings can run code are remembered there (kovqa_core.runs.consent).
_TEST_HOME = Path(tempfile.gettempdir()) / f"kovqa-test-home-{os.getuid()}"
Kovqa = Callable[..., subprocess.CompletedProcess[str]]


def command(words: Sequence[object]) -> list[str]:
    """A kovqa command as its own process."""
    return [sys.executable, "-P", "-m", "kovqa_cli", *map(str, words)]


def sets(*assignments: str) -> list[str]:
    """--set options."""
    return [word for assignment in assignments for word in ("--set", assignment)]


def training(small: Small, *assignments: str) -> list[object]:
    """`train …` of a small model on the small data set, with some settings changed."""
    files = ["--data", small.index, "--tokenizer", small.tokenizer]
    return ["train", "-r", "tiny", "-p", "cpu", *files, *sets(*SMALL, *assignments)]


def clean_env(**extra: str) -> dict[str, str]:
    """The environment without anything of kovqa, torch or torchrun in it, and a home folder of kovqa's for tests."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("KOVQA_", "PYTEST_", "TORCHELASTIC", "PYTORCH_"))
    }
    return {**kept, "CI": "true", "KOVQA_HOME": str(_TEST_HOME), "KOVQA_LANG": "en", **extra}


# Variables that Python or a library reads when it is loaded: a fork of what is loaded already would not see them.
_READ_AT_START = ("PYTHON", "HF_", "TRANSFORMERS_", "LC_", "LANG", "OMP_", "LD_")


@pytest.fixture(scope="session")
def forked_commands() -> Iterator[ForkedCommands]:
    """One process that has loaded all libraries; commands are forks of it."""
    with ForkedCommands() as commands:
        yield commands


@pytest.fixture
def kovqa(tmp_path: Path, request: pytest.FixtureRequest) -> Kovqa:
    """Runs `kovqa …` in an empty folder and returns what came back.

    A fork where that shows the same: it takes a tenth of a second in place of some. `kovqa_process` is a process.
    """

    def run(*words: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        if any(name.startswith(_READ_AT_START) for name in env):
            return run_process(*words, cwd=cwd, **env)
        commands: ForkedCommands = request.getfixturevalue("forked_commands")
        environment = {name: os.fspath(value) for name, value in {"KOVQA_HOME": _TEST_HOME, **env}.items()}
        done = commands.run(words, cwd, environment=environment, seconds=300, inside="")
        assert not done.timed_out
        return subprocess.CompletedProcess(list(map(str, words)), done.code, done.stdout, done.stderr)

    return run


@pytest.fixture
def kovqa_process(tmp_path: Path) -> Kovqa:
    """Runs `kovqa …` as a process of its own, as a shell does."""

    def run(*words: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return run_process(*words, cwd=cwd, **env)

    return run


def run_process(*words: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command as its own process, to its end."""
    return subprocess.run(
        command(words),
        cwd=cwd,
        env=clean_env(**env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def trained(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few steps."""
    folder = tmp_path_factory.mktemp("run") / "r"
    words = training(small, "optim.steps=6", "eval.every_steps=6")
    done = run_process(*words, "-o", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def mark() -> str:
    """A variable, NAME=VALUE, by which a test finds the processes that it started."""
    return f"KOVQA_TEST={uuid.uuid4().hex}"


def left_out(say: str) -> None:
    """What a test needs is not here: on CI it fails, elsewhere it is left out with a word."""
    if os.environ.get("CI", "") not in ("", "false"):
        pytest.fail(say, pytrace=False)
    pytest.skip(say)


@pytest.fixture(scope="module")
def cluster() -> Iterator[MiniSlurm]:
    """A real SLURM of two nodes, `n1` and `n2`, with four pretended GPUs each; partitions `main` and `urgent`.

    Nodes are network namespaces for root, else two daemons on loopback (`cluster.mode`), which is enough
    to ask SLURM something, not to train across them.
    """
    programs = ("slurmctld", "slurmd", "srun", "munged", "ip", "nsenter")
    if missing := [
        name for name in programs if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    ]:
        left_out(
            f"no {', '.join(missing)} here: "
            "apt-get install slurmctld slurmd slurm-client munge iproute2 util-linux"
        )
    # A short path, because sockets lie below it.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder,
        MiniSlurm(folder, gpus=4) as slurm,
    ):
        yield slurm


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniHosts]:
    """Two hosts, `h1` and `h2`, with addresses, names and processes of their own; files are shared."""
    if not shutil.which("ip", path=os.environ["PATH"] + ":/usr/sbin") or not possible():
        left_out(
            "hosts need root, util-linux and iproute2: run these tests as root, in a container that may unshare"
        )
    with MiniHosts(tmp_path_factory.mktemp("hosts"), ("h1", "h2")) as net:
        yield net
