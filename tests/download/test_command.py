"""`kovqa download` as a user runs it: killed, stopped, without network or disk, twice at once."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Kovqa, clean_env, command
from tests.download.server import Answer, File, Server, contents, running
from tests.download.sources import COMMIT, Hub, signed, zipped

NAME = "beit3_base_patch16_224"
PATH = f"/addf400/files/releases/download/beit3/{NAME}.pth"
WEIGHTS = contents(300_000, b"PK\x03\x04")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(endpoints: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts `kovqa download …` and leaves it running; nothing outlives the test."""
    begun: list[subprocess.Popen[str]] = []

    def run(*words: object, **options: object) -> subprocess.Popen[str]:
        line = command(["download", *words, "--accept-licence"])
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        begun.append(subprocess.Popen(line, env=clean_env(**endpoints), **{**pipes, **options}))  # type: ignore[call-overload]
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "assets"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def last_line(text: str) -> str:
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_twenty_kills_lose_nothing_that_had_arrived(server: Server, start: Start, home: Path) -> None:
    data = contents(4_500_000, b"PK\x03\x04", seed=7)
    signed(server, PATH, File(data, rate=4e6), good_for=1)
    objects, part = f"/objects{PATH}", home / f"{NAME}.pth.part"
    sizes, draw = [0], random.Random(20)
    for _ in range(20):
        process, request, served = start(NAME, "-q"), server.count(objects), server.served[objects]
        more = draw.randrange(300_000)
        wait_for(
            lambda a=request, s=served, m=more: server.count(objects) > a and server.served[objects] >= s + m
        )  # type: ignore[misc]
        process.kill()
        process.wait()
        wait_for(lambda: server.open == 0)
        sizes.append(part.stat().st_size)
    out, errors = start(NAME, "-q").communicate(timeout=60)
    assert (home / f"{NAME}.pth").read_bytes() == data, errors
    assert server.starts(objects) == sizes, "every attempt begins with the first byte that is not here"
    assert sizes == sorted(sizes) and sizes[-1] > 1_500_000
    assert server.served[objects] - len(data) <= 20 * 64_000, "only what was on the way is lost"
    assert out.strip().endswith(f"{NAME}.pth")
    assert {path.name for path in home.iterdir()} == {f"{NAME}.pth", f".{NAME}.pth.json"}


def test_ctrl_c_can_be_resumed(server: Server, start: Start, home: Path) -> None:
    server.routes[PATH] = File(WEIGHTS, rate=300_000)
    process = start(NAME)
    wait_for(lambda: server.served[PATH] > 50_000)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "" and "run the same command again" in last_line(errors)
    wait_for(lambda: server.open == 0)
    size = (home / f"{NAME}.pth.part").stat().st_size
    assert size > 0
    server.routes[PATH] = File(WEIGHTS)
    assert start(NAME).wait(30) == 0
    assert server.starts(PATH) == [0, size]


def test_two_commands_at_once_fetch_once(server: Server, start: Start, home: Path) -> None:
    server.routes[PATH] = File(WEIGHTS, rate=300_000)
    both = [start(NAME) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (home / f"{NAME}.pth").read_bytes() == WEIGHTS
    assert server.count(PATH) == 1
    assert sum("is writing" in errors and "waiting for it" in errors for _, errors in outputs) == 1
    assert outputs[0][0] == outputs[1][0] != ""


def test_a_full_disk_keeps_what_has_arrived(server: Server, start: Start, home: Path) -> None:
    server.routes[PATH] = File(WEIGHTS)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}
    process = start(NAME, "-q", **limit)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "larger than a file may be here" in last_line(errors) and "is kept" in errors
    assert (home / f"{NAME}.pth.part").stat().st_size == 100_000
    assert start(NAME).wait(30) == 0
    assert server.starts(PATH) == [0, 100_000]


def test_without_network_one_line_says_so(kovqa: Kovqa, endpoints: dict[str, str]) -> None:
    with running() as gone:
        pass
    done = kovqa(
        "download", NAME, "-q", "--accept-licence", **{**endpoints, "KOVQA_GITHUB_ENDPOINT": gone.url}
    )
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1
    assert gone.url in done.stderr and "run the same command again" in done.stderr


def test_a_real_address_is_out_of_reach_in_tests(kovqa: Kovqa, tmp_path: Path) -> None:
    env = {"KOVQA_HOME": str(tmp_path / "h"), "KOVQA_RETRY_SECONDS": "0.01"}
    done = kovqa("download", NAME, "--accept-licence", **env)
    assert done.returncode == 5
    assert "https://github.com" in done.stderr and "refused" in done.stderr, "the proxy that does not exist"


def test_settings_of_the_network_are_explained(kovqa: Kovqa, endpoints: dict[str, str]) -> None:
    words = ("download", NAME, "--accept-licence")
    for name, value in (("ALL_PROXY", "socks5://127.0.0.1:9"), ("KOVQA_TIMEOUT_SECONDS", "soon")):
        done = kovqa(*words, **{**endpoints, name: value})
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert kovqa(*words, "--files", "1,2", **endpoints).returncode == 2
    assert kovqa(*words, "--files", "one", **endpoints).returncode == 2


