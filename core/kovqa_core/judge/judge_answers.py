"""Answers to a benchmark's open questions, judged row by row by a model on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kovqa_core.answer.chat_completions import NoText, WrittenText, image_data_url, request_chat_text
from kovqa_core.answer.parallel_requests import send_in_parallel
from kovqa_core.answer.server_requests import (
    ModelServer,
    RefusedQuestion,
    ServedModel,
    connect_server,
    find_served_model,
)
from kovqa_core.data.example import Example
from kovqa_core.data.question_prompts import has_hangul
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.files import disk_errors
from kovqa_core.judge.judge_prompts import SHORT_REPLY, JudgeForm, Verdict, find_judge_form
from kovqa_core.judge.verdict_file import VerdictLine, append_verdict, read_verdict_file, request_key
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress

_MAX_REPLY_TOKENS = 1024


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges, and how it is asked.

    Attributes:
        url: of a server in OpenAI's form, up to and with /v1.
        model: its name there; None: its only one.
        prompt: file of another prompt; None: our own.
        concurrency: requests under way at once.
    """

    url: str
    model: str | None = None
    prompt: Path | None = None
    concurrency: int = 8


class JudgedRow(NamedTuple):
    """An answer and what became of it.

    Attributes:
        verdict: None: the judge gave none.
        problem: why; "" where there is a verdict.
    """

    example: Example
    verdict: Verdict | None
    problem: str


@dataclass(frozen=True)
class JudgedAnswers:
    """All rows of a set.

    Attributes:
        judge: name of the model that judged.
        protocol: how it was asked.
        sees_image: was the image shown to it?
        rows: in the order of the examples.
        asked: how many verdicts are new; the others were in the file.
        not_korean: ids of answers that count 0 because they hold no Korean.
    """

    judge: str
    protocol: str
    sees_image: bool
    rows: Sequence[JudgedRow]
    asked: int
    not_korean: Sequence[str] = field(default_factory=list)


def judge_answers(
    pairs: Sequence[tuple[Example, str]],
    protocol: str,
    options: JudgeOptions,
    verdicts: Path,
    image_folder: Path,
    on_progress: OnProgress = ignore_progress,
) -> JudgedAnswers:
    """Ask a judge about each answer that it has not judged yet.

    Args:
        pairs: rows with the columns of the protocol, and their answers.
        protocol: a name of `judge_prompts.JUDGE_FORMS`.
        options: who judges.
        verdicts: file of the verdicts so far, which gets the new ones as they come.
        image_folder: folder that image paths start from; read for a judge behind `kovqa serve`, which is shown images.
        on_progress: told of each verdict, and of a server that is out of reach.

    Raises:
        SettingsError: see `find_judge_form`, `connect_server` and `find_served_model`; another process writes `verdicts`.
        DataError: a row lacks what the judge has to read.
        AssetError: the server fails again and again; what it said so far is kept.
    """
    form = find_judge_form(protocol, options.prompt)
    fields = [_prompt_fields(form, example) for example, _ in pairs]
    with output_lock(verdicts), connect_server(options.url, on_progress, "--judge") as server:
        judge = find_served_model(server, options.model, "vqa")
        requests = _make_requests(form, judge, pairs, fields)
        known = read_verdict_file(verdicts)
        keys = {number: request_key(options.url, judge.id, request) for number, request in requests.items()}
        open_rows = [number for number, key in keys.items() if key not in known]
        images = {number: image_folder / pairs[number][0].image for number in open_rows if judge.is_kovqa}
        send = partial(_request_verdict, server, judge.id, requests, images)
        refusals = dict[int, str]()  # not kept in the file: a server may be set up otherwise the next time
        verdicts.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(verdicts), verdicts.open("ab") as stream:
            replies = send_in_parallel(open_rows, send, options.concurrency, on_progress)
            for done, (number, reply) in enumerate(replies, len(keys) - len(open_rows) + 1):
                if isinstance(reply, KovqaError):
                    refusals[number] = reply.message
                else:
                    line = VerdictLine(keys[number], pairs[number][0].id, judge.id, reply.text, reply.is_cut)
                    append_verdict(stream, line)
                    known[line.key] = line
                on_progress(Progress(message("judge.judging", "judging"), done, len(keys)))
    rows = [
        JudgedRow(example, None, refusals[number])
        if number in refusals
        else _judged_row(form, judge, example, known[keys[number]] if number in keys else None)
        for number, (example, _) in enumerate(pairs)
    ]
    not_korean = [pairs[number][0].id for number in range(len(pairs)) if number not in keys]
    return JudgedAnswers(judge.id, protocol, judge.is_kovqa, rows, len(open_rows), not_korean)


