"""kovqa predict --server: every row is asked once, retried while that helps, and no answer is lost."""

from __future__ import annotations

import io
import json
import math
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
from kovqa_core.answer.chat_completions import image_data_url
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.remote_client import ask_server, server_backend
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.evaluate.predictions_file import read_predictions
from PIL import Image

from tests.answer.conftest import settings
from tests.answer.server import KEY, MODEL, Vllm, answer_to, image_of
from tests.cli.test_predict import lines
from tests.conftest import Kovqa, Small, clean_env, command


def ask(url: str, table: Path, output: Path, concurrency: int = 4) -> int:
    job = AnswerJob(table, output)
    with server_backend(url, job.options, concurrency) as backend:
        return run_answer_job(job, backend).rows


def is_complete(output: Path) -> bool:
    predictions = lines(output)
    expected = [(f"Q{n}", answer_to(f"{n}번 그림은?"), n) for n in range(40)]
    return [(row["id"], row["answer"], row["메모"]) for row in predictions] == expected


def questions(*numbers: int) -> list[str]:
    return [f"{n}번 그림은?" for n in numbers]


# ------------------------------------------------------------------------------------ asking


def test_one_question(kovqa: Kovqa, vllm: Vllm, small: Small) -> None:
    image = next((small.root / "images").glob("*.png"))
    words = ["predict", "--server", vllm.url, "-i", image, "--question", "무슨 색인가요?"]
    done = kovqa(*words, **settings())
    assert (done.returncode, done.stdout) == (0, answer_to("무슨 색인가요?") + "\n"), done.stderr
    assert f"{MODEL}, confidence 70.0%" in done.stderr
    [body] = vllm.bodies
    assert image_of(body) == ("image/png", image.read_bytes())
    assert body["messages"][0]["content"][1]["text"] == "무슨 색인가요?\n한 단어나 짧은 구로 답하세요."
    assert (body["model"], body["temperature"], body["max_tokens"]) == (MODEL, 0, 16)
    assert vllm.paths == ["/v1/models", "/v1/chat/completions"]
    assert "authorization" not in vllm.headers[0]
    vllm.gives_logprobs = False
    document = json.loads(kovqa(*words, "--model", MODEL, "--json", **settings()).stdout)
    assert document == {"schema": 1, "answer": answer_to("무슨 색인가요?"), "score": None, "model": MODEL}
    assert vllm.paths[2:] == ["/v1/models", "/v1/chat/completions"]  # which says whether it is kovqa's


