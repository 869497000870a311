"""Korean particles, which follow the last sound of the word before them: 모델을, 이미지를, 3으로, batch로.

A catalogue writes both forms as Koreans do where the word is not known: `{name}을(를)`, `{name}(으)로`; here one is chosen.
"""

from __future__ import annotations

import re
from enum import Enum


class LastSound(Enum):
    """How a word ends when it is read aloud."""

    VOWEL = "vowel"
    RIEUL = "ㄹ"  # a consonant like others, but (으)로 counts it with the vowels
    CONSONANT = "consonant"


# Both forms, in the order after a consonant, after a vowel. (으) and (이) begin many: (으)로, (으)면, (이)나, (이)라는.
_PAIRS = {"을(를)": "을를", "이(가)": "이가", "은(는)": "은는", "과(와)": "과와"}
PARTICLE = re.compile(
    "|".join(re.escape(pair) for pair in _PAIRS) + r"|\(으\)(?=로)|\((?:으|이)\)(?=[가-힣])"
)

# What each digit, and each letter by its name, ends with: 영 일 이 삼 사 오 육 칠 팔 구; 에이 비 시 … 엘 엠 엔 … 아르.
# A number that ends in 0 is read 십, 백, 천, 만, 억: consonants all.
_CONSONANT_SIGNS, _RIEUL_SIGNS = frozenset("036MmNn"), frozenset("178Ll")
# Letters that end a word read as a word: "train", "batch", "model", "step".
_CONSONANT_ENDINGS = re.compile(r"(?:[mn]|ng|[aeiou](?:[pkb]|ck)|[aeou]t|[mn]e|ype)$", re.IGNORECASE)
_RIEUL_ENDINGS = re.compile(r"(?:l|le)$", re.IGNORECASE)
_VOWEL_WORDS = frozenset({"check", "float"})  # 체크, 플로트
# Units and signs that are read by a name of their own: 퍼센트, 기가바이트, 초.
_VOWEL_SIGNS = frozenset("%‰℃°")
_VOWEL_UNITS = frozenset({"kB", "MB", "GB", "TB", "KB", "KiB", "MiB", "GiB", "s", "ms", "h", "W"})
_CLOSING = "\"'`”’」』)]}>…·,;:!?"
_FIRST_HANGUL, _LAST_HANGUL, _FINALS, _RIEUL_FINAL = 0xAC00, 0xD7A3, 28, 8


def last_sound(text: str) -> LastSound | None:
    """How a text ends when it is read aloud; None where it has nothing that is read.

    Hangul by its last syllable, numbers by the last digit (or 십, 백, 천), Latin letters as a word where they have a
    vowel among small letters ("train" 트레인), else by the last letter's name ("PNG" 피엔지, "jpg" 제이피지). Quotes
    and what stands in brackets at the end are not read.
    """
    word = _last_word(text)
    if not word:
        return None
    sign = word[-1]
    if _FIRST_HANGUL <= ord(sign) <= _LAST_HANGUL:
        return _sound_of_final((ord(sign) - _FIRST_HANGUL) % _FINALS)
    if sign in _VOWEL_SIGNS or (re.search(r"[^A-Za-z]", word) and _unit(word) in _VOWEL_UNITS):
        return LastSound.VOWEL
    if sign.isdigit():
        return _sound_of_sign(sign)
    if not sign.isascii() or not sign.isalpha():
        return LastSound.VOWEL if sign.isalpha() else None
    letters = re.search(r"[A-Za-z]+$", word)
    return _sound_of_latin(letters[0] if letters else sign)


def choose_particle(particle: str, word: str) -> str:
    """One form of a particle that is written with both.

    Args:
        particle: as `PARTICLE` finds it: "을(를)", "(으)", …; of (으) and (이) the part in brackets alone.
        word: the text before it.

    Returns:
        The form; of a word that nobody can read, both, as they were.
    """
    sound = last_sound(word)
    if sound is None:
        return particle
    if particle in _PAIRS:
        return _PAIRS[particle][sound is LastSound.VOWEL]
    consonant = sound is LastSound.CONSONANT or (sound is LastSound.RIEUL and particle == "(이)")
    return particle.strip("()") if consonant else ""


def _last_word(text: str) -> str:
    """The last word of a text, without quotes, and without what stands in brackets behind it."""
    text = text.rstrip()
    shorter = re.sub(r"(?<=[^\s(])\s?\([^()]*\)$", "", text)
    text = (shorter or text).rstrip(_CLOSING + " ").rstrip("./_-*")
    return re.split(r"[\s/\\.,:=(\[{'\"`]", text)[-1] if text else ""


def _unit(word: str) -> str:
    return re.sub(r"^.*[^A-Za-z]", "", word)


def _sound_of_final(final: int) -> LastSound:
    if final == 0:
        return LastSound.VOWEL
    return LastSound.RIEUL if final == _RIEUL_FINAL else LastSound.CONSONANT


def _sound_of_sign(sign: str) -> LastSound:
    if sign in _RIEUL_SIGNS:
        return LastSound.RIEUL
    return LastSound.CONSONANT if sign in _CONSONANT_SIGNS else LastSound.VOWEL


def _sound_of_latin(word: str) -> LastSound:
    spelled = word.isupper() or len(word) == 1 or not re.search(r"[aeiouy]", word)
    if spelled:
        return _sound_of_sign(word[-1])
    if word.lower() in _VOWEL_WORDS:
        return LastSound.VOWEL
    if _RIEUL_ENDINGS.search(word):
        return LastSound.RIEUL
    return LastSound.CONSONANT if _CONSONANT_ENDINGS.search(word) else LastSound.VOWEL
