"""The text a chat model reads beside an image: context, question, choices and an instruction, each on its own line.

The same for a model of ours and for one that a server answers with. The texts are part of what a model was
trained on: a changed byte changes answers. Source: docs/sources/llava.md, L36.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kovqa_core.data.decoding import CHOICE_LETTERS
from kovqa_core.messages import Message, message

DEFAULT_INSTRUCTION = "auto"
DEFAULT_MAX_NEW_TOKENS = 16  # tokens of an answer
OPEN_MAX_NEW_TOKENS = 1024  # of an answer that may have many sentences (docs/sources/benchmarks.md, K20)
NO_INSTRUCTION = "none"

ANSWER_INSTRUCTIONS = {
    "ko": "한 단어나 짧은 구로 답하세요.",
    "en": "Answer the question using a single word or phrase.",
    "none": "",
}
LETTER_INSTRUCTIONS = {
    "ko": "선택지의 글자로만 답하세요.",
    "en": "Answer with the option's letter from the given choices directly.",
    "none": "",
}
# How a model that follows instructions is asked for a caption.
CAPTION_INSTRUCTIONS = {
    "ko": "이 이미지를 한 문장으로 설명하세요.",
    "en": "Describe this image in one sentence.",
}
DEFAULT_CAPTION_INSTRUCTION = "ko"
CAPTION_MAX_NEW_TOKENS = 64  # a sentence takes more than an answer
_HANGUL_LETTER = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def has_hangul(text: str) -> bool:
    """Is any letter of a text Hangul: a syllable, or a letter by itself?"""
    return bool(_HANGUL_LETTER.search(text))


def build_prompt(question: str, instruction: str, choices: Sequence[str] = (), context: str = "") -> str:
    """A question, what is to be read before it, its choices and an instruction, each on its own line.

    Args:
        question: the text.
        instruction: "auto" (in the question's language), a key of ANSWER_INSTRUCTIONS, or any text.
        choices: answers to list behind letters; empty: any answer.
        context: to be read before the question; "": nothing.
    """
    if instruction == "auto":
        instruction = "ko" if has_hangul(question) else "en"
    instruction_texts = LETTER_INSTRUCTIONS if choices else ANSWER_INSTRUCTIONS
    instruction_text = instruction_texts.get(instruction, instruction)
    choice_lines = [f"{letter}. {choice}" for letter, choice in zip(CHOICE_LETTERS, choices, strict=False)]
    before, after = ([text] if text else [] for text in (context, instruction_text))
    return "\n".join([*before, question, *choice_lines, *after])


def caption_prompt(instruction: str) -> str:
    """What is asked for a caption.

    Args:
        instruction: a key of CAPTION_INSTRUCTIONS, or any text.
    """
    return CAPTION_INSTRUCTIONS.get(instruction, instruction)


def no_instruction_hint() -> Message:
    """What to do where a model takes neither an instruction nor another length."""
    return message("answer.no-instruction.hint", "leave out --instruction and --max-new-tokens")