def test_how_a_server_is_asked(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    options = AnswerOptions(instruction="none", max_new_tokens=300)
    with server_backend(vllm.url, options, 4) as backend:
        run_answer_job(AnswerJob(table, tmp_path / "o.jsonl", options), backend)
        assert backend.fingerprint == {"served": MODEL, "instruction": "none", "max_tokens": 300}
    assert {body["max_tokens"] for body in vllm.bodies} == {300}
    assert all("\n" not in body["messages"][0]["content"][1]["text"] for body in vllm.bodies)


def test_no_torch_is_loaded(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    words = ["predict", "--server", vllm.url, "--input", str(table), "-o", str(tmp_path / "o.jsonl")]
    script = (
        f"import sys; sys.argv = ['kovqa', *{words!r}]\n"
        "from kovqa_cli.main import run\n"
        "try: run()\n"
        "finally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=clean_env(**settings()), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "transformers", "timm"} & set(done.stdout.split())
    assert is_complete(tmp_path / "o.jsonl")


def test_answers_come_in_any_order_and_end_in_the_tables(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    def seconds(question: str) -> float:
        """The first question is answered when others are; however slow this machine is."""
        deadline = time.monotonic() + 30
        while question == "0번 그림은?" and len(vllm.answered) < 8 and time.monotonic() < deadline:
            time.sleep(0.005)
        return 0.01

    vllm.seconds = seconds
    assert ask(vllm.url, table, tmp_path / "o.jsonl", 4) == 40
    assert vllm.most == 4
    assert vllm.answered.index("0번 그림은?") >= 8
    assert is_complete(tmp_path / "o.jsonl")
    assert {row["score"] for row in lines(tmp_path / "o.jsonl")} == {0.7}
    assert not list(tmp_path.glob("*.part*"))


def test_a_server_without_probabilities_gives_no_score(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    vllm.gives_logprobs = False
    ask(vllm.url, table, tmp_path / "o.jsonl")
    assert {row["score"] for row in lines(tmp_path / "o.jsonl")} == {None}
    assert read_predictions(tmp_path / "o.jsonl").confidence == {}


def test_the_wording_is_that_of_the_vlm_family(vllm: Vllm, small: Small) -> None:
    from kovqa_core.models.vlm.chat_template import user_message
    from kovqa_core.models.vlm.config import ModelConfig

    image = next((small.root / "images").glob("*.png"))
    for question in ("몇 마리인가요?", "How many?"):
        ask_server(vllm.url, image, question, AnswerOptions())
        ours = user_message(question, ModelConfig().instruction, Image.open(image))
        assert vllm.bodies[-1]["messages"][0]["content"][1] == ours[0]["content"][1]


# ---------------------------------------------------------------------------------- images


def save(path: Path, image: Image.Image, **how: object) -> Path:
    image.save(path, **how)
    return path


def test_pictures_go_as_they_are_or_as_a_jpeg_of_what_ours_see(tmp_path: Path) -> None:
    red, turned = Image.new("RGB", (40, 20), "red"), Image.Exif()
    turned[0x0112] = 6
    plain = [save(tmp_path / "a.jpg", red), save(tmp_path / "a.png", red.convert("L"))]
    other = [
        save(tmp_path / "turned.jpg", red, exif=turned),
        save(tmp_path / "alpha.png", red.convert("RGBA")),
        save(tmp_path / "palette.png", red.convert("P")),
        save(tmp_path / "deep.png", Image.new("I;16", (40, 20), 60000)),
        save(tmp_path / "a.bmp", red),
        save(tmp_path / "a.webp", red),
        tmp_path / "endless.jpg",
        tmp_path / "noted.png",
    ]
    (tmp_path / "endless.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2])
    png, exif = (tmp_path / "a.png").read_bytes(), b"eXIf\0\x08\0\2"  # no TIFF
    exif = struct.pack(">I", 4) + exif + struct.pack(">I", zlib.crc32(exif))
    (tmp_path / "noted.png").write_bytes(png[:33] + exif + png[33:])
    for path in [*plain, *other]:
        kind, data = image_of({"messages": [{"content": [{"image_url": {"url": image_data_url(path)}}]}]})
        assert (data == path.read_bytes()) == (path in plain), path
        with Image.open(io.BytesIO(data)) as sent:
            assert (f"image/{str(sent.format).lower()}", sent.getexif().get(0x0112, 1)) == (kind, 1)
            assert sent.size == ((20, 40) if path.stem == "turned" else (40, 20))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        image_data_url(tmp_path / "cut.jpg")


# ----------------------------------------------------------------------------------- patience


def test_what_time_mends_is_asked_again(
    vllm: Vllm, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOVQA_TIMEOUT_SECONDS", "0.5")
    faults = ["silent", "cut", "half", 500, 503, 429]
    vllm.faults = {question: [fault] for question, fault in zip(questions(*range(6)), faults, strict=True)}
    began = time.monotonic()
    ask(vllm.url, table, tmp_path / "o.jsonl")
    assert time.monotonic() - began >= 1  # as the 429 said
    assert is_complete(tmp_path / "o.jsonl")
    repeated = {question for question, n in Counter(vllm.requested).items() if n > 1}
    assert repeated == set(questions(*range(6)))


def test_a_server_that_stays_away_can_be_taken_up(
    kovqa: Kovqa, vllm: Vllm, table: Path, tmp_path: Path
) -> None:
    vllm.faults = {question: [500] * 9 for question in questions(*range(20, 40))}
    words = [
        "predict",
        "--server",
        vllm.url,
        "--input",
        table,
        "-o",
        tmp_path / "o.jsonl",
        "--concurrency",
        2,
    ]
    done = kovqa(*words, **settings())
    assert (done.returncode, done.stdout) == (5, "")
    assert "kovqa: id Q" in done.stderr
    assert ": 500 Internal Server Error" in done.stderr
    assert "run the same command again" in done.stderr
    assert not (tmp_path / "o.jsonl").exists()
    vllm.faults, before = {}, len(vllm.answered)
    done = kovqa(*words, **settings())
    assert done.returncode == 0, done.stderr
    assert is_complete(tmp_path / "o.jsonl")
    assert len(vllm.answered) - before <= 20 + 2


def test_nobody_there(table: Path, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"http://127\.0\.0\.1:9/v1/models"):
        ask("http://127.0.0.1:9/v1", table, tmp_path / "o", 2)


# ------------------------------------------------------------------------------------ refusals


def test_a_model_that_is_not_served(kovqa: Kovqa, vllm: Vllm, table: Path, tmp_path: Path) -> None:
    words = [
        "predict",
        "--server",
        vllm.url,
        "--model",
        "다른/것",
        "--input",
        table,
        "-o",
        tmp_path / "o.jsonl",
    ]
    done = kovqa(*words, **settings())
    assert (done.returncode, "id Q" in done.stderr) == (2, False)
    assert "404 The model `다른/것` does not exist [KOVQA-" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    vllm.models = ["a", "b"]
    with pytest.raises(SettingsError, match="serves 2 models: a, b"):
        ask(vllm.url, table, tmp_path / "o.jsonl")


def test_a_row_the_server_refuses_ends_it_and_is_named(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    vllm.refused = {"7번 그림은?": "maximum context length is 8 tokens"}
    with pytest.raises(DataError, match=r"id Q7: .*: 400 maximum context length is 8 tokens"):
        ask(vllm.url, table, tmp_path / "o.jsonl", 2)
    assert len(vllm.requested) <= 8 + 2 + 1
    vllm.refused = {}
    ask(vllm.url, table, tmp_path / "o.jsonl", 2)
    assert is_complete(tmp_path / "o.jsonl")


def test_a_picture_that_is_missing_is_named(vllm: Vllm, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": "가", "image": "없음.png", "question": "무엇?"}\n', "utf-8")
    with pytest.raises(DataError, match=r"id 가: image .*없음.png is missing"):
        ask(vllm.url, tmp_path / "t.jsonl", tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    ("url", "error"),
    [("127.0.0.1:8000", "not an http address"), (f"http://me:{KEY}@127.0.0.1/v1", "keys do not belong")],
)
def test_addresses_that_are_none(table: Path, tmp_path: Path, url: str, error: str) -> None:
    with pytest.raises(SettingsError, match=error) as caught:
        ask(url, table, tmp_path / "o.jsonl", 2)
    assert KEY not in str(caught.value)


def test_a_page_that_is_no_such_server(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    vllm.models = []
    with pytest.raises(SettingsError, match="serves 0 models"):
        ask(vllm.url, table, tmp_path / "o.jsonl")


# ---------------------------------------------------------------------------------------- keys


def test_the_key_reaches_the_server_and_nothing_else(
    kovqa: Kovqa, vllm: Vllm, table: Path, tmp_path: Path
) -> None:
    vllm.key = KEY
    words = ["predict", "--server", vllm.url, "--input", table, "-o", tmp_path / "o.jsonl"]
    for env in ({}, {"KOVQA_SERVER_KEY": KEY + "x"}):
        done = kovqa(*words, **settings(**env))
        assert (done.returncode, "KOVQA_SERVER_KEY" in done.stderr) == (2, True)
        assert KEY not in done.stderr + done.stdout
    done = kovqa(*words, **settings(KOVQA_SERVER_KEY=KEY))
    assert done.returncode == 0, done.stderr
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "server.key").touch(0o600)
    (tmp_path / "home" / "server.key").write_text(KEY)
    done = kovqa(*words, **settings())
    assert done.returncode == 0, done.stderr
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "server.key"]
    assert not any(KEY.encode() in path.read_bytes() for path in written)


# ------------------------------------------------------------------------------------- stopped


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_taken_up(vllm: Vllm, table: Path, tmp_path: Path, how: signal.Signals) -> None:
    """No row is asked twice but those that were on their way."""
    vllm.seconds = lambda question: 0.05
    output = tmp_path / "o.jsonl"
    words = ["predict", "--server", vllm.url, "--input", table, "-o", output, "--concurrency", "3"]
    process = subprocess.Popen(command(words), env=clean_env(**settings()), stderr=subprocess.PIPE)
    partial_file = Path(f"{output}.part")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        partial_file.exists() and partial_file.read_bytes().count(b"\n") > 12
    ):
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGINT else -how), err
    assert b"Traceback" not in err
    answered_ids = {json.loads(line)["id"] for line in partial_file.read_text("utf-8").splitlines()}
    assert 12 < len(answered_ids) < 40
    with partial_file.open("ab") as stream:
        stream.write('{"id": "찢어'.encode()[:-1])
    time.sleep(0.2)  # what was on its way arrives
    before = len(vllm.requested)
    done = subprocess.run(command(words), env=clean_env(**settings()), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(vllm.requested) - before == 40 - len(answered_ids)
    assert sum(Counter(vllm.requested).values()) - 40 <= 3
    assert is_complete(output)


def test_answers_of_another_model_are_not_mixed_in(vllm: Vllm, table: Path, tmp_path: Path) -> None:
    vllm.refused = {"30번 그림은?": "no"}
    with pytest.raises(DataError):
        ask(vllm.url, table, tmp_path / "o.jsonl", 1)
    vllm.models, vllm.refused = ["other"], {}
    with pytest.raises(SettingsError, match="holds answers of another model"):
        ask(vllm.url, table, tmp_path / "o.jsonl")
    assert len(lines(tmp_path / "o.jsonl.part")) == 30


def test_a_score_that_is_not_told_is_nan(vllm: Vllm, small: Small) -> None:
    vllm.gives_logprobs = False
    image = next((small.root / "images").glob("*.png"))
    assert math.isnan(ask_server(vllm.url, image, "무엇?", AnswerOptions()).answer.score)


def test_an_answer_keeps_its_letters_and_loses_half_a_syllable_at_its_budget(
    vllm: Vllm, small: Small
) -> None:
    image = next((small.root / "images").glob("*.png"))
    vllm.texts = {
        "1": (" OPEN  24H\n", "stop"),
        "2": ("고슴\ufffd\ufffd", "length"),
        "3": ("고\ufffd", "stop"),
        "4": ("\ufffd고", "length"),
    }
    answers = [ask_server(vllm.url, image, question, AnswerOptions()).answer.text for question in vllm.texts]
    assert answers == ["OPEN 24H", "고슴", "고\ufffd", "\ufffd고"]
