"""A chat template is a program of somebody else: whatever it does, its rendering ends, in one line."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import KovqaError, ModelError
from kovqa_core.models import family
from kovqa_core.models.vlm import base, template_bounds
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.template_checks import require_image_chat

# Each ends by itself, within a second: what is bounded here are the bounds.
_LOOPS = "{% for a in range(900) %}{% for b in range(900) %}BODY{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (_LOOPS.replace("BODY", ""), "does not end within"),
        (_LOOPS.replace("BODY", "{% set c = a %}"), "does not end within"),
        (
            "{% macro g(n) %}{% if n %}{{ g(n - 1) }}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(15) }}",
            "does not end within",
        ),
        ("{% for m in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion|does not end"),
        ("{% for a in range(99) %}twelve letters{% endfor %}", "writes"),
        ("{{ 2 ** 17 }}", r"\*\*"),
        ("{{ 2 ** 0.5 ** -17 }}", r"\*\*"),
        ("{{ 'x' * 99 * 99 }}", r"\*"),
        ("{{ 99 * 99 * [1] }}", r"\*"),
        ("{{ 'x' * 1000000 }}", "number"),
        ("{{ '%*d' % (99, 1) }}", "%"),
        ("{{ '{:1000000}'.format(1) }}", "number"),
        ("{{ 'x' | center(1_000_000) }}", "number"),
    ],
)
def test_a_template_ends(
    template: str, said: str, tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "end" in said:
        monkeypatch.setattr(template_bounds, "MAX_SECONDS", 0.01)
    monkeypatch.setattr(template_bounds, "MAX_LENGTH", 1000)
    before = signal.getsignal(signal.SIGALRM)
    folder = tmp_path / "model"
    shutil.copytree(tiny_vlm("llava"), folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    processor = base.load_hf_processor(folder, ModelConfig(base=str(folder)))
    with pytest.raises(ModelError, match=said) as refused:
        require_image_chat(processor)
    assert "\n" not in refused.value.message
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_error_names_the_folder(tiny_vlm: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_vlm("llava"), folder)
    (folder / "chat_template.jinja").write_text("{{ 2 ** 17 }}", encoding="utf-8")
    with pytest.raises(KovqaError) as refused:
        family.read_model_folder(folder, "vqa")
    assert str(folder) in refused.value.message


def test_what_templates_do_is_allowed() -> None:
    source = "{{ '  ' * 4 }}{{ 7 % 2 }}{{ 2 ** 3 }}{{ [1] * 2 }}{{ 3 * 0.5 }}{{ '2024-07-26' }}"
    assert (
        template_bounds.BoundedEnvironment().from_string(source).render() == "        18[1, 1]1.52024-07-26"
    )
