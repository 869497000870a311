"""What a sweep varies: `--grid optim.lr=1e-5,3e-5` and `--seeds 3`, as points with readable names."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.settings.strict_yaml import parse_yaml

_SEED_KEY = "seed"
_MAX_SEEDS, _MAX_POINTS = 100, 1000
_MAX_NAME_LETTERS = 100
_BRACKETS = {"[": "]", "{": "}", '"': '"', "'": "'"}


@dataclass(frozen=True)
class GridAxis:
    """A setting that varies, and its values as they were typed."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SweepGrid:
    """What varies; without seeds each point has the recipe's own."""

    axes: tuple[GridAxis, ...]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep.

    Attributes:
        name: of its folder, like `lr=1e-5,seed=0`.
        values: key of each axis -> its value here.
        seed: None: the recipe's own.
    """

    name: str
    values: Mapping[str, str]
    seed: int | None

    @property
    def assignments(self) -> list[str]:
        """Its settings as `--set` takes them."""
        seed = [] if self.seed is None else [f"{_SEED_KEY}={self.seed}"]
        return [*(f"{key}={value}" for key, value in self.values.items()), *seed]


def parse_grid(grid: Sequence[str], seeds: str | None, sets: Sequence[str] = ()) -> SweepGrid:
    """The grid of what was typed.

    Args:
        grid: `key=value,value` texts.
        seeds: a number of seeds, or seeds with commas between them; None: the recipe's own.
        sets: `a.b=c` texts, which must not name what varies.

    Raises:
        SettingsError: it is not a grid, or gives something twice.
    """
    axes = tuple(map(_parse_axis, grid))
    keys = Counter(axis.key for axis in axes) + Counter(text.partition("=")[0].strip() for text in set(sets))
    for axis in axes:
        if axis.key == _SEED_KEY:
            raise SettingsError(
                message("sweep.seed-in-grid", "--grid {key}: scores are averaged over seeds", key=axis.key),
                message("sweep.seed-in-grid.hint", "give them by --seeds 1,5,9, or how many: --seeds 3"),
            )
        if keys[axis.key] > 1:
            raise SettingsError(
                message("sweep.key-twice", "{key} is given twice, by --grid and again", key=axis.key),
                message("sweep.key-twice.hint", "give all its values in one --grid"),
            )
    if not axes and seeds is None:
        raise SettingsError(
            message("sweep.nothing-varies", "nothing varies"),
            message("sweep.nothing-varies.hint", "give --grid optim.lr=1e-5,3e-5, or --seeds 3, or both"),
        )
    return SweepGrid(axes, () if seeds is None else _parse_seeds(seeds))


def _parse_axis(text: str) -> GridAxis:
    key, sign, values = text.partition("=")
    texts = [each.strip() for each in _split_values(values)]
    if not sign or not key.strip() or not all(texts):
        raise SettingsError(
            message("sweep.not-an-axis", "--grid {text}: expected KEY=VALUE,VALUE", text=text),
            message("sweep.not-an-axis.hint", "for example --grid optim.lr=1e-5,3e-5"),
        )
    seen: list[object] = []
    for each in texts:
        value = parse_yaml(f"value: {each}", f"--grid {key}={each}").values["value"]
        if value in seen:
            raise SettingsError(
                message("sweep.value-twice", "--grid {text}: {value} is there twice", text=text, value=each)
            )
        seen.append(value)
    return GridAxis(key.strip(), tuple(texts))


def _split_values(text: str) -> list[str]:
    """Values with commas between them; a comma in brackets or quotes is part of a value."""
    values, inside = [""], list[str]()
    for letter in text:
        if inside and letter == inside[-1]:
            inside.pop()
        elif letter in _BRACKETS and not (inside and inside[-1] in "'\""):
            inside.append(_BRACKETS[letter])
        if letter == "," and not inside:
            values.append("")
        else:
            values[-1] += letter
    return values


def _parse_seeds(text: str) -> tuple[int, ...]:
    """`3`: the seeds 0, 1 and 2; `1,5,9` are themselves, and so is `7,`.

    Raises:
        SettingsError: neither.
    """
    hint = message("sweep.bad-seeds.hint", "how many (--seeds 3: 0, 1 and 2), or which (--seeds 1,5,9)")
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*,?\s*", text, re.ASCII):
        raise SettingsError(message("sweep.bad-seeds", "--seeds {text}: expected numbers", text=text), hint)
    numbers = [int(each) for each in text.split(",") if each.strip()]
    if "," not in text:
        numbers = list(range(numbers[0])) if numbers[0] <= _MAX_SEEDS else []
    if not numbers or len(numbers) > _MAX_SEEDS or len(set(numbers)) < len(numbers):
        problem = message(
            "sweep.seeds-out-of-range", "--seeds {text}: 1 to {most}, each once", text=text, most=_MAX_SEEDS
        )
        raise SettingsError(problem, hint)  # fmt: skip
    return tuple(numbers)


# ------------------------------------------------------------------------------------- points


def grid_points(grid: SweepGrid) -> list[SweepPoint]:
    """All points of a grid, the seeds of one setting beside each other.

    Raises:
        SettingsError: far too many.
    """
    names, seeds = axis_names(grid), grid.seeds or (None,)
    count = len(seeds)
    for axis in grid.axes:
        count *= len(axis.values)
    if count > _MAX_POINTS:
        raise SettingsError(
            message("sweep.too-many-points", "{count:,} runs are more than {most:,}", count=count, most=_MAX_POINTS),
            message("sweep.too-many-points.hint", "vary less at once"),
        )  # fmt: skip
    points: list[SweepPoint] = []
    taken: Counter[str] = Counter()
    for values in itertools.product(*(axis.values for axis in grid.axes)):
        for seed in seeds:
            parts = [f"{name}={_name_part(value)}" for name, value in zip(names, values, strict=True)]
            name = _short_name(",".join([*parts, *([] if seed is None else [f"seed={seed}"])]))
            taken[name] += 1
            name = name if taken[name] == 1 else f"{name}-{taken[name]}"
            keys = [axis.key for axis in grid.axes]
            points.append(SweepPoint(name, dict(zip(keys, values, strict=True)), seed))
    return points


def axis_names(grid: SweepGrid) -> list[str]:
    """A short name of each axis: the last word of its key, where no other axis has it."""
    lasts = Counter(axis.key.rpartition(".")[2] for axis in grid.axes)
    return [last if lasts[last := axis.key.rpartition(".")[2]] == 1 else axis.key for axis in grid.axes]


def _name_part(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", value).strip("-") or "-"


def _short_name(name: str) -> str:
    if len(name) <= _MAX_NAME_LETTERS:
        return name
    return f"{name[:_MAX_NAME_LETTERS]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
