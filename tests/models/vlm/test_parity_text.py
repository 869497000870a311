"""LLaVA v1: prompts, token ids, labels and images as the original makes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.models.vlm import chat_template
from kovqa_core.models.vlm.hf_types import ChatTurn, ContentBlock
from PIL import Image
from safetensors.torch import load_file

from tests import parity
from tests.models.vlm.llava_folders import RUNS, VISION, Converted, converted

CASES = {
    (run, case["name"]): case
    for run in RUNS
    for case in parity.json_of("conversations.json", "llava")[run]["training"]
}
QUESTIONS = [
    (run, case) for run in RUNS for case in parity.json_of("conversations.json", "llava")[run]["inference"]
]
SPECIAL_TOKENS = ("<s>", "</s>", "<im_start>", "<im_end>", "<im_patch>")


def names_where(condition: Callable[[str, Any], bool]) -> set[str]:
    """Names of recorded conversations that fulfil a condition (run, conversation)."""
    return {name for (run, name), case in CASES.items() if condition(run, case)}


def answers_of(case: Any) -> list[str]:
    return [turn["value"] for turn in case["conversations"] if turn["from"] == "gpt"]


def is_cut(run: str, case: Any) -> bool:
    longest = parity.json_of("conversations.json", "llava")[run]["model_max_length"]
    return not case["has_image"] and len(case["input_ids"]) == longest


# A literal `</s>` in an answer: the original starts its text after it with one blank more.
DEVIATES = names_where(lambda run, case: any("</s>" in answer for answer in answers_of(case)))
# In the original special tokens in a question act as tokens; kovqa takes them as text.
WITH_SPECIAL_TOKENS = names_where(
    lambda run, case: any(
        token in turn["value"] for turn in case["conversations"] for token in SPECIAL_TOKENS
    )
)
# The original cuts rows at its longest; kovqa leaves rows that are too long out.
CUT = names_where(is_cut)
# The original renders an empty answer as no answer; kovqa does not learn from it.
EMPTY = names_where(lambda run, case: not all(answers_of(case)))
# The original throws these rows away with a warning; kovqa learns from them, or refuses an empty answer.
UNLABELLED = names_where(lambda run, case: "mismatch" in (case["warning"] or ""))


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Converted]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, converted(f"train_{request.param}/llava-tiny", folder)


def turns(conversation: list[dict[str, str]]) -> list[ChatTurn]:
    """LLaVA's conversation as a chat: the image first in its turn, however often it is named."""
    if conversation[0]["from"] != "human":
        conversation = conversation[1:]
    chat: list[ChatTurn] = []
    for turn in conversation:
        text, is_question = turn["value"], turn["from"] == "human"
        content: list[ContentBlock] = []
        if is_question and "<image>" in text:
            content.append({"type": "image", "image": Image.new("RGB", (VISION["image_size"],) * 2)})
            text = text.replace("<image>", "").strip()
        chat.append(
            {
                "role": "user" if is_question else "assistant",
                "content": [*content, {"type": "text", "text": text}],
            }
        )
    return chat


def with_llava_image_id(ids: list[int], placeholder: int) -> list[int]:
    """Ids with LLaVA's number for an image."""
    return [-200 if token == placeholder else token for token in ids]


def render(llava: Converted, chat: list[ChatTurn], **settings: Any) -> Any:
    return llava.processor.tokenizer.apply_chat_template(
        chat, chat_template=llava.processor.chat_template, **settings
    )


def test_every_recorded_conversation_has_the_originals_prompt_and_ids(run: tuple[str, Converted]) -> None:
    name, llava = run
    placeholder = llava.net.config.image_token_id
    differing = []
    for case in (case for (of, _), case in CASES.items() if of == name):
        chat = turns(case["conversations"])
        text = render(llava, chat, tokenize=False).removeprefix("<s>").replace("<im_patch>", "<image>")
        ids = with_llava_image_id(render(llava, chat)["input_ids"], placeholder)
        if ids != case["input_ids"]:
            differing.append(case["name"])
            assert case["name"] not in CUT or ids[: len(case["input_ids"])] == case["input_ids"]
        assert text == case["prompt"] or case["name"] in EMPTY, case["name"]
    assert set(differing) == DEVIATES | CUT | EMPTY


