"""What is wrong with a base model's chat template or its special tokens is said before its weights are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.vlm import base, template_checks
from kovqa_core.runs.events import EVENTS_VARIABLE, WarningEvent, parse_event

from tests.conftest import Small
from tests.models.vlm.test_chat_template import load_processor
from tests.models.vlm.test_vlm import tiny_vlm_recipe
from tests.models.vlm.tiny_vlm import MODEL_TYPES, VICUNA, chatml

_TURN = "{% for message in messages %}<|im_start|>{{ message.role }}\n"
_END = "<|im_end|>\n{% endfor %}"
_PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TEXTS = "{{ message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}"
QWEN = chatml("<|vision_start|><|image_pad|><|vision_end|>")


@pytest.fixture
def variant(tiny_vlm: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tiny model with another template, or with other fields in one of its JSON files."""

    def make(model_type: str, template: str | None = None, **changes: dict[str, object]) -> Path:
        folder = tmp_path / "variant"
        shutil.copytree(tiny_vlm(model_type), folder)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        for name, fields in changes.items():
            file = folder / f"{name}.json"
            settings = json.loads(file.read_text(encoding="utf-8")) | fields
            file.write_text(
                json.dumps({k: v for k, v in settings.items() if v is not None}), encoding="utf-8"
            )
        return folder

    return make


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_templates_of_published_models_pass(model_type: str, tiny_vlm: Callable[[str], Path]) -> None:
    processor = load_processor(tiny_vlm, model_type)
    template_checks.require_image_chat(processor.hf)
    template_checks.require_learnable_answers(processor.hf, processor.eos_token_ids)
    assert template_checks.date_warning(processor.hf) is None


@pytest.mark.parametrize(
    ("template", "error"),
    [
        # a turn's content taken for a text: printed as a list, joined to one, cut like one
        (_TURN + "{{ message.content }}" + _END + _PROMPT, "takes a turn's content for a plain text"),
        (_TURN + "{{ message.content | tojson }}" + _END + _PROMPT, "takes a turn's content for a plain text"),
        (_TURN + "{{ message.content + '' }}" + _END + _PROMPT, "cannot write a chat .*concatenate"),
        # no image: forgotten, of another kind
        (_TURN + _TEXTS + _END + _PROMPT, "writes no placeholder for the image"),
        (QWEN.replace("== 'image'", "== 'picture'").replace("part.text", "part.text or ''"), "no placeholder for the image"),
        # a placeholder of neither model's
        (QWEN.replace("<|image_pad|>", "<img>"), "processor cannot read a chat of an image"),
        (QWEN.replace("part.text", "part.text | upper"), "writes the question"),
        # programs that fail
        (QWEN + "{{ raise_exception('roles must alternate') }}", r"cannot write a chat .*roles must alternate"),
        ("{% for message in messages %}", "cannot write a chat"),
        ("", "has no chat template"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "llava"])
def test_a_template_that_takes_no_image_is_refused(
    model_type: str, template: str, error: str, tiny_vlm: Callable[[str], Path]
) -> None:
    processor = load_processor(tiny_vlm, model_type)
    processor.hf.chat_template = processor.hf.tokenizer.chat_template = template
    with pytest.raises(ModelError, match=error):
        template_checks.require_image_chat(processor.hf)


def changed_answer(change: str) -> str:
    """A template that writes an answer otherwise than it is, and a question as it is."""
    return QWEN.replace("part.text", f"(part.text if message.role == 'user' else {change})")


@pytest.mark.parametrize(
    ("template", "error"),
    [
        (
            QWEN.replace("{% if add_generation_prompt %}", "{% if false %}"),
            r"does not end a prompt with '<\|im_start\|>assistant\\n'",
        ),
        (QWEN.replace("<|im_start|>assistant\n{% endif %}", "{% endif %}"), "does not end a prompt with"),
        (changed_answer("part.text | upper"), "writes the answer 'Ab 12 가나' as 'AB 12 가나"),
        (changed_answer("part.text | replace(' ', '')"), "writes the answer 'Ab 12 가나' as 'Ab12가나"),
        (changed_answer("part.text[:3]"), "writes the answer 'Ab 12 가나' as 'Ab <"),
        (changed_answer("''"), "writes the answer 'Ab 12 가나' as '<"),
        (QWEN.replace("<|im_end|>\n", "\n"), "ends an answer with none of"),
    ],
)
def test_a_template_whose_answers_cannot_be_learned_is_refused(
    template: str, error: str, tiny_vlm: Callable[[str], Path]
) -> None:
    processor = load_processor(tiny_vlm, "qwen2_5_vl")
    processor.hf.chat_template = template
    template_checks.require_image_chat(processor.hf)
    with pytest.raises(ModelError, match=error):
        template_checks.require_learnable_answers(processor.hf, processor.eos_token_ids)


@pytest.mark.parametrize(
    "date",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% if strftime_now is defined %}{% set d = strftime_now('%Y') %}{{ d }}{% endif %}",
    ],
)
def test_a_template_that_writes_the_date_is_said_by_training_and_answering(
    date: str,
    variant: Callable[..., Path],
    small: Small,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = variant("llava", f"Today: {date}. {VICUNA}")
    monkeypatch.setenv(EVENTS_VARIABLE, "1")
    family.create_model(tiny_vlm_recipe(small, folder), [])
    [event] = filter(None, map(parse_event, capsys.readouterr().out.splitlines()))
    assert isinstance(event, WarningEvent) and "today's date into every prompt" in event.note
    monkeypatch.delenv(EVENTS_VARIABLE)
    family.read_model_folder(folder, "vqa")
    output = capsys.readouterr()
    assert not output.out and output.err.count("today's date") == 1


def test_a_date_that_is_computed_and_not_written_is_no_matter(tiny_vlm: Callable[[str], Path]) -> None:
    processor = load_processor(tiny_vlm, "llava")
    processor.hf.chat_template = "{% set day = strftime_now('%Y') %}" + VICUNA
    assert template_checks.date_warning(processor.hf) is None


def test_training_refuses_a_template_before_the_weights_are_read(
    variant: Callable[..., Path], small: Small
) -> None:
    folder = variant("llava", VICUNA.replace("<image>\n", ""))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="no placeholder for the image"):
        family.create_model(tiny_vlm_recipe(small, folder), [])
    with pytest.raises(ModelError, match="no placeholder for the image"):
        family.read_model_folder(folder, "vqa")


