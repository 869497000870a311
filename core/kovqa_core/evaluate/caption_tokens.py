"""Captions as tokens, before they are compared. Which rule was used stands beside every score.

* "english": close to the Penn Treebank tokens of the usual caption toolkit, without its Java program:
  lower case; n't, 's, 'm, 'd, 're, 've, 'll and the not of cannot are tokens of their own; hyphens,
  apostrophes, points, slashes and colons inside a word stay, commas inside a number, and the point
  of u.s., mr., etc.; $, %, &, # and + are tokens; other marks are dropped, brackets too (the toolkit means to
  drop them, but leaves -lrb- and -rrb- behind).
* "korean": NFC, lower case; every Hangul syllable is a token, and every run of other letters or digits;
  spaces and marks are dropped. Words between spaces would be too sparse (고양이가, 고양이는 and 고양이를 have
  nothing in common) and punish spacing that is free in Korean (서 있다, 서있다); morphemes need a
  dictionary whose version would change the scores. So an n-gram is n syllables: scores are higher than
  of words, and only comparable with scores of the same rule.
* "words": NFC, split at white space and nothing else: for text that was tokenised before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from kovqa_core.errors import unknown_name_error
from kovqa_core.files import to_nfc
from kovqa_core.messages import message

# A space is set before n't, the not of cannot, and the endings after an apostrophe: they become tokens below.
_CLITIC_PATTERN = re.compile(r"(?<=[a-z])n't\b|(?<=\bcan)not\b|(?<=[a-z0-9])'(?:s|m|d|re|ve|ll)\b")
# In this order, for the first that fits wins: n't; an ending; letters with points (u.s.); abbreviations with their point;
# a word with marks inside it, of which a comma stays only after a digit; the signs that are tokens.
_ENGLISH_PATTERN = re.compile(
    r"n't|'(?:s|m|d|re|ve|ll)\b|(?:[a-z]\.){2,}(?![a-z])|\b(?:mr|mrs|ms|dr|st|jr|etc)\.|[^\W_]+(?:[-'./:,](?<!\D,)[^\W_]+)*|[$%&#+]"
)
_HANGUL_PATTERN = re.compile(r"[\uac00-\ud7a3]")
# A syllable, or a run of letters and digits that are none; everything else falls away.
_KOREAN_PATTERN = re.compile(r"[\uac00-\ud7a3]|[^\W_\uac00-\ud7a3]+")


def english_tokens(text: str) -> list[str]:
    """Tokens of an English caption."""
    # The curly apostrophe of typesetters is an apostrophe.
    plain = to_nfc(text).lower().replace("\u2019", "'")
    return _ENGLISH_PATTERN.findall(_CLITIC_PATTERN.sub(r" \g<0>", plain))


def korean_tokens(text: str) -> list[str]:
    """Tokens of a Korean caption."""
    return _KOREAN_PATTERN.findall(to_nfc(text).lower())


def whitespace_tokens(text: str) -> list[str]:
    """Tokens of a caption that was tokenised before."""
    return to_nfc(text).split()


CAPTION_TOKENISERS: dict[str, Callable[[str], list[str]]] = {
    "english": english_tokens,
    "korean": korean_tokens,
    "words": whitespace_tokens,
}


def choose_tokeniser(name: str, references: Iterable[str]) -> str:
    """The rule for a set of captions: the one named, or for "auto" Korean where Hangul prevails.

    Raises:
        SettingsError: an unknown rule.
    """
    if name == "auto":
        text = to_nfc("".join(references))
        hangul = len(_HANGUL_PATTERN.findall(text))
        # Of the letters alone: digits, spaces and marks belong to either language.
        return "korean" if 2 * hangul > sum(map(str.isalpha, text)) else "english"
    if name not in CAPTION_TOKENISERS:
        raise unknown_name_error(
            message("evaluate.unknown-token-rule", "unknown rule for tokens '{name}'", name=name),
            name,
            ["auto", *CAPTION_TOKENISERS],
        )
    return name
