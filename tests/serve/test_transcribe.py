"""A spoken question: the route, and the page that records it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from kovqa_core.serve.server import guarded_app
from kovqa_core.speech.sound_file import read_sound

from tests.browser import PHONE, OpenPage, axe_violations, in_browser
from tests.serve.conftest import MODELS, OPTIONS, RepeatingModels, no_log, png
from tests.speech.test_sound_file import tone, wav
from tests.web.servers import serving

CLIENT = httpx2.Client(trust_env=False)
SOUND = wav(tone(440))


def transcribe(sound: bytes) -> str:
    """How long a sound is, in words; bytes that begin with fLaC need a library that is not there."""
    if sound.startswith(b"fLaC"):
        raise MachineError(message("speech.no-soundfile", "soundfile is not installed"))
    return f"{len(read_sound(sound, 16_000)) / 16_000:.1f}초인가요?"


@pytest.fixture(scope="module")
def hearing_url(repeating_models: RepeatingModels) -> Iterator[str]:
    """A server that hears; the one of `url` does not."""
    repeating_models.hold.set()
    with serving(guarded_app(MODELS, OPTIONS, "", no_log, transcribe)) as address:
        yield address


def test_a_sound_becomes_a_text(hearing_url: str) -> None:
    reply = CLIENT.post(f"{hearing_url}/v1/transcribe", files={"speech": ("q.wav", SOUND)})
    assert reply.status_code == 200
    assert reply.json()["text"] == "0.4초인가요?"
    document = CLIENT.get(f"{hearing_url}/openapi.json").json()
    responses = document["paths"]["/v1/transcribe"]["post"]["responses"]
    assert set(responses["200"]["content"]["application/json"]["schema"]["required"]) == set(reply.json())


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ({"speech": ("q.wav", b"")}, {}, 400, "speech.unreadable"),
        ({"speech": ("q.wav", SOUND[:500])}, {}, 400, "speech.unreadable"),
        ({"speech": ("q.wav", wav(tone(440) * 0))}, {}, 400, "speech.silent"),
        ({"speech": ("q.flac", b"fLaC")}, {}, 415, "serve.sound-format"),
        ({"speech": ("q.wav", SOUND)}, {"language": "ko"}, 400, "serve.one-sound"),
        ({"file": ("q.wav", SOUND)}, {}, 400, "serve.one-sound"),
        ({"a": ("q.wav", SOUND), "speech": ("q.wav", SOUND)}, {}, 400, "web.unreadable-request"),
        ({}, {"speech": "q.wav"}, 415, "serve.form-needed"),
    ],
)
def test_other_requests_are_refused(
    hearing_url: str, files: dict[str, tuple[str, bytes]], data: dict[str, str], status: int, code: str
) -> None:
    reply = CLIENT.post(f"{hearing_url}/v1/transcribe", files=files or None, data=data)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_a_server_without_a_speech_model(url: str) -> None:
    reply = CLIENT.post(f"{url}/v1/transcribe", files={"speech": ("q.wav", SOUND)})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "serve.no-speech-model")
    assert 'id="record"' not in CLIENT.get(url).text


@in_browser
def test_a_question_is_recorded_looked_over_and_asked(
    hearing_url: str, open_page: OpenPage, tmp_path: Path
) -> None:
    """The browser's own device for tests beeps once a second."""
    from playwright.sync_api import expect

    page = open_page(hearing_url, size=PHONE)
    tab = page.tab
    tab.context.grant_permissions(["microphone"])
    tab.reload()
    tab.wait_for_selector("[data-ready=yes]")
    assert axe_violations(tab) == []
    tab.click("#record")
    tab.wait_for_selector("#record[aria-pressed=true]")
    tab.wait_for_timeout(2000)
    tab.click("#record")
    expect(tab.locator("#question")).to_have_value(re.compile("초인가요"))
    assert 0.5 < float(tab.input_value("#question").removesuffix("초인가요?")) < 3
    assert tab.evaluate("document.activeElement.id") == "question"  # to be looked over
    assert tab.locator(".given").count() == 0, "nothing is asked by itself"

    (tmp_path / "a.wav").write_bytes(wav(tone(440, 44_100), rate=44_100, channels=2))
    tab.set_input_files("#speech-file", tmp_path / "a.wav")
    expect(tab.locator("#question")).to_have_value("0.4초인가요?")
    (tmp_path / "a.png").write_bytes(png())
    tab.set_input_files("#choose", tmp_path / "a.png")
    tab.press("#question", "Enter")
    assert "0.4초인가요?" in tab.inner_text(".given")

    for name, sound, said in (
        ("long.wav", wav(tone(440, seconds=31)), "30초보다 깁니다"),
        ("quiet.wav", wav(tone(440) * 0), "소리가 들리지 않습니다"),
        ("text.wav", b"no sound", "읽지 못합니다"),
    ):
        (tmp_path / name).write_bytes(sound)
        tab.set_input_files("#speech-file", tmp_path / name)
        expect(tab.locator("#question-error")).to_contain_text(said)
    assert axe_violations(tab) == []
    page.assert_clean()


@in_browser
def test_without_a_microphone_there_is_no_button(hearing_url: str, open_page: OpenPage) -> None:
    page = open_page(hearing_url)
    page.tab.add_init_script("navigator.mediaDevices.enumerateDevices = async () => []")
    page.tab.reload()
    page.tab.wait_for_selector("[data-ready=yes]")
    assert not page.tab.is_visible("#record")
    assert page.tab.locator("#speech-file").count() == 1
    page.tab.context.clear_permissions()
    page.assert_clean()