def _request_verdict(
    server: ModelServer,
    judge: str,
    requests: Mapping[int, Mapping[str, object]],
    images: Mapping[int, Path],
    number: int,
    on_notice: OnProgress,
) -> WrittenText | RefusedQuestion | NoText:
    """What a judge writes of a row, or why it does not, where that is the row's own fault."""
    image = image_data_url(images[number]) if number in images else None
    prompt = str(requests[number]["prompt"])
    try:
        return request_chat_text(server, judge, prompt, _MAX_REPLY_TOKENS, image, on_notice)
    except (RefusedQuestion, NoText) as fault:
        return fault


def _prompt_fields(form: JudgeForm, example: Example) -> dict[str, str]:
    """What a row fills the prompt with besides question and answer."""
    fields = {name: example.columns.get(column) for name, column in form.columns.items()}
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                message(
                    "judge.row-lacks-column",
                    "id {id}: no column {column}, which {protocol} needs",
                    id=example.id,
                    column=form.columns[name],
                    protocol=form.protocol,
                ),
                message("judge.row-lacks-column.hint", "write the index again: kovqa index"),
            )
    return {name: str(value) for name, value in fields.items()}


def is_korean(answer: str) -> bool:
    """Does an answer hold Korean, or nothing that has a language (digits, punctuation)?"""
    return has_hangul(answer) or not any(letter.isalpha() for letter in answer)


def _make_requests(
    form: JudgeForm,
    judge: ServedModel,
    pairs: Sequence[tuple[Example, str]],
    fields: Sequence[Mapping[str, str]],
) -> dict[int, dict[str, object]]:
    """What the judge is asked, by number of the row; rows that need no judge have none."""
    # A model behind `kovqa serve` writes a few tokens, and reads a question about an image.
    short = f"\n\n{SHORT_REPLY[form.protocol]}" if judge.is_kovqa else ""
    return {
        number: {
            "prompt": form.fill_prompt(example.question, answer, fields[number]) + short,
            "image": example.image if judge.is_kovqa else False,  # two images of one question are two requests
        }
        for number, (example, answer) in enumerate(pairs)
        if not form.needs_korean or (answer.strip() and is_korean(answer))
    }  # fmt: skip


def _judged_row(form: JudgeForm, judge: ServedModel, example: Example, line: VerdictLine | None) -> JudgedRow:
    """What a reply says of a row; None: nobody was asked, for the answer is worth nothing."""
    if line is None:
        return JudgedRow(example, Verdict(0.0), "")
    # What stands before the end may be points of one criterion. A model behind `kovqa serve` gives a number alone.
    if line.is_cut and form.verdict_last and not judge.is_kovqa:
        problem = message(
            "judge.cut-reply", "its reply was cut before its end, after {tokens:,} tokens", tokens=_MAX_REPLY_TOKENS
        )  # fmt: skip
        return JudgedRow(example, None, problem)
    verdict = form.read_reply(line.reply)
    problem = (
        message("judge.no-points", "its reply holds no points ({reply})", reply=line.reply)
        if line.reply.strip()
        else message("judge.empty-reply", "its reply is empty")
    )
    return JudgedRow(example, verdict, "" if verdict else problem)
