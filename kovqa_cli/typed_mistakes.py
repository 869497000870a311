"""What was probably meant by words that make no sense: other names of commands and settings, options and quotes left out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kovqa_core.messages import Message, message, shell_quote

# What people call commands that have another name here.
_OTHER_COMMANDS = {
    "학습": "train", "훈련": "train", "fit": "train", "finetune": "train", "fine-tune": "train", "run": "train",
    "예측": "predict", "추론": "predict", "질문": "predict", "infer": "predict", "inference": "predict",
    "ask": "predict", "answer": "predict", "캡션": "caption", "describe": "caption", "대화": "chat",
    "인덱스": "index", "데이터": "index", "dataset": "index", "prepare": "index", "preprocess": "index",
    "평가": "evaluate", "eval": "evaluate", "test": "evaluate", "score": "evaluate", "제출": "submit",
    "다운로드": "download", "fetch": "download", "get": "download", "토크나이저": "tokenizer", "모델": "models",
    "실행": "runs", "ls": "runs", "list": "runs", "레시피": "recipes", "프로필": "profiles", "ensemble": "vote",
    "앙상블": "vote", "서버": "serve", "server": "serve", "데모": "demo", "진단": "doctor", "check": "doctor",
    "delete": "rm", "remove": "rm", "삭제": "rm", "compare": "diff", "비교": "diff", "info": "show", "보기": "show",
}  # fmt: skip
# What other programs' training options are called in a recipe; the keys' own last parts need no line.
_OTHER_KEYS = {
    "learning-rate": "optim.lr", "batch-size": "optim.global_batch", "batch": "optim.global_batch",
    "num-epochs": "optim.epochs", "epoch": "optim.epochs", "max-steps": "optim.steps", "lora": "model.train",
    "bf16": "profile.precision", "fp16": "profile.precision", "num-workers": "profile.loader_workers",
    "workers": "profile.loader_workers",
}  # fmt: skip
_GPU_OPTIONS = ("--gpus", "--gpu", "--num-gpus", "--device", "--devices", "--nproc-per-node")


def near_commands(name: str, commands: Sequence[str]) -> list[str]:
    """Commands that may have been meant by a word."""
    other = _OTHER_COMMANDS.get(name.lower(), "")
    if other in commands:
        return [other]
    return difflib.get_close_matches(name.lower(), commands, n=3)


def command_hint(name: str, context: Any) -> Message | None:
    """The whole command, where a word stands in the place of a subcommand that takes it."""
    commands = context.command.commands
    known = (
        "show" in commands
        and context.info_name in ("recipes", "profiles")
        and _is_known(context.info_name, name)
    )
    if known or ("encode" in commands and Path(name).suffix):
        return message(
            "usage.no-such-command.hint", "{command} {subcommand} {word}",
            command=context.command_path, subcommand="show" if known else "train", word=shell_quote(name),
        )  # fmt: skip
    return None


def _is_known(kind: str, name: str) -> bool:
    from kovqa_core.paths import settings_files

    return name in settings_files(kind)


def near_options(option: str, context: Any) -> list[str]:
    """Options that may have been meant, the nearest first; those that are much further off are left out."""
    names = [name for name in _option_names(context) if name.startswith("--")]
    typed = option.lower().replace("_", "-")
    if typed in names:
        return [typed]
    starts = [name for name in names if name.startswith(typed) and len(typed) > 3]
    near = difflib.get_close_matches(typed, names, n=3, cutoff=0.7)
    best = max((_likeness(typed, name) for name in near), default=0)
    return list(dict.fromkeys([*starts, *(name for name in near if _likeness(typed, name) > best - 0.1)]))


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _option_names(context: Any) -> Iterator[str]:
    for parameter in context.command.params if context else ():
        yield from parameter.opts


def option_hint(option: str, context: Any) -> Message | None:
    """What to type in place of an option that there is not: a setting, or a profile."""
    if "--set" not in _option_names(context):
        return None
    if option in _GPU_OPTIONS and "--profile" in _option_names(context):
        return message(
            "usage.gpus-by-profile.hint", "the GPUs are those of a profile: {command} -p NAME (list them: kovqa profiles)",
            command=context.command_path,
        )  # fmt: skip
    key = _setting_key(option.lstrip("-"))
    if key is None:
        return None
    return message(
        "usage.setting-for-option.hint", "it is a setting: {command} --set {key}=VALUE",
        command=context.command_path, key=key,
    )  # fmt: skip


def _setting_key(name: str) -> str | None:
    from kovqa_cli.setting_completion import read_key_lines

    name = name.lower().replace("_", "-")
    if name in _OTHER_KEYS:
        return _OTHER_KEYS[name]
    keys = dict.fromkeys(line.key for line in read_key_lines())
    found = [key for key in keys if key.rpartition(".")[2].replace("_", "-") == name]
    found.sort(key=lambda key: (not key.startswith("optim."), key.startswith("profile."), len(key)))
    return found[0] if found else None


def extra_words_hint(words: str, context: Any) -> Message | None:
    """What to do with words that no option takes: quotes around a question, or the option that was left out."""
    from kovqa_core.data.image_formats import IMAGE_SUFFIXES

    command, options = context.command_path, set(_option_names(context))
    first = words.split()[0] if words.split() else ""
    question = context.params.get("question")
    if question and "--question" in options:
        return message(
            "usage.quote-question.hint", "a question of several words wants quotes: --question {question}",
            question=_quoted(f"{question} {words}"),
        )  # fmt: skip
    if (sets := context.params.get("sets")) and "=" not in sets[-1]:
        return message(
            "usage.setting-with-sign.hint", "write --set {key}={value}, without a blank",
            key=sets[-1], value=shell_quote(first),
        )  # fmt: skip
    if "--image" in options and words.lower().endswith(IMAGE_SUFFIXES):
        return message(
            "usage.image-by-option.hint", "an image is named with -i: {command} -i {image}",
            command=command, image=shell_quote(words),
        )  # fmt: skip
    if "--image" in options and first.lower().endswith(IMAGE_SUFFIXES):
        return message(
            "usage.image-and-question.hint", "name both: {command} -i {image} --question {question}",
            command=command, image=shell_quote(first), question=_quoted(words.partition(" ")[2]),
        )  # fmt: skip
    if "--root" in options and "--as-upstream" in options:  # kovqa index
        return message(
            "usage.root-by-option.hint", "the raw data is named with --root: {command} {source} --root {root}",
            command=command, source=context.params.get("source") or "SOURCE", root=shell_quote(words),
        )  # fmt: skip
    if "--recipe" in options and _is_recipe(words):
        return message(
            "usage.recipe-by-option.hint", "a recipe is named with -r: {command} -r {name}",
            command=command, name=shell_quote(words),
        )  # fmt: skip
    if (option := "--" + words) in options:
        return message("usage.dashes.hint", "did you mean {option}?", option=option)
    return None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _is_recipe(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or _is_known("recipes", name)
