"""kovqa submit dacon --upload: sent once, written down first, and the token nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.submit import dacon_upload as work
from kovqa_core.submit.dacon_upload import ledger_file, quota_today, read_ledger, upload_to_dacon

from tests.conftest import Kovqa, clean_env, command
from tests.submit.server import KST, TEAM, TOKEN, Dacon

WORDS = ["submit", "dacon", "--predictions", "p.jsonl", "--sample", "s.csv", "-o", "제출.csv", "--upload"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A submission."""
    path = tmp_path / "제출.csv"
    path.write_bytes("ID,answer\nTEST_00000,예\n".encode())
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """What the command needs to write a submission."""
    (tmp_path / "p.jsonl").write_text('{"id": "TEST_00000", "answer": "예"}\n', "utf-8")
    (tmp_path / "s.csv").write_text("ID,answer\nTEST_00000,0\n")
    return tmp_path


def states() -> list[str]:
    return [attempt.state for attempt in read_ledger()]


def settings() -> dict[str, str]:
    """What the fixtures have set, for processes of their own."""
    return {name: value for name, value in os.environ.items() if name.startswith("KOVQA_")}


def written(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -------------------------------------------------------------------------------- every answer


def test_an_accepted_file(dacon: Dacon, file: Path) -> None:
    attempt = upload_to_dacon(file, unicodedata.normalize("NFD", TEAM), "메모")
    [received] = dacon.received
    assert received.content == file.read_bytes()
    assert received.file_name == "제출.csv"
    assert received.fields == {
        "cpt_id": "236118", "team_name": TEAM, "file_name": "제출.csv", "memo": "메모", "api_token": TOKEN,
        "api_version": "2.0",
    }  # fmt: skip
    assert read_ledger() == [attempt]
    assert (attempt.state, attempt.sha256) == ("accepted", hashlib.sha256(file.read_bytes()).hexdigest())
    assert (quota_today().accepted, quota_today().unknown) == (1, 0)


@pytest.mark.parametrize(
    "mode", ["500", "html", "invalid_json", "unknown_message", "missing_data", "redirect", "cut", 77]
)
def test_what_is_not_in_the_table_is_unknown(dacon: Dacon, file: Path, mode: str | int) -> None:
    dacon.mode = mode
    with pytest.raises(AssetError, match="whether Dacon counted it is unknown") as caught:
        upload_to_dacon(file, TEAM)
    assert TOKEN not in str(caught.value)
    assert states() == ["unknown"]
    with pytest.raises(SettingsError, match="--force"):
        upload_to_dacon(file, TEAM)
    assert len(dacon.received) == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (1, "header"),
        (902, "not readable"),
        (3, "number of rows"),
        (904, "values"),
        (21, "type"),
        (9021, "text where"),
    ],
)
def test_a_refused_format(dacon: Dacon, file: Path, code: int, says: str) -> None:
    dacon.mode = code
    with pytest.raises(DataError, match=rf"{says}.*\(code {code}\)"):
        upload_to_dacon(file, TEAM)
    assert states() == ["wrong"]


def test_the_days_quota_and_the_next_day(dacon: Dacon, file: Path) -> None:
    dacon.per_day = 0
    with pytest.raises(AssetError, match="the day's submissions are used up") as caught:
        upload_to_dacon(file, TEAM)
    assert f"{quota_today().resets:%Y-%m-%d %H:%M %Z}" in caught.value.hint
    dacon.per_day = 1
    upload_to_dacon(file, TEAM)  # Dacon did not have it: no --force
    with pytest.raises(AssetError, match="the day's submissions"):
        upload_to_dacon(file, TEAM, force=True)
    tomorrow = datetime.now(KST) + timedelta(days=1)
    dacon.now = lambda: tomorrow
    upload_to_dacon(file, TEAM, force=True)
    dacon.in_all = 2
    with pytest.raises(AssetError, match="all submissions are used up"):
        upload_to_dacon(file, TEAM, force=True)
    assert states() == ["quota", "accepted", "quota", "accepted", "quota"]


