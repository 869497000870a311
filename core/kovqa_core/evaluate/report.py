"""One HTML page about an evaluation: scores, confused answers, right and wrong examples with pictures.

The page is whole in itself: pictures are small JPEGs inside it, fonts are the reader's own, and its
policy forbids every request and every script but its own. Its size is bounded: so many examples,
kinds, answers and letters as stated below, in `cards` and on the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores, TypeScore
from kovqa_core.evaluate.caption_scores import METRICS_LEFT_OUT, CaptionMetric, CaptionScores
from kovqa_core.evaluate.confidence_intervals import BOOTSTRAP_DRAWS
from kovqa_core.evaluate.evaluation import EvaluationProgress, EvaluationResult
from kovqa_core.evaluate.report_cards import (
    bilingual_label,
    cards_html,
    choose_cards,
    is_right_row,
    shorten_html,
)
from kovqa_core.files import read_text, write_text
from kovqa_core.index.reader import table_image_folder

MAX_TABLE_TYPES = 60  # kinds in the table, those with most questions
MAX_CONFUSED_ANSWERS = 12  # true answers in the table of confusions

_RULE_LABELS = {
    "plain": ("공백과 대소문자만 맞춘 답", "answers with blanks and case evened out"),
    "korean": ("한 개 = 1개처럼 한국어 표기를 맞춘 답", "answers with Korean spellings evened out (한 개 = 1개)"),
    "korean-particles": ("한국어 표기를 맞추고 조사를 뗀 답", "answers with Korean spellings evened out, particles off"),
    "vqav2": ("VQAv2 공식 규칙으로 맞춘 답", "answers in VQAv2's official form"),
}  # fmt: skip
_TOKENISER_LABELS = {
    "english": ("영어 낱말", "English words"),
    "korean": ("한글 음절", "Hangul syllables"),
    "words": ("공백으로 나눈 말", "words between blanks"),
}


_ANSWER_TYPE_LABELS = {
    "yes/no": bilingual_label("예/아니요", "yes/no"),
    "number": bilingual_label("수", "number"),
    "other": bilingual_label("그 밖", "other"),
}


def write_report(
    found: EvaluationResult,
    path: Path,
    images: Path | None,
    examples: int,
    progress: EvaluationProgress | None = None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        found: what to show.
        path: the HTML file.
        images: the pictures' folder; None: as the index says. A picture that cannot be read becomes
            a placeholder.
        examples: at most so many right ones and so many wrong ones; each takes 5 to 30 kB.
        progress: called with (pictures done, pictures in total).

    Raises:
        DataError: no folder of pictures.
        SettingsError, MachineError: the file cannot be written.
    """
    folder = images or table_image_folder(found.index)
    if not folder.is_dir():
        raise DataError(f"no folder of pictures {folder}", "say where they are: --images DIR")
    template = read_text(Path(__file__).with_suffix(".html"))
    cards, right = choose_cards(found, examples), is_right_row(found)
    of_captions = isinstance(found.scores, CaptionScores)
    parts = (
        _caption_sections(found.scores)
        if isinstance(found.scores, CaptionScores)
        else _answer_sections(found.scores)
    )
    page = Template(template).substitute(
        script_hash=_script_hash(template),
        title=escape(found.predictions.name),
        source=f"{escape(found.predictions.name)} ↔ {escape(found.index.parent.name)}/{escape(found.index.name)}",
        gallery_note=_gallery_note(int(right.sum()), len(right), examples, of_captions),
        filters=_filter_buttons(sorted({card.kind for card in cards}), of_captions),
        cards=cards_html(cards, folder, of_captions, progress),
        **parts,
    )
    write_text(path, page)


def _script_hash(template: str) -> str:
    """What the page's policy calls its own script; any other, smuggled in by an answer, is not run."""
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert script is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()


def _tile_html(label: str, value: str, note: str = "") -> str:
    return f'<div class="tile"><span class="quiet">{label}</span><b>{value}</b><span class="quiet">{note}</span></div>'


# --------------------------------------------------------------------------------- answers


