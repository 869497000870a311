"""Korean captions of a drawn scene: its things in reading order, in three wordings."""

from __future__ import annotations

from kovqa_core.demo.questions import SHORT_COLOURS, KoreanNoun
from kovqa_core.demo.scenes import Scene, SceneObject

# {a} is the list of things; the verb's subject particle belongs to its last word.
CAPTION_WORDINGS = ("{a:이/가} 있습니다.", "그림에 {a:이/가} 있습니다.", "{a:이/가} 보입니다.")


def scene_captions(scene: Scene) -> list[str]:
    """All captions that are right: things named row by row from the top, each row from the left."""
    things = sorted(scene.things, key=lambda thing: (thing.row, thing.column))
    listed = KoreanNoun(_join_korean_list([_object_phrase(thing) for thing in things]))
    return [wording.format(a=listed) for wording in CAPTION_WORDINGS]


def _object_phrase(thing: SceneObject) -> str:
    return f"{SHORT_COLOURS.get(thing.colour, thing.colour)} {thing.shape}"


def _join_korean_list(names: list[str]) -> str:
    """ "가와 나", "가, 나, 다"."""
    if len(names) == 2:
        return f"{KoreanNoun(names[0]):와/과} {names[1]}"
    return ", ".join(names)
