"""The README.md of an exported folder: what the model is, in Korean and English, and the front matter of the hub.

Nothing is guessed: a licence that nobody states is a place to be filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.answer.model_digest import digest_model
from kovqa_core.data.answers import read_answers
from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.answers_record import read_answers_record
from kovqa_core.evaluate.evaluation import EvaluationResult, evaluate_file
from kovqa_core.evaluate.metrics import metric_name
from kovqa_core.export.model_origin import (
    AIHUB_LIMIT,
    NON_COMMERCIAL_LIMIT,
    ModelOrigin,
    hub_repository,
)
from kovqa_core.index.reader import is_index_file
from kovqa_core.index.report import read_report
from kovqa_core.messages import message, shell_quote
from kovqa_core.models.checkpoint_info import CheckpointInfo

_ENGLISH_SOURCES = ("vqav2", "coco", "dacon")
UNKNOWN_LICENCE = "unknown"  # a value that the hub knows
_TASKS = {
    "vqa": ("visual-question-answering", "answers questions about images", "그림을 보고 질문에 답합니다"),
    "caption": ("image-to-text", "describes images", "그림을 문장으로 설명합니다"),
}
_FILL_IN = "**적지 않음: 공개하기 전에 채우세요 (`kovqa export --licence NAME`) · not stated: fill in before publishing**"
_TEMPLATE = """\
# {name}

이 모델은 {korean} (kovqa, `{family}`).
This model {english} (kovqa, `{family}`).

| | |
|---|---|
{rows}

## 점수 · Scores

{scores}

## 학습 · Training

{training}

## 한계 · Limits

{limits}

## 불러오기 · Loading

이 폴더 안에서 실행하세요.{opens_korean}
Run this inside the folder.{opens_english}

```python
{loading}```
"""


@dataclass(frozen=True)
class CardScore:
    """One score of a split.

    Attributes:
        metric: its name.
        value: in the metric's own range.
        interval: 95 %; None: nobody computed one.
        rows: of the split; None: nobody knows any more.
        split: of the data.
        dataset: its name; "": nobody knows.
        protocol: how answers were scored, where that has a name.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    rows: int | None
    split: str
    dataset: str
    protocol: str = ""


def score_predictions(step: Path, predictions: Path, index: Path) -> CardScore:
    """The score of a model's predictions against the split they answer.

    Args:
        step: the checkpoint folder.
        predictions: its answers; what no record says to be another's counts as its.
        index: the split.

    Raises:
        DataError: another model gave them; and as `evaluate_file`.
    """
    _require_own_answers(step, predictions)
    result: EvaluationResult = evaluate_file(predictions, index)
    dataset = read_report(index.parent).source if is_index_file(index) else ""
    scores = result.scores
    if isinstance(scores, AnswerScores):
        total = scores.total
        protocol = next(iter(scores.protocols)) if len(scores.protocols) == 1 else ""
        return CardScore(
            "accuracy", total.score, (total.low, total.high), total.rows, index.stem, dataset, protocol
        )
    main = scores.main
    return CardScore(main.name, main.score, (main.low, main.high), scores.rows, index.stem, dataset)


def _require_own_answers(step: Path, predictions: Path) -> None:
    """See that the record beside predictions names no other model."""
    record = read_answers_record(predictions) if predictions.is_file() else None
    weights = record.fingerprint.get("weights") if record else None
    if record and weights not in (None, digest_model(step)):
        raise DataError(
            message(
                "export.scores-of-another", "{file} was answered by another model ({model}), not by {step}",
                file=predictions, model=record.fingerprint.get("model", "?"), step=step,
            ),
            message(
                "export.scores-of-another.hint", "answer the split by this one: kovqa predict --model {step} --input SPLIT",
                step=shell_quote(str(step)),
            ),
        )  # fmt: skip


def validation_score(info: CheckpointInfo, origin: ModelOrigin) -> CardScore | None:
    """What training itself measured."""
    if info.score is None:
        return None
    metric = metric_name(origin.run.recipe.eval.metric if origin.run else None, info.task)
    index = origin.index
    rows = index.counts.rows.get("val") if index else None
    return CardScore(metric, info.score, None, rows, "val", index.source if index else "")


def model_card(
    step: Path,
    info: CheckpointInfo,
    origin: ModelOrigin,
    loading: str,
    licence: str = "",
    scores: tuple[CardScore, ...] = (),
    *,
    opens_here: bool = True,
) -> str:
    """A model card.

    Args:
        step: the checkpoint folder.
        info: its `kovqa.json`.
        origin: what it was made of.
        loading: Python that loads the exported files.
        licence: that the user states; "": its only base's, where that is known.
        scores: besides the validation's.
        opens_here: does kovqa itself open the folder?
    """
    _, english, korean = _TASKS[info.task]
    own = validation_score(info, origin)
    scores = (*([own] if own else []), *scores)
    name = info.recipe or info.imported.get("checkpoint") or info.family
    licence = licence or licence_of_bases(origin)
    text = _TEMPLATE.format(
        name=name,
        korean=korean,
        english=english,
        family=info.family,
        rows="\n".join(f"| {key} | {value} |" for key, value in _facts(step, info, origin, licence).items()),
        scores="\n".join(map(_score_line, scores)) or "측정하지 않았습니다. Not measured.",
        training=_training_text(info, origin),
        limits=_limits_text(step, info, origin),
        loading=loading,
        opens_korean=" `kovqa predict --model FOLDER`로도 열립니다." if opens_here else "",
        opens_english=" `kovqa predict --model FOLDER` opens it, too." if opens_here else "",
    )
    front_matter = _front_matter(str(name), step, info, origin, licence, scores)
    return f"---\n{front_matter}\n---\n\n{text}"