def test_training_refuses_a_role_that_would_be_learned_and_answering_takes_it(
    variant: Callable[..., Path], small: Small
) -> None:
    """A model that learned it still answers."""
    folder = variant("llava", VICUNA.replace("{% if add_generation_prompt %}ASSISTANT:{% endif %}", ""))
    with pytest.raises(ModelError, match="does not end a prompt with 'ASSISTANT: '"):
        family.create_model(tiny_vlm_recipe(small, folder), [])
    family.read_model_folder(folder, "vqa")


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "llava", "gemma3"])
def test_a_tokenizer_without_a_pad_token_learns_and_answers(
    model_type: str, variant: Callable[..., Path], tiny_vlm: Callable[[str], Path], small: Small
) -> None:
    """The same losses and answers as with one, for places of padding do not count."""
    folder = variant(
        model_type, tokenizer_config={"pad_token": None}, generation_config={"pad_token_id": None}
    )
    index = open_index(small.index)
    examples = sorted(index.split("train"), key=lambda example: len(example.question))
    results = []
    for each in (folder, tiny_vlm(model_type)):
        model, processor, _ = family.create_model(tiny_vlm_recipe(small, each), [])
        rng = np.random.default_rng(0)
        learn, ask = (
            processor.collate(
                [processor.encode(e, index.images, train=train, rng=rng) for e in (examples[0], examples[-1])]
            )
            for train in (True, False)
        )
        with torch.inference_mode():
            results.append((float(model.eval()(learn, 0)["loss"]), [a.text for a in model.answer(ask)]))
    assert results[0] == results[1]
    hf = base.load_hf_processor(folder, model.config)  # type: ignore[arg-type]
    assert hf.tokenizer.pad_token_id is None, "else there was nothing to mend"


def test_a_model_without_an_end_token_is_refused(variant: Callable[..., Path], small: Small) -> None:
    folder = variant(
        "qwen2_5_vl", tokenizer_config={"eos_token": None}, generation_config={"eos_token_id": None}
    )
    with pytest.raises(ModelError, match="names a token that ends an answer"):
        family.create_model(tiny_vlm_recipe(small, folder), [])
    with pytest.raises(ModelError, match="names a token that ends an answer"):
        family.read_model_folder(folder, "vqa")


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "llava"])
def test_answers_are_learned_with_their_letters(
    model_type: str, tiny_vlm: Callable[[str], Path], small: Small
) -> None:
    processor = load_processor(tiny_vlm, model_type)
    index = open_index(small.index)
    example = next(iter(index.split("val")))
    changed = type(example)(example.id, example.image, example.question, {"IS USx": 1.0, "is": 0.3})
    item = processor.encode(changed, index.images, train=True, rng=np.random.default_rng(0))
    assert item.answer is not None
    assert processor.hf.tokenizer.decode(item.answer.ids).strip().startswith("IS USx<")
