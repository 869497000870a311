"""What a judge is asked, and what its reply says.

| protocol | the judge reads | of a row | of a set |
|---|---|---|---|
| `criteria-judge` (KOFFVQA) | question, answer, what earns points | 0 to 10 points | mean of the rows / 10 |
| `reference-judge` (K-LLaVA-W) | the image's description, question, two answers | 1 to 10 each | sum / the references' |

The prompts are our own words, not those of the sets' authors, whose boards a score here is not comparable with;
`--judge-prompt` takes theirs. Source: docs/sources/benchmarks.md, K13 and K14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.data.benchmark_sets import CRITERIA_COLUMN, DESCRIPTION_COLUMN, REFERENCE_COLUMN
from kovqa_core.errors import SettingsError, unknown_name_error
from kovqa_core.files import read_text
from kovqa_core.messages import message

MOST_POINTS = 10.0
# Replies that give a number alone: what a model can say that writes short answers only.
SHORT_REPLY = {
    "criteria-judge": "설명 없이 0에서 10 사이의 점수만 숫자로 답하세요.",
    "reference-judge": "설명 없이 '기준 답변의 점수 평가할 답변의 점수' 두 숫자만 답하세요.",
}

_CRITERIA_PROMPT = """\
이미지를 보고 묻는 질문과 그에 대한 답변을 채점 기준에 따라 평가합니다.
이미지는 주어지지 않습니다. 채점 기준에 적힌 내용만 근거로 삼으세요.

[질문]
{question}

[답변]
{answer}

[채점 기준]
{criteria}

채점 방법
- 기준을 하나씩 확인하고, 완전히 충족한 기준의 점수만 더합니다. 일부만 충족했으면 그 기준은 0점입니다.
- 표현이 달라도 뜻이 같으면 충족한 것으로 봅니다. 다만 이미지 속 글자를 읽는 질문에서는 글자가 정확히 같아야 합니다.
- 점수는 0점부터 10점까지입니다.

기준마다 판단을 한 줄씩 적은 뒤, 마지막 줄에 '점수: N/10' 형식으로 적으세요.
"""
_REFERENCE_PROMPT = """\
이미지에 대한 질문에 두 모델이 답했습니다. 이미지 대신 이미지의 설명이 주어집니다.

[이미지 설명]
{description}

[질문]
{question}

[기준 답변]
{reference}

[평가할 답변]
{answer}

두 답변을 같은 잣대로 평가하세요. 질문에 도움이 되는지, 질문과 관련이 있는지, 내용이 정확한지, 충분히 자세한지,
한국어가 자연스러운지를 봅니다. 답변이 놓인 순서와 길이 자체는 점수에 영향을 주지 않아야 합니다.
첫 줄에 '기준 답변의 점수'와 '평가할 답변의 점수'를 1에서 10 사이의 숫자로, 빈칸 하나를 사이에 두고 적으세요. (예: 8 7)
둘째 줄부터 이유를 적으세요.
"""

_NUMBER = r"(?<![\d.,+\-−])(\d+(?:\.\d+)?)"
_OF_TEN = r"10\s*점\s*만점에\s*"
_SUM = r"[\d.\s점+]+=\s*"
# 3/5 and 8/100 are points of another scale, and 3 + 4 is no result yet.
_IS_RESULT = r"(?![\d.,]*\d)(?!\s*점?\s*[+×=])(?![\s*점]*[/／](?!\s*(?:10(?!\d)|１０)))"
_POINTS = re.compile(
    rf"점수\**\s*[:：][\s*]*(?:{_OF_TEN}|{_SUM})?\**{_NUMBER}{_IS_RESULT}|{_OF_TEN}{_NUMBER}|"
    rf"{_NUMBER}\**\s*/\s*10\b"
)
_TWO_NUMBERS = re.compile(rf"\D*?{_NUMBER}\s*[,\s/]\s*{_NUMBER}\D*")
# Some servers leave out the first mark, and a reply that was cut has no last one.
_THOUGHTS = re.compile(r"\A(?:(?!<think>).)*</think>|<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        points: of the answer.
        reference_points: of the reference answer; None where there is none.
    """

    points: float
    reference_points: float | None = None


