"""LLaVA v1: prompts, token ids, labels and pictures as the original makes them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.models.vlm import chat_template
from PIL import Image
from safetensors.torch import load_file

from tests import parity
from tests.models.vlm.llava_folders import Converted, converted

RUNS = ("im_start_end", "plain_image")
CASES = {
    (run, case["name"]): case
    for run in RUNS
    for case in parity.json_of("conversations.json", "llava")[run]["training"]
}
QUESTIONS = [
    (run, case) for run in RUNS for case in parity.json_of("conversations.json", "llava")[run]["inference"]
]
# A literal `</s>` in an answer: the original starts its text after it with one blank more.
DEVIATES = {"answer_has_eos"}
# The original lets a question's own marks act; kovqa takes them as text.
MARKED = {"literal_im_start", "answer_has_eos"}
# The original cuts rows at 128 tokens; kovqa leaves rows that are too long out.
CUT = {"long_text_only"}
# The original renders an empty answer as no answer; kovqa does not learn from it.
EMPTY = {"empty_answer"}
# The original throws these rows away with a warning; kovqa learns from them, or refuses an empty answer.
UNLABELLED = {"empty_answer", "answer_has_role", "answer_has_eos"}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Converted]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, converted(f"train_{request.param}/llava-tiny", folder)


def turns(conversation: list[dict[str, str]]) -> list[chat_template.ChatTurn]:
    """LLaVA's conversation as a chat: the picture first in its turn, however often it is named."""
    if conversation[0]["from"] != "human":
        conversation = conversation[1:]
    found = []
    for turn in conversation:
        text, asks = turn["value"], turn["from"] == "human"
        content: list[dict[str, Any]] = []
        if asks and "<image>" in text:
            content.append({"type": "image", "image": Image.new("RGB", (56, 56))})
            text = text.replace("<image>", "").strip()
        found.append(
            {"role": "user" if asks else "assistant", "content": [*content, {"type": "text", "text": text}]}
        )
    return found


def unmarked(ids: list[int], placeholder: int) -> list[int]:
    """Ids with LLaVA's number for a picture."""
    return [-200 if token == placeholder else token for token in ids]


def rendered(llava: Converted, chat: list[chat_template.ChatTurn], **settings: Any) -> Any:
    return llava.processor.tokenizer.apply_chat_template(
        chat, chat_template=llava.processor.chat_template, **settings
    )


def test_every_recorded_conversation_has_the_originals_prompt_and_ids(run: tuple[str, Converted]) -> None:
    name, llava = run
    placeholder = llava.net.config.image_token_id
    differing = []
    for case in (case for (of, _), case in CASES.items() if of == name):
        chat = turns(case["conversations"])
        text = rendered(llava, chat, tokenize=False).removeprefix("<s>").replace("<im_patch>", "<image>")
        ids = unmarked(rendered(llava, chat)["input_ids"], placeholder)
        if ids != case["input_ids"]:
            differing.append(case["name"])
            assert case["name"] not in CUT or ids[: len(case["input_ids"])] == case["input_ids"]
        assert text == case["prompt"] or case["name"] in EMPTY, case["name"]
    assert set(differing) == DEVIATES | CUT | EMPTY


def test_every_recorded_question_has_the_originals_ids(run: tuple[str, Converted]) -> None:
    name, llava = run
    from kovqa_core.models.vlm.convert_llava import SYSTEM_PROMPTS

    for case in (case for of, case in QUESTIONS if of == name):
        if case["question"] != case["question"].strip():
            continue  # the original trims questions when it trains, not when it answers; kovqa trims both
        chat = turns([{"from": "human", "value": "<image>\n" + case["question"]}])
        told = llava.processor.chat_template.replace(SYSTEM_PROMPTS["v1"], SYSTEM_PROMPTS[case["conv_mode"]])
        ids = llava.processor.tokenizer.apply_chat_template(
            chat, chat_template=told, add_generation_prompt=True
        )
        assert unmarked(ids["input_ids"], llava.net.config.image_token_id) == case["input_ids"]


def test_labels_are_the_originals(run: tuple[str, Converted]) -> None:
    """The tokens after every prompt, up to the end of its answer; the original's warnings aside."""
    name, llava = run
    for case in (case for (of, _), case in CASES.items() if of == name):
        if case["name"] in UNLABELLED | MARKED:
            continue
        chat = turns(case["conversations"])
        labels = [-100] * len(case["input_ids"])
        for number, turn in enumerate(chat):
            if turn["role"] != "assistant":
                continue
            target = chat_template.tokenize_answer(
                llava.processor, chat[:number], turn["content"][0]["text"], {2}
            )
            start = len(rendered(llava, chat[: number + 1])["input_ids"]) - len(target.ids)
            labels[start : start + target.counted] = target.ids[: target.counted]
        longest = len(case["labels"]) if case["name"] in CUT else None
        assert labels[:longest] == case["labels"], case["name"]


def test_what_the_original_throws_away_it_throws_away_without_need(run: tuple[str, Converted]) -> None:
    """Its answers have all labels masked; here they are learned."""
    name, llava = run
    for case in ("answer_has_role", "answer_has_eos"):
        recorded = CASES[name, case]
        assert "mismatch" in recorded["warning"]
        chat = turns(recorded["conversations"])
        target = chat_template.tokenize_answer(llava.processor, chat[:1], chat[1]["content"][0]["text"], {2})
        assert target.ids[target.counted - 1] == 2
        said = llava.processor.tokenizer.decode(target.ids[: target.counted - 1])
        assert re.sub(r"\s+", " ", said.strip()) == recorded["conversations"][1]["value"]


def test_pictures_are_the_originals() -> None:
    """Cut out of the middle, or padded to a square as in LLaVA 1.5: within two grey levels of 255."""
    import transformers

    recorded = load_file(parity.path("pixel_values.safetensors", "llava"))
    from kovqa_core.files import read_json

    given = read_json(parity.path("base/openai/clip-tiny-patch14/preprocessor_config.json", "llava"))
    given.pop("feature_extractor_type")
    for name, expected in recorded.items():
        file, _, shape = name.partition("|")
        pictures = transformers.LlavaImageProcessorPil(**given, do_pad=shape == "pad")
        image = Image.open(parity.path(f"images/{file}", "llava")).convert("RGB")
        found = torch.as_tensor(np.asarray(pictures(image)["pixel_values"][0]))
        parity.close(found, expected, 0.03, name)