def test_every_recorded_question_has_the_originals_ids(run: tuple[str, Converted]) -> None:
    name, llava = run
    from kovqa_core.models.vlm.llava_processor import SYSTEM_PROMPTS

    for case in (case for of, case in QUESTIONS if of == name):
        if case["question"] != case["question"].strip():
            continue  # the original trims questions when it trains, not when it answers; kovqa trims both
        chat = turns([{"from": "human", "value": "<image>\n" + case["question"]}])
        template = llava.processor.chat_template.replace(
            SYSTEM_PROMPTS["v1"], SYSTEM_PROMPTS[case["conv_mode"]]
        )
        ids = llava.processor.tokenizer.apply_chat_template(
            chat, chat_template=template, add_generation_prompt=True
        )
        assert with_llava_image_id(ids["input_ids"], llava.net.config.image_token_id) == case["input_ids"]


def test_labels_are_the_originals(run: tuple[str, Converted]) -> None:
    """The tokens after every prompt, up to the end of its answer; the original's warnings aside."""
    name, llava = run
    for case in (case for (of, _), case in CASES.items() if of == name):
        if case["name"] in UNLABELLED | WITH_SPECIAL_TOKENS:
            continue
        chat = turns(case["conversations"])
        labels = [-100] * len(case["input_ids"])
        for number, turn in enumerate(chat):
            if turn["role"] != "assistant":
                continue
            answer_tokens = chat_template.tokenize_answer(
                llava.processor, chat[:number], turn["content"][0]["text"], {2}
            )
            start = len(render(llava, chat[: number + 1])["input_ids"]) - len(answer_tokens.ids)
            labels[start : start + answer_tokens.loss_length] = answer_tokens.ids[: answer_tokens.loss_length]
        longest = len(case["labels"]) if case["name"] in CUT else None
        assert labels[:longest] == case["labels"], case["name"]


def test_what_the_original_throws_away_it_throws_away_without_need(run: tuple[str, Converted]) -> None:
    """Its answers have all labels masked; here they are learned."""
    name, llava = run
    for case in sorted(UNLABELLED - EMPTY):
        recorded = CASES[name, case]
        chat = turns(recorded["conversations"])
        answer_tokens = chat_template.tokenize_answer(
            llava.processor, chat[:1], chat[1]["content"][0]["text"], {2}
        )
        assert answer_tokens.ids[answer_tokens.loss_length - 1] == 2
        text = llava.processor.tokenizer.decode(answer_tokens.ids[: answer_tokens.loss_length - 1])
        assert re.sub(r"\s+", " ", text.strip()) == recorded["conversations"][1]["value"]


def test_pixels_are_the_originals() -> None:
    """Cut out of the middle, or padded to a square as in LLaVA 1.5: within two grey levels of 255.

    Recorded with Pillow 10.4. Sides shrink in proportion, so the other pass order of Pillow 13 does not come into it.
    """
    import transformers

    recorded = load_file(parity.path("pixel_values.safetensors", "llava"))
    from kovqa_core.files import read_json

    settings = read_json(parity.path("base/openai/clip-tiny-patch14/preprocessor_config.json", "llava"))
    settings.pop("feature_extractor_type")
    for name, expected in recorded.items():
        file, _, shape = name.partition("|")
        image_processor = transformers.LlavaImageProcessorPil(**settings, do_pad=shape == "pad")
        image = Image.open(parity.path(f"images/{file}", "llava")).convert("RGB")
        pixels = torch.as_tensor(np.asarray(image_processor(image)["pixel_values"][0]))
        parity.close(pixels, expected, 0.03, name)
