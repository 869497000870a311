"""A model -> a folder that other libraries read, with a card that says what it is and how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import SettingsError
from kovqa_core.files import read_json, require_empty, write_folder, write_text
from kovqa_core.models import family
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings import run

_TASK_TEXTS = {"vqa": ("visual-question-answering", "answers questions about pictures", "그림을 보고 질문에 답합니다"),
          "caption": ("image-to-text", "describes pictures", "그림을 문장으로 설명합니다")}  # fmt: skip
_CARD_TEMPLATE = """\
---
language: ko
library_name: kovqa
pipeline_tag: {pipeline}
---

# {name}

이 모델은 {korean} (kovqa, `{family}`).
This model {english} (kovqa, `{family}`).

| | |
|---|---|
{rows}

학습 데이터와 사전학습 가중치의 이용 조건은 이 모델에도 적용됩니다.
The terms of the training data and of the pretrained weights hold for this model too.

## 불러오기 · Loading

이 폴더 안에서 실행하세요. Run this inside the folder.

```python
{loading}```
"""


def export_checkpoint(
    model: Path, folder: Path, as_upstream: bool = False, trust_remote_code: bool = False
) -> Path:
    """Write a model for other libraries, whole or not at all; the step folder it was made of.

    Args:
        model: run folder (its best step) or step folder.
        folder: what to write; must be empty or not exist.
        as_upstream: as the original's own training saves it.
        trust_remote_code: see `models.family.load`.

    Raises:
        SettingsError: a folder that holds something; the family has no such form.
        ModelError: no model, a broken one, or one whose original saves something else.
    """
    require_empty(folder)
    step = find_model_folder(model, "")
    about = family.describe_checkpoint(step)
    chosen = family.family_module(about["family"])
    if as_upstream and not hasattr(chosen, "export_upstream"):
        raise SettingsError(
            f"{step} is of family {about['family']}, which is exported in one form only",
            "leave --as-upstream away",
        )

    trust = family.trust_option(about["family"], trust_remote_code)

    def fill(part: Path) -> None:
        loading = (chosen.export_upstream if as_upstream else chosen.export_model)(step, part, **trust)
        write_text(part / "README.md", model_card(step, about, loading))

    write_folder(folder, fill)
    return step


def model_card(step: Path, about: dict[str, Any], loading: str) -> str:
    """A model card in Korean and English.

    Args:
        step: the step folder.
        about: its `kovqa.json`.
        loading: Python that loads the exported files.
    """
    pipeline, english, korean = _TASK_TEXTS[about["task"]]
    listed = step / "answers.txt"  # a model that writes freely has none
    imported = about.get("imported", {})
    score = about.get("score")
    facts = {
        "레시피 · recipe": about.get("recipe"),
        "단계 · step": about.get("step"),
        "검증 점수 · validation score": None if score is None else f"{score:.4f}",
        "원본 · imported from": imported.get("checkpoint"),
        "원본 SHA-256": imported.get("checkpoint_sha256"),
        "정답 수 · answers": len(read_answers(listed)) if listed.is_file() else None,
        "데이터 지문 · data fingerprint": _index_fingerprint(step),
    }
    rows = "\n".join(f"| {what} | `{value}` |" for what, value in facts.items() if value is not None)
    return _CARD_TEMPLATE.format(
        pipeline=pipeline, english=english, korean=korean, family=about["family"],
        name=about.get("recipe") or imported.get("checkpoint") or about["family"], rows=rows, loading=loading,
    )  # fmt: skip


def _index_fingerprint(step: Path) -> str | None:
    """Of the index the model was trained on, where that is still here."""
    file = step.parent / run.RUN_FILE
    index = run.read_run(file).recipe.data.index if file.is_file() else None
    about = Path(index) / "index.json" if index else None
    if about is None or not about.is_file():
        return None
    answers, own = about.with_name("answers.txt"), step / "answers.txt"
    if own.is_file() and (not answers.is_file() or answers.read_bytes() != own.read_bytes()):
        return None  # another index lies there by now
    return read_json(about).get("fingerprint")
