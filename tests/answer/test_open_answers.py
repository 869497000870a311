"""Answers of many sentences, as judged benchmarks want them: no short one is asked for, and none is cut off early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kovqa_core.answer.chat_completions import _chat_request
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import load_model
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Example
from kovqa_core.data.question_prompts import DEFAULT_MAX_NEW_TOKENS, OPEN_MAX_NEW_TOKENS
from kovqa_core.models.vlm.family import set_decoding
from PIL import Image

OPEN = DecodingOptions(open_ended=True)


def test_a_model_here_writes_as_long_as_it_wants(tiny_vlm: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = load_model(AnswerOptions(tiny_vlm("qwen3_vl"), decoding=OPEN))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")

    def prompt_and_tokens() -> tuple[str, int]:
        item = loaded.processor.encode(Example("1", "a.png", "무엇인가요?"), tmp_path, train=False, rng=None)
        return str(item.turns), loaded.model.generator.max_new_tokens  # type: ignore[attr-defined]

    prompt, tokens = prompt_and_tokens()
    assert ("짧은" in prompt, tokens) == (False, OPEN_MAX_NEW_TOKENS)
    set_decoding(loaded.model, loaded.processor, DecodingOptions())  # type: ignore[arg-type]
    prompt, tokens = prompt_and_tokens()
    assert ("짧은" in prompt, tokens) == (True, DEFAULT_MAX_NEW_TOKENS)


def test_a_server_is_asked_for_as_much(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = Example("1", "a.png", "무엇인가요?", choices=("가", "나"))
    body = _chat_request("m", row, tmp_path, OPEN)
    assert (body["max_tokens"], body["messages"][0]["content"][1]["text"]) == (1024, "무엇인가요?")  # type: ignore[index]
