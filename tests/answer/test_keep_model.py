"""Several tables that are answered alike need one load of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from kovqa_core.answer import local
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.data.decoding import DecodingOptions


def test_a_model_is_kept_until_another_way_to_answer_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[AnswerOptions] = []

    def load_model(options: AnswerOptions) -> local.LoadedModel:
        loads.append(options)
        return cast("local.LoadedModel", object())

    monkeypatch.setattr(local, "load_model", load_model)
    load = local.keep_last_model()
    free = AnswerOptions(Path("run"))
    letters = replace(free, decoding=DecodingOptions(choices=True))
    assert load(free) is load(replace(free, model=Path("run")))
    load(letters)
    load(letters)
    load(free)
    assert loads == [free, letters, free]