def test_terms_are_accepted_once(
    kovqa: Kovqa, server: Server, endpoints: dict[str, str], tmp_path: Path
) -> None:
    server.routes[PATH] = File(WEIGHTS)
    server.routes[PATH.replace("base", "large")] = File(WEIGHTS)
    done = kovqa("download", NAME, **endpoints)
    assert done.returncode == 2
    assert "MIT" in done.stderr and "--accept-licence" in done.stderr and server.requests == []
    assert kovqa("download", NAME, "--accept-licence", **endpoints).returncode == 0
    entry = json.loads((tmp_path / "home" / "licences.json").read_text())["beit3"]
    assert entry["accepted"][:2] == "20" and "MIT" in entry["licence"]
    assert kovqa("download", NAME.replace("base", "large"), **endpoints).returncode == 0


def test_no_token_is_shown_or_written(
    kovqa: Kovqa, server: Server, endpoints: dict[str, str], tmp_path: Path
) -> None:
    token = "hf_asecretthatmustnotshow"
    with running() as cdn:
        hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
        hub.needs = token
        file = hub.large("model.pth", WEIGHTS, good_for=99)
        file.cut = [100_000, *[0] * 9]
        broken = kovqa("download", "kobeit3", "--accept-licence", HF_TOKEN=token, **endpoints)
        assert broken.returncode == 5
        written = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert "model.pth.part.json" in {p.name for p in written}
        assert not [p for p in written if token.encode() in p.read_bytes()]
        file.cut.clear()
        whole = kovqa("download", "kobeit3", HF_TOKEN=token, KOVQA_DEBUG="1", **endpoints)
        assert whole.returncode == 0
        refused = kovqa("download", "kobeit3", "-o", "elsewhere", HF_TOKEN=token[:-1], **endpoints)
        assert refused.returncode == 5
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and token[:-1].encode() in p.read_bytes()]
    for done in (broken, whole, refused):
        assert token[:-1] not in done.stdout + done.stderr


def test_what_there_is(kovqa: Kovqa, server: Server, endpoints: dict[str, str], tmp_path: Path) -> None:
    shown = kovqa("download", "--list", COLUMNS="200", **endpoints).stdout
    assert "coco-train2014" in shown and "13.5 GB" in shown and "aihub-104" in shown
    details = kovqa("download", "--list", "karpathy", **endpoints).stdout
    assert "reported missing (404)" in details and "--from FILE" in details
    listing = json.loads(kovqa("download", "--list", "beit3.spm", "--json", **endpoints).stdout)
    assert listing["schema"] == 1 and listing["assets"][0]["files"][0]["sha256"].startswith("6f5e2fef")
    done = kovqa("download", "coco-train", **endpoints)
    assert done.returncode == 2 and "did you mean coco-train2014" in done.stderr
    assert kovqa("download", **endpoints).returncode == 2
    assert server.requests == []


def test_a_file_by_hand_as_json(kovqa: Kovqa, endpoints: dict[str, str], tmp_path: Path) -> None:
    local_file = tmp_path / "open.zip"
    local_file.write_bytes(zipped({"train.csv": b"ID,image_id,question,answer\n"}))
    words = ("download", "dacon-236118", "--from", local_file, "-o", "자료", "--accept-licence", "--json")
    done = kovqa(*words, **endpoints)
    assert done.returncode == 0, done.stderr
    [path] = json.loads(done.stdout)["assets"][0]["paths"]
    assert (tmp_path / path / "train.csv").read_text().startswith("ID,")


def test_a_dead_link_explains_itself(kovqa: Kovqa, server: Server, endpoints: dict[str, str]) -> None:
    server.routes["/people/karpathy/deepimagesent/caption_datasets.zip"] = Answer(
        404, b"<title>Not here</title>"
    )
    done = kovqa("download", "karpathy", "-q", "--accept-licence", **endpoints)
    assert done.returncode == 5
    assert "404" in done.stderr and "kovqa download karpathy --from FILE" in done.stderr


def test_a_hub_of_ones_own_is_asked_for_the_repository_and_nothing_else(
    kovqa: Kovqa, server: Server, endpoints: dict[str, str], tmp_path: Path
) -> None:
    """Its library would also ask for a list of tools to name in its User-Agent, and write it to HF_HOME."""
    Hub(server, server, "SeanForHim/KoBEiT3").large("smp.model", contents(5000))
    settings = {name: value for name, value in endpoints.items() if name != "KOVQA_HUB_ENDPOINT"}
    settings |= {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_atokenofthetests",
    }
    settings |= {"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    done = kovqa("download", "kobeit3", "--accept-licence", "-o", "weights", **settings)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "weights" / "smp.model").read_bytes() == contents(5000)
    api, file = (
        "/api/models/SeanForHim/KoBEiT3/revision/main",
        f"/SeanForHim/KoBEiT3/resolve/{COMMIT}/smp.model",
    )
    assert [request.path for request in server.requests] == [api, file, "/cdn/smp.model"]
    assert server.requests[0].headers["authorization"] == "Bearer hf_atokenofthetests"
    assert server.requests[0].headers["user-agent"].startswith("kovqa/")
    assert not (tmp_path / "hf").exists()
    assert "hf_atokenofthetests" not in done.stdout + done.stderr


def test_completion_knows_assets_and_stays_light() -> None:
    env = {"_KOVQA_COMPLETE": "complete_bash", "COMP_WORDS": "kovqa download kowiki", "COMP_CWORD": "2"}
    script = (
        "import sys; sys.argv=['kovqa']\nfrom kovqa_cli.main import run\ntry: run()\n"
        "finally: sys.stderr.write(' '.join(m for m in sys.modules if '.' not in m))"
    )
    line = [*command([])[:2], "-c", script]
    done = subprocess.run(line, env=clean_env(**env), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["kowiki", "kowiki-multistream", "kowiki-content"]
    assert not {"httpx2", "yaml", "rich", "numpy"} & set(done.stderr.split())