def test_a_token_is_not_sent_in_clear(file: Path, monkeypatch: pytest.MonkeyPatch, dacon: Dacon) -> None:
    monkeypatch.setenv("KOVQA_DACON_ENDPOINT", "http://dacon.example")
    with pytest.raises(
        SettingsError, match=r"your Dacon token is not sent to dacon\.example over plain http"
    ):
        upload_to_dacon(file, TEAM)
    assert not states()


def test_a_service_that_is_not_there(file: Path, monkeypatch: pytest.MonkeyPatch, dacon: Dacon) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KOVQA_DACON_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(AssetError, match="nothing was sent"):
            upload_to_dacon(file, TEAM)
    monkeypatch.setenv("KOVQA_DACON_ENDPOINT", "dacon")
    with pytest.raises(AssetError, match="nothing was sent"):
        upload_to_dacon(file, TEAM)
    monkeypatch.setenv("KOVQA_DACON_ENDPOINT", dacon.url)
    upload_to_dacon(file, TEAM)
    assert states() == ["not sent", "not sent", "accepted"]


# --------------------------------------------------------------------------------- only once


def test_a_hang_after_receipt(dacon: Dacon, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dacon.mode = "hang"
    monkeypatch.setenv("KOVQA_TIMEOUT_SECONDS", "0.3")
    with pytest.raises(AssetError, match="unknown: no answer in time"):
        upload_to_dacon(file, TEAM)
    copy = file.with_name("copy.csv")
    copy.write_bytes(file.read_bytes())
    with pytest.raises(SettingsError, match=r"was sent to Dacon at .*: unknown \(no answer in time\)"):
        upload_to_dacon(copy, TEAM)
    assert len(dacon.received) == len(dacon.accepted) == 1
    assert states() == ["unknown"]
    dacon.mode = ""
    upload_to_dacon(copy, TEAM, force=True)
    assert (states(), quota_today().accepted, quota_today().unknown) == (["unknown", "accepted"], 1, 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_between_ledger_and_answer(
    dacon: Dacon, inputs: Path, kovqa: Kovqa, how: signal.Signals
) -> None:
    dacon.mode = "hang"
    process = subprocess.Popen(
        command(WORDS),
        cwd=inputs,
        env=clean_env(**settings()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert dacon.arrived.wait(60)
        assert TOKEN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert states() == ["unknown"]  # before any answer
    finally:
        process.send_signal(how)
        out, err = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert (b"unknown" in err) == (how == signal.SIGINT)
    assert TOKEN.encode() not in out + err + written(inputs)
    assert states() == ["unknown"]
    dacon.mode = ""
    again = kovqa(*WORDS, **settings())
    assert (again.returncode, "was sent to Dacon" in again.stderr, again.stdout) == (2, True, "")
    assert len(dacon.received) == 1
    assert kovqa(*WORDS, "--force", "-q", **settings()).stdout == "accepted\n"


def test_four_at_once_send_one(dacon: Dacon, file: Path) -> None:
    def attempt(_: int) -> str:
        try:
            return upload_to_dacon(file, TEAM).state
        except SettingsError:
            return "sent before"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == ["accepted", *["sent before"] * 3]
    assert (len(dacon.received), states()) == (1, ["accepted"])


def test_nothing_is_sent_when_it_cannot_be_written_down(
    dacon: Dacon, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger_file().parent.mkdir(parents=True)
    ledger_file().write_text('{"state": "accep')
    with pytest.raises(DataError, match=r"submissions\.jsonl is damaged"):
        upload_to_dacon(file, TEAM)
    ledger_file().unlink()
    ledger_file().mkdir()
    with pytest.raises(DataError, match="cannot read"):
        upload_to_dacon(file, TEAM)
    monkeypatch.setenv("KOVQA_HOME", str(file / "home"))
    with pytest.raises(SettingsError, match="cannot write"):
        upload_to_dacon(file, TEAM)
    assert not dacon.received


def test_other_contents_and_other_days_are_counted_apart(dacon: Dacon, file: Path) -> None:
    first = upload_to_dacon(file, TEAM)
    file.write_bytes(file.read_bytes() + "TEST_00001,아니요\n".encode())
    upload_to_dacon(file, TEAM)
    yesterday = replace(first, time=(datetime.fromisoformat(first.time) - timedelta(days=1)).isoformat())
    work._update_ledger(lambda attempts: [yesterday, *attempts[1:]])
    assert quota_today().accepted == 1
    assert quota_today().resets.astimezone(KST).strftime("%H:%M") == "00:00"
    assert timedelta(0) < quota_today().resets - datetime.now(KST) <= timedelta(days=1)


# ---------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("mode", ["html", "unknown_message", "cut", 3, ""])
def test_the_token_is_nowhere(dacon: Dacon, inputs: Path, kovqa: Kovqa, mode: str | int) -> None:
    dacon.mode = mode
    done = kovqa(*WORDS, KOVQA_DEBUG="1", PYTHONFAULTHANDLER="1", **settings())
    assert len(dacon.received) == 1, done.stderr
    assert ("Traceback" in done.stderr) == bool(mode)
    assert TOKEN not in done.stdout + done.stderr
    assert TOKEN.encode() not in written(inputs)


def test_the_token_is_in_no_log(dacon: Dacon, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        upload_to_dacon(file, TEAM)
    assert "POST" in caplog.text
    assert TOKEN not in caplog.text


def test_a_token_in_a_file(dacon: Dacon, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DACON_API_TOKEN")
    with pytest.raises(SettingsError, match=r"Dacon needs your API key\n.*DACON_API_TOKEN"):
        upload_to_dacon(file, TEAM)
    key = ledger_file().with_name("dacon.key")
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(TOKEN + "\n")
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        upload_to_dacon(file, TEAM)
    key.chmod(0o600)
    assert upload_to_dacon(file, TEAM).state == "accepted"
    assert [received.fields["api_token"] for received in dacon.received] == [TOKEN]


def test_a_token_cut_by_a_long_page_is_hidden_too() -> None:
    page = ("x" * 180 + TOKEN).encode()
    state, answer = work._classify_dacon_answer(502, page)
    assert (state, TOKEN[:8] in work._hide_token(answer, TOKEN)) == ("unknown", False)


# --------------------------------------------------------------------------------- the command


def test_the_receipt(dacon: Dacon, inputs: Path, kovqa: Kovqa) -> None:
    done = kovqa(*WORDS, "--json", "--memo", "첫 번째", TZ="UTC", **settings())
    printed = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (printed["schema"], printed["receipt"]["state"], printed["receipt"]["memo"]) == (
        1,
        "accepted",
        "첫 번째",
    )
    assert (printed["today"]["accepted"], printed["today"]["resets"][11:]) == (1, "15:00:00+00:00")
    assert (
        Path(printed["ledger"]).is_file() and Path(printed["path"]).read_bytes() == dacon.received[0].content
    )
    (inputs / "p.jsonl").write_text('{"id": "TEST_00000", "answer": "아니요"}\n', "utf-8")
    done = kovqa(*WORDS, TZ="UTC", **settings())
    assert done.stdout.startswith("accepted 20") and TEAM in done.stdout
    assert "since 00:00 KST: 2 accepted" in done.stderr and "15:00 UTC" in done.stderr


def test_without_upload_nothing_is_sent(dacon: Dacon, inputs: Path, kovqa: Kovqa) -> None:
    assert kovqa(*WORDS[:-1], "--force", "--memo", "x", **settings()).stdout == "제출.csv\n"
    assert not dacon.received
    assert not ledger_file().exists()


def test_what_is_missing_is_asked_for(dacon: Dacon, inputs: Path, kovqa: Kovqa, file: Path) -> None:
    with pytest.raises(SettingsError, match="which team"):
        upload_to_dacon(file, " ")
    done = kovqa("submit", "vqav2", *WORDS[2:])
    assert (done.returncode, "no uploads" in done.stderr) == (2, True)
    assert not dacon.received


def test_httpx_does_not_try_again_by_itself(dacon: Dacon) -> None:
    dacon.mode = "cut"
    with work.new_http_client() as client, pytest.raises(httpx2.RemoteProtocolError):
        client.post(dacon.url + "/submission", data={"a": "b"}, files={"file": ("x", b"y")})
    assert len(dacon.received) == 1
