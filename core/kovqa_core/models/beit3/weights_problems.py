"""Why weights do not fit a BEiT-3, and what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

from torch import Tensor

from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.models.beit3.config import NAMED_DIMENSIONS, Reinit

_LAYER_NAME = re.compile(r"beit3\.encoder\.layers\.(\d+)\.")
_SHOWN = 3  # problems in one message

# What a model of a task has beside the body.
TASK_COMPONENTS: dict[str, tuple[Reinit, ...]] = {
    "vqa": ("pooler", "head"),
    "caption": ("mlm_head", "layer_norm"),
}


class WeightProblem(NamedTuple):
    """A weight under the original's name, and what is wrong with it: a sentence with the name."""

    name: str
    problem: Message


def missing_weight(name: str) -> WeightProblem:
    """The file has no such weight."""
    return WeightProblem(name, message("beit3.weight-missing", "{name} is missing", name=name))


def unknown_weight(name: str) -> WeightProblem:
    """The network has no such weight."""
    return WeightProblem(name, message("beit3.weight-unknown", "{name} is unknown", name=name))


def misshapen_weight(name: str, parts: Sequence[Tensor], wanted: Tensor) -> WeightProblem:
    """A weight, or the parts of one, of another shape than ours."""
    shapes = " + ".join(str(list(part.shape)) for part in parts)
    problem = message(
        "beit3.weight-shape", "{name} is {found}, wanted {wanted}",
        name=name, found=shapes, wanted=list(wanted.shape),
    )  # fmt: skip
    return WeightProblem(name, problem)


def component_name(original_name: str) -> str:
    """What `model.reinit` calls the component of a weight: the first part of its name, or the final norm."""
    if original_name.startswith("beit3.encoder.layer_norm."):
        return "layer_norm"
    return original_name.split(".")[0]


def require_reinit_of_task(reinit: Sequence[Reinit], task: str) -> None:
    """See that a model of this task has what is to be newly initialised.

    Raises:
        SettingsError: it has not.
    """
    components = TASK_COMPONENTS[task]
    foreign = [name for name in reinit if name not in components]
    if foreign:
        raise SettingsError(
            message(
                "beit3.reinit-of-other-task",
                "model.reinit names {foreign}, which a model for task {task} does not have",
                foreign=", ".join(foreign),
                task=task,
            ),
            message(
                "beit3.reinit-of-other-task.hint",
                "it has {components}: --set 'model.reinit=[{components}]' initialises them anew, "
                "'model.reinit=[]' takes them from the weights",
                components=", ".join(components),
            ),
        )


def unfitting_weights_error(
    name: str, problems: Sequence[WeightProblem], reinit: Sequence[str], original: Mapping[str, Tensor]
) -> ModelError:
    """The error of weights that do not fit, with what would make them fit.

    Args:
        name: of the weights.
        problems: all of them.
        reinit: what is initialised anew already.
        original: the weights, under the original's names.
    """
    return ModelError(
        message(
            "beit3.weights-do-not-fit",
            "{name} does not fit this model: {problems}",
            name=name,
            problems=_first_problems(problems),
        ),
        _remedy(problems, reinit, original),
    )


def _first_problems(problems: Sequence[WeightProblem]) -> Message:
    first = join_messages("; ", (each.problem for each in problems[:_SHOWN]))
    if len(problems) <= _SHOWN:
        return first
    return message(
        "beit3.more-problems", "{problems} and {more:,} more", problems=first, more=len(problems) - _SHOWN
    )


def _remedy(
    problems: Sequence[WeightProblem], reinit: Sequence[str], original: Mapping[str, Tensor]
) -> Message:
    components = {component_name(problem.name) for problem in problems}
    own = [c for c in get_args(Reinit) if c in {*components, *reinit}]
    anew = message(
        "beit3.weights-do-not-fit.hint",
        "to initialise anew what the file has for another task: --set 'model.reinit=[{components}]'",
        components=", ".join(own),
    )
    if components <= set(own):
        return anew
    if (dimensions := _describe_dimensions(original)) is None:
        return message(
            "beit3.weights-do-not-fit.other-hint",
            "is it a BEiT-3? Its weights have names such as {names}",
            names=", ".join(list(original)[:2]),
        )
    agree = message(
        "beit3.weights-do-not-fit.body-hint",
        "it is a model of {dimensions}; model.size, model.custom, model.patch_size and model.image_size must agree "
        "with it",
        dimensions=dimensions,
    )
    if set(own) <= set(reinit):
        return agree
    return message("beit3.weights-do-not-fit.both-hint", "{agree}; {anew}", agree=agree, anew=anew)


def _describe_dimensions(original: Mapping[str, Tensor]) -> Message | None:
    """Dimensions that shapes tell, by the name of the published model that has them; None: not a BEiT-3."""
    patches = original.get("beit3.vision_embed.proj.weight")
    ffn = original.get("beit3.encoder.layers.0.ffn.A.fc1.weight")
    if patches is None or ffn is None or patches.ndim < 2:
        return None
    layers = 1 + max(int(match[1]) for name in original if (match := _LAYER_NAME.match(name)))
    width, side = len(patches), int((patches[0].numel() / 3) ** 0.5)
    same = [
        name
        for name, (embed_dim, _, num_layers, ffn_dim) in NAMED_DIMENSIONS.items()
        if (embed_dim, num_layers, ffn_dim) == (width, layers, len(ffn))
    ]
    return message(
        "beit3.dimensions",
        "size {size} (width {width}, {layers} layers, feed-forward {ffn}) with patches of {side} pixels",
        size=same[0] if same else "custom",
        width=width,
        layers=layers,
        ffn=len(ffn),
        side=side,
    )
