"""A model -> a folder that other libraries read, with a card that says what it is and how to load it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import SettingsError
from kovqa_core.export.verify_export import VerifyReport, verify_export
from kovqa_core.files import read_bytes, read_json, write_text
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info
from kovqa_core.models.closed_folder import require_closed_folder
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_found_step
from kovqa_core.settings import run
from kovqa_core.whole_folder import require_new_folder, write_new_folder

_TASK_TEXTS = {"vqa": ("visual-question-answering", "answers questions about images", "그림을 보고 질문에 답합니다"),
          "caption": ("image-to-text", "describes images", "그림을 문장으로 설명합니다")}  # fmt: skip
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
The terms of the training data and of the pretrained weights apply to this model too.

## 불러오기 · Loading

이 폴더 안에서 실행하세요. Run this inside the folder.

```python
{loading}```
"""


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        step: the checkpoint folder it was made of.
        folder: what was written.
        files: of the folder, relative to it, sorted.
        verified: what came out of the check, if it was asked for.
        notes: of the family.
        onnx_difference: the largest between logits of torch and of onnxruntime; None: nothing for onnxruntime.
    """

    step: Path
    folder: Path
    files: tuple[str, ...]
    verified: VerifyReport | None = None
    notes: tuple[str, ...] = ()
    onnx_difference: float | None = None


def export_checkpoint(
    model: Path,
    folder: Path,
    options: family.LoadOptions = family.DEFAULT_LOADING,
    *,
    as_upstream: bool = False,
    verify: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> ExportReport:
    """Write a model for other libraries, whole or not at all.

    Args:
        model: run folder (its best step) or step folder.
        folder: what to write; see `write_new_folder`.
        options: how the checkpoint is read.
        as_upstream: as the original's own training saves it.
        verify: see `verify_export`; where it fails, nothing is written.
        on_progress: called with notes.

    Raises:
        SettingsError: a folder that holds something else, or that another process writes; the family has no such form, or
            that form no check.
        ModelError: no model, a broken one, or one whose original saves something else; the check failed.
    """
    require_new_folder(folder, has_our_card)
    if verify and as_upstream:
        raise SettingsError(
            message(
                "export.upstream-not-verified",
                "--verify checks what other libraries read; --as-upstream is read by the original's own code, which is "
                "not here to be asked",
            ),
            message("export.upstream-not-verified.hint", "give one of the two"),
        )
    with hold_found_step(partial(find_model_folder, model, "")) as step:
        return _export_step(
            step, folder, options, as_upstream=as_upstream, verify=verify, on_progress=on_progress
        )


def _export_step(
    step: Path,
    folder: Path,
    options: family.LoadOptions,
    *,
    as_upstream: bool,
    verify: bool,
    on_progress: OnProgress,
) -> ExportReport:
    require_closed_folder(step)
    info = read_checkpoint_info(step)
    chosen = family.load_family(info.family)
    family.require_no_remote_code(info.family, options)
    write_files = chosen.export_upstream if as_upstream else chosen.export_model
    if write_files is None:
        raise SettingsError(
            message(
                "models.one-export-form",
                "{step} is of family {family}, which is exported in one form only",
                step=step,
                family=info.family,
            ),
            message("models.one-export-form.hint", "leave out --as-upstream"),
        )

    verified: list[VerifyReport] = []
    notes: list[str] = []

    def fill(partial_folder: Path) -> None:
        written = write_files(step, partial_folder, options)
        notes.extend(written.notes)
        write_text(partial_folder / "README.md", model_card(step, info, written.loading))
        if verify:
            verified.append(verify_export(step, partial_folder, options, on_progress))

    with output_lock(folder):
        require_new_folder(folder, has_our_card)
        write_new_folder(folder, fill, on_progress)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return ExportReport(step, folder, tuple(files), verified[0] if verified else None, tuple(notes))


def has_our_card(folder: Path) -> bool:
    """May what is in a folder be an export of ours?"""
    card = folder / "README.md"
    return card.is_file() and b"library_name: kovqa" in read_bytes(card)


def model_card(step: Path, info: CheckpointInfo, loading: str) -> str:
    """A model card in Korean and English.

    Args:
        step: the checkpoint folder.
        info: its `kovqa.json`.
        loading: Python that loads the exported files.
    """
    pipeline, english, korean = _TASK_TEXTS[info.task]
    answers_file = step / "answers.txt"  # a model that writes freely has none
    checkpoint = info.imported.get("checkpoint")
    facts = {
        "레시피 · recipe": info.recipe,
        "단계 · step": info.step,
        "검증 점수 · validation score": None if info.score is None else f"{info.score:.4f}",
        "원본 · imported from": checkpoint,
        "원본 SHA-256": info.imported.get("checkpoint_sha256"),
        "정답 수 · answers": len(read_answers(answers_file)) if answers_file.is_file() else None,
        "데이터 지문 · data fingerprint": _index_fingerprint(step),
    }
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in facts.items() if value is not None)
    return _CARD_TEMPLATE.format(
        pipeline=pipeline, english=english, korean=korean, family=info.family,
        name=info.recipe or checkpoint or info.family, rows=rows, loading=loading,
    )  # fmt: skip


def _index_fingerprint(step: Path) -> str | None:
    """Fingerprint of the index the model was trained on, where that index is still there."""
    run_file = step.parent / run.RUN_FILE
    index = run.read_run(run_file).recipe.data.index if run_file.is_file() else None
    index_file = Path(index) / "index.json" if index else None
    if index_file is None or not index_file.is_file():
        return None
    index_answers, model_answers = index_file.with_name("answers.txt"), step / "answers.txt"
    if model_answers.is_file() and (
        not index_answers.is_file() or index_answers.read_bytes() != model_answers.read_bytes()
    ):
        return None  # another index was written there since
    fingerprint: str | None = read_json(index_file).get("fingerprint")
    return fingerprint