def licence_of_bases(origin: ModelOrigin) -> str:
    """The licence of all bases, where they have one and the same."""
    licences = {base.licence for base in origin.bases}
    return licences.pop() if len(licences) == 1 else ""


def _facts(step: Path, info: CheckpointInfo, origin: ModelOrigin, licence: str) -> dict[str, str]:
    answers = step / "answers.txt"  # a model that writes freely has none
    values: dict[str, object] = {
        "레시피 · recipe": info.recipe,
        "단계 · step": info.step,
        "원본 · imported from": info.imported.get("checkpoint"),
        "원본 SHA-256": info.imported.get("checkpoint_sha256"),
        "정답 수 · answers": len(read_answers(answers)) if answers.is_file() else None,
        "데이터 · data": origin.index.source if origin.index else None,
        "데이터 지문 · data fingerprint": origin.index.counts.fingerprint if origin.index else None,
    }
    facts = {name: f"`{value}`" for name, value in values.items() if value is not None}
    for base in origin.bases:
        terms = base.licence or base.terms or "?"
        facts["바탕 모델 · base model"] = ", ".join(
            filter(None, (facts.get("바탕 모델 · base model"), f"`{base.name}` ({terms})"))
        )
    return {**facts, "이용 조건 · licence": f"`{licence}`" if licence else _FILL_IN}


def _score_line(score: CardScore) -> str:
    text = f"* {score.metric} **{score.value:.4f}**"
    if score.interval:
        text += f" (95 %: {score.interval[0]:.4f} – {score.interval[1]:.4f})"
    where = " ".join(filter(None, (score.dataset, score.split)))
    rows = f", {score.rows:,} 문항 · rows" if score.rows is not None else ""
    protocol = f", `{score.protocol}`" if score.protocol else ""
    return f"{text}: {where}{rows}{protocol}" + ("" if score.interval else "; 구간 없음 · no interval")


def _training_text(info: CheckpointInfo, origin: ModelOrigin) -> str:
    if origin.run is None:
        return "기록이 없습니다. There is no record of it."
    optim, profile = origin.run.recipe.optim, origin.run.profile
    rows = origin.index.counts.rows.get("train") if origin.index else None
    of_rows = f" · {rows:,} 문항 rows" if rows is not None else ""
    return (
        f"* {info.step} steps × {optim.global_batch}{of_rows}\n"
        f"* AdamW, lr {optim.lr:g}, weight decay {optim.weight_decay:g}\n"
        f"* {profile.strategy}, {profile.precision}, seed {origin.run.recipe.seed}"
    )


def _limits_text(step: Path, info: CheckpointInfo, origin: ModelOrigin) -> str:
    lines = [
        "* 틀릴 수 있습니다. 사람을 판단하거나 안전이 걸린 일에 그대로 쓰지 마세요. "
        "It can be wrong: do not use it as it is to judge people, or where safety depends on it.",
    ]
    if (step / "answers.txt").is_file():
        lines.append(
            "* `answers.txt`에 있는 답만 할 수 있습니다. It can give no answer but those in `answers.txt`."
        )
    if origin.is_of_aihub:
        lines.append(
            "* AI-Hub 데이터로 학습했습니다. 그 이용 조건(연구 목적, 출처 표시, 재배포 금지)을 따르세요. "
            f"{AIHUB_LIMIT}, whose terms (research, name the source, no redistribution) apply."
        )
    if any(base.is_non_commercial for base in origin.bases):
        lines.append(f"* 바탕 모델은 상업적으로 쓸 수 없습니다. {NON_COMMERCIAL_LIMIT}.")
    lines.append(
        "* 학습 데이터와 바탕 모델의 이용 조건은 이 모델에도 적용됩니다. "
        "The terms of the training data and of the base models apply to this model too."
    )
    return "\n".join(lines)


def _front_matter(
    name: str,
    step: Path,
    info: CheckpointInfo,
    origin: ModelOrigin,
    licence: str,
    scores: tuple[CardScore, ...],
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    pipeline = _TASKS[info.task][0]
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=hub_repository(score.dataset) or score.dataset or "unknown",
            dataset_name=score.dataset or "unknown",
            dataset_split=score.split,
            metric_type=score.metric.lower(),
            metric_value=round(score.value, 6),
            metric_name=score.metric,
            metric_args=_metric_args(score),
        )
        for score in scores
    ]
    bases = [base.repository for base in origin.bases if base.repository]
    data = ModelCardData(
        language=[language] if (language := _language(origin)) else None,
        license=licence or UNKNOWN_LICENCE,
        library_name="kovqa",
        pipeline_tag=pipeline,
        base_model=bases or None,
        datasets=origin.dataset_repositories or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _language(origin: ModelOrigin) -> str | None:
    """That of the data; None: nobody knows any more, as of a published checkpoint that was imported."""
    if origin.index is None:
        return None
    return "en" if origin.index.source in _ENGLISH_SOURCES else "ko"


def _metric_args(score: CardScore) -> dict[str, Any] | None:
    interval = {"low": score.interval[0], "high": score.interval[1]} if score.interval else {}
    rows = {"rows": score.rows} if score.rows is not None else {}
    protocol = {"protocol": score.protocol} if score.protocol else {}
    return {**rows, **protocol, **{key: round(value, 6) for key, value in interval.items()}} or None