def _answer_sections(scores: AnswerScores) -> dict[str, str]:
    total = scores.total
    tiles = [
        _tile_html(
            bilingual_label("점수와 95 % 구간", "Score, 95 % interval"),
            f"{total.score:.1%}",
            _interval_text(total),
        ),
        _tile_html(
            bilingual_label("늘 가장 흔한 답이라면", "Always the most frequent answer"),
            f"{total.majority:.1%}",
        ),
        _tile_html(bilingual_label("질문", "Questions"), f"{total.rows:,}"),
    ]
    most = sorted(scores.kinds, key=lambda score: -score.rows)[:MAX_TABLE_TYPES]
    tables = [
        (bilingual_label("질문 종류", "Kind of question"), sorted(most, key=lambda score: score.kind)),
        (bilingual_label("질문 묶음", "Group of kinds"), scores.groups),
        (bilingual_label("답 종류", "Type of answer"), scores.types),
    ]
    return {
        "heading": bilingual_label("질문에 대한 답의 평가", "How good the answers are"),
        "tiles": "".join(tiles),
        "sections": f"<h2>{bilingual_label('점수', 'Scores')}</h2>{_score_note(scores, len(scores.kinds) - len(most))}"
        + "".join(_score_table(name, part, total) for name, part in tables if part)
        + _confusion_table(scores.confusion),
    }


def _score_note(scores: AnswerScores, left_out: int) -> str:
    korean, english = _RULE_LABELS[scores.rule]
    note = bilingual_label(
        f"{korean}으로 비교. 막대는 점수, 검은 선은 95 % 구간, 붉은 선은 늘 가장 흔한 답의 점수. "
        f"구간: 사진 단위 붓스트랩 {BOOTSTRAP_DRAWS:,}번, 또는 윌슨.",
        f"Compared: {english}. Bar: score; dark line: 95 % interval; red line: the most frequent answer. "
        f"Intervals: bootstrap over pictures, {BOOTSTRAP_DRAWS:,} draws, or Wilson's.",
    )
    if left_out:
        note += bilingual_label(
            f" 질문이 적은 {left_out}종류는 생략.", f" {left_out} kinds with fewer questions are left out."
        )
    if n := scores.unanswered:
        note += bilingual_label(
            f" 정답이 없는 질문 {n:,}개는 0점.", f" {n:,} questions without a true answer count 0."
        )
    return f'<p class="quiet">{note}</p>'


def _score_table(name: str, scores: Sequence[TypeScore], total: TypeScore) -> str:
    heads = [
        _table_head(name, " data-text"), _table_head(bilingual_label("질문", "questions")), _table_head(bilingual_label("점수", "score")),
        '<th class="wide"></th>', _table_head(bilingual_label("95 % 구간", "95 % interval")), _table_head(bilingual_label("가장 흔한 답", "most frequent")),
    ]  # fmt: skip
    rows = "\n".join(map(_score_row, scores))
    return (
        f'<div class="box"><table class="sortable"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{rows}</tbody><tfoot>{_score_row(total)}</tfoot></table></div>"
    )


def _table_head(name: str, text: str = "") -> str:
    return f'<th scope="col"{text}><button type="button">{name}</button></th>'


def _score_row(score: TypeScore) -> str:
    bar = (
        f"--score:{score.score:.4f};--low:{score.low:.4f};--high:{score.high:.4f};--base:{score.majority:.4f}"
    )
    name = (
        _ANSWER_TYPE_LABELS.get(score.kind, shorten_html(score.kind))
        if score.kind
        else bilingual_label("전체", "all")
    )
    return (
        f'<tr><th scope="row" data-value="{shorten_html(score.kind)}">{name}</th>'
        f'<td data-value="{score.rows}">{score.rows:,}</td><td data-value="{score.score}">{score.score:.1%}</td>'
        f'<td class="wide"><div class="bar" style="{bar}"><i></i><u></u><s></s></div></td>'
        f'<td data-value="{score.low}" title="{score.method}">{_interval_text(score)}</td>'
        f'<td data-value="{score.majority}">{score.majority:.1%}</td></tr>'
    )


def _interval_text(score: TypeScore) -> str:
    return f"{score.low:.1%} – {score.high:.1%}"