@dataclass(frozen=True)
class JudgeForm:
    """How a protocol asks a judge.

    Attributes:
        protocol: its name.
        prompt: with the `{fields}` of a row.
        columns: field of the prompt -> the row's column that fills it.
        read_reply: the verdict in a reply; None: there is none in it.
        needs_korean: is an answer without Korean worth nothing?
        verdict_last: do the points stand at the end? Then a reply that was cut has none.
    """

    protocol: str
    prompt: str
    columns: Mapping[str, str]
    read_reply: Callable[[str], Verdict | None]
    needs_korean: bool = False
    verdict_last: bool = False

    def fill_prompt(self, question: str, answer: str, fields: Mapping[str, str]) -> str:
        """The prompt of one row; braces in its texts are text."""
        values = {"question": question, "answer": answer, **fields}
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), self.prompt)


def read_points(reply: str) -> Verdict | None:
    """The points in a reply: the last `N/10`, `점수: N` or `10점 만점에 N`; or the one number that the reply is."""
    text = _THOUGHTS.sub("", reply).strip().strip("*`'\" ")
    found = [next(filter(None, groups)) for groups in _POINTS.findall(text)]
    if not found and re.fullmatch(rf"{_NUMBER}\s*점?\.?", text):
        found = re.findall(_NUMBER, text)
    points = float(found[-1]) if found else -1.0
    return Verdict(points) if 0 <= points <= MOST_POINTS else None


def read_two_points(reply: str) -> Verdict | None:
    """The points of the reference and of the answer: two numbers, alone in the first line of a reply."""
    lines = _THOUGHTS.sub("", reply).strip().splitlines()
    match = _TWO_NUMBERS.fullmatch(lines[0]) if lines else None
    if match is None:
        return None
    reference, points = float(match[1]), float(match[2])
    return (
        Verdict(points, reference) if all(1 <= each <= MOST_POINTS for each in (reference, points)) else None
    )


JUDGE_FORMS: dict[str, JudgeForm] = {
    form.protocol: form
    for form in (
        JudgeForm(
            "criteria-judge", _CRITERIA_PROMPT, {"criteria": CRITERIA_COLUMN}, read_points,
            needs_korean=True, verdict_last=True,
        ),
        JudgeForm(
            "reference-judge", _REFERENCE_PROMPT,
            {"description": DESCRIPTION_COLUMN, "reference": REFERENCE_COLUMN}, read_two_points,
        ),
    )
}  # fmt: skip


def find_judge_form(protocol: str, prompt_file: Path | None = None) -> JudgeForm:
    """How a protocol asks a judge.

    Args:
        protocol: a name of `JUDGE_FORMS`.
        prompt_file: another prompt, with `{question}`, `{answer}` and the fields of the protocol's own.

    Raises:
        SettingsError: no such protocol; a prompt without one of the fields.
        DataError: the prompt cannot be read.
    """
    if protocol not in JUDGE_FORMS:
        raise unknown_name_error(
            message("judge.unknown-protocol", "no judge is asked by the protocol '{name}'", name=protocol),
            protocol,
            JUDGE_FORMS,
        )
    form = JUDGE_FORMS[protocol]
    if prompt_file is None:
        return form
    prompt = read_text(prompt_file)
    missing = [field for field in ("question", "answer", *form.columns) if f"{{{field}}}" not in prompt]
    if missing:
        raise SettingsError(
            message(
                "judge.prompt-lacks-field",
                "{file}: a prompt of {protocol} must hold {{{field}}}",
                file=prompt_file,
                protocol=protocol,
                field=missing[0],
            ),
            message("judge.prompt-lacks-field.hint", "write it where that text of a row belongs"),
        )
    return replace(form, prompt=prompt)