def _confusion_table(pairs: Counter[tuple[str, str]]) -> str:
    """The most frequent true answers against what was given; darker is a larger share of the row."""
    truths: Counter[str] = Counter()
    for (truth, _), rows in pairs.items():
        truths[truth] += rows
    names = [truth for truth, _ in truths.most_common(MAX_CONFUSED_ANSWERS)]
    lines = []
    for truth in names:
        counts = [pairs[truth, given] for given in names]
        counts.append(truths[truth] - sum(counts))
        cells = "".join(
            f'<td{" class=same" if given == truth else ""} style="--share:{n / truths[truth]:.2f}">{n or ""}</td>'
            for given, n in zip([*names, None], counts, strict=True)
        )
        lines.append(f'<tr><th scope="row">{shorten_html(truth, 20) or "–"}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{shorten_html(name, 20) or "–"}</th>' for name in names)
    note = bilingual_label(
        f"가장 흔한 정답 {len(names)}개: 줄은 정답, 칸은 모델의 답.",
        f"The {len(names)} most frequent true answers: a row is the truth, a column what the model said.",
    )
    return (
        f'<h2>{bilingual_label("헷갈린 답", "Confused answers")}</h2><p class="quiet">{note}</p>'
        f'<div class="box confusion"><table><thead><tr><th></th>{heads}<th scope="col">{bilingual_label("그 밖", "other")}</th>'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


# -------------------------------------------------------------------------------- captions


def _caption_sections(scores: CaptionScores) -> dict[str, str]:
    metric = scores.metrics["CIDEr"]
    tiles = [
        _tile_html(
            f"CIDEr, {bilingual_label('95 % 구간', '95 % interval')}",
            f"{metric.score:.3f}",
            f"{metric.low:.3f} – {metric.high:.3f}",
        ),
        _tile_html("BLEU-4", f"{scores.metrics['BLEU-4'].score:.3f}"),
        _tile_html(bilingual_label("사진", "Pictures"), f"{scores.rows:,}"),
    ]
    korean, english = _TOKENISER_LABELS[scores.tokens]
    note = bilingual_label(
        f"단위: {korean}. 구간: 사진 단위 붓스트랩 {BOOTSTRAP_DRAWS:,}번. METEOR와 SPICE는 자바 프로그램뿐이라 생략.",
        f"Tokens: {english}. Intervals: bootstrap over pictures, {BOOTSTRAP_DRAWS:,} draws. {METRICS_LEFT_OUT}.",
    )
    rows = "\n".join(map(_metric_row, scores.metrics.values()))
    heads = _table_head(bilingual_label("척도", "metric"), " data-text") + _table_head(
        bilingual_label("점수", "score")
    )
    return {
        "heading": bilingual_label("사진 설명의 평가", "How good the captions are"),
        "tiles": "".join(tiles),
        "sections": f'<h2>{bilingual_label("점수", "Scores")}</h2><p class="quiet">{note}</p>'
        f'<div class="box"><table class="sortable"><thead><tr>{heads}{_table_head(bilingual_label("95 % 구간", "95 % interval"))}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>",
    }


def _metric_row(metric: CaptionMetric) -> str:
    return (
        f'<tr><th scope="row" data-value="{metric.name}">{metric.name}</th>'
        f'<td data-value="{metric.score}">{metric.score:.4f}</td>'
        f'<td data-value="{metric.low}">{metric.low:.4f} – {metric.high:.4f}</td></tr>'
    )


# -------------------------------------------------------------------------------- examples


def _gallery_note(right: int, rows: int, examples: int, of_captions: bool) -> str:
    wrong = rows - right
    shown = f"{min(examples, right):,}", f"{min(examples, wrong):,}"
    if of_captions:
        return bilingual_label(
            f"CIDEr 순위 위쪽 절반 {right:,}개 중 {shown[0]}개, 아래쪽 절반 {wrong:,}개 중 {shown[1]}개 (고정된 추첨).",
            f"{shown[0]} of the {right:,} better ones by CIDEr and {shown[1]} of the {wrong:,} others, by a fixed lot.",
        )
    return bilingual_label(
        f"맞은 답(0.5점 이상) {right:,}개 중 {shown[0]}개, 틀린 답 {wrong:,}개 중 {shown[1]}개 (고정된 추첨).",
        f"{shown[0]} of {right:,} right answers (at least 0.5) and {shown[1]} of {wrong:,} wrong ones, by a fixed lot.",
    )


def _filter_buttons(kinds: Sequence[str], of_captions: bool) -> str:
    right = bilingual_label("위쪽 절반", "Better half") if of_captions else bilingual_label("맞음", "Right")
    wrong = bilingual_label("아래쪽 절반", "Other half") if of_captions else bilingual_label("틀림", "Wrong")
    verdicts = [("all", bilingual_label("모두", "All")), ("right", right), ("wrong", wrong)]
    buttons = "".join(
        f'<button type="button" data-verdict="{name}" aria-pressed="{str(name == "all").lower()}">{label}</button>'
        for name, label in verdicts
    )
    options = "".join(
        f'<option value="{escape(kind)}">{shorten_html(kind) or "–"}</option>' for kind in kinds
    )
    return (
        f'{buttons}<select id="kind" aria-label="종류 · kind"><option value="*">모든 종류 · all kinds</option>'
        f"{options}</select>"
        '<input id="search" type="search" aria-label="찾기 · search" placeholder="찾기 · search">'
    )
