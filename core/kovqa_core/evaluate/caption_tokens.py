"""Captions as tokens, before they are compared. Which rule was used stands beside every score.

* "english": near the Penn Treebank tokens that the usual caption toolkit (pycocoevalcap) has from a Java program:
  lower case; n't, 's, 'm, 'd, 're, 've, 'll are tokens of their own, and so are the
  halves of cannot, gonna, wanna, gotta, gimme, lemme, 'tis, 'twas; hyphens, apostrophes, points and slashes
  inside a word stay, colons only between digits (10:30, but word:word is two), commas inside a number; the point stays
  of u.s., of abbreviations (mr., ave., etc.) and of single letters, of no., pp. and the like before a number; 10:30am is
  two tokens. Signs ($ % & # + @ / * = …) and repeated marks (!!, ?!) are tokens; single marks are dropped. Brackets are
  tokens: the toolkit means to drop them, but its list has -LRB- and the Java program says -lrb-.
* "korean": NFC, lower case; every Hangul syllable is a token, and every run of other letters or digits;
  spaces and marks are dropped. Words between spaces would be too sparse (고양이가, 고양이는 and 고양이를 have
  nothing in common) and punish spacing that is free in Korean (서 있다, 서있다); morphemes need a
  dictionary whose version would change the scores. So an n-gram is n syllables: scores are higher than
  of words, and only comparable with scores of the same rule.
* "words": NFC, split at white space and nothing else: for text that was tokenised before.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable

from kovqa_core.errors import unknown_name_error
from kovqa_core.files import to_nfc
from kovqa_core.messages import message

# What is said of a rule where its scores are printed.
TOKEN_NOTES = {
    "english": message(
        "evaluate.english-tokens", "near the Penn Treebank tokens of pycocoevalcap, whose scores may differ a little"
    ),
    "korean": message("evaluate.korean-tokens", "each Hangul syllable is one, for CIDEr, BLEU and ROUGE alike"),
    "words": message("evaluate.word-tokens", "split at white space"),
}  # fmt: skip

# All below was found by running the toolkit's tokenizer (docs/sources/beit3.md, B48), not by reading a grammar.
_SPELLINGS = str.maketrans({
    "\u2019": "'", "\u2018": "'", "£": "#", "€": "$", "½": "1/2", "¼": "1/4", "¾": "3/4", "¢": " cents ", "\u2026": " ",
})  # fmt: skip
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# A space is set where a word is two tokens: before n't and the endings after an apostrophe, inside cannot and gonna.
_CLITIC_PATTERN = re.compile(
    r"(?<=[a-z])n't\b|(?<=[a-z0-9])'(?:s|m|d|re|ve|ll)\b|(?<=[a-z])'em\b|(?<=\bcan)not\b(?!-)"
    r"|(?<=\b(?:gon|wan))na\b(?!-)|(?<=\bgot)ta\b(?!-)|(?<=\b(?:gim|lem))me\b(?!-)|(?<='t)(?:is|was)\b"
    r"|(?<=\by')(?:all|know)\b|(?<=\bmore)'n\b|(?<=\brock)'n'(?=roll\b)",
    re.IGNORECASE,
)
# Abbreviations that keep their point: always, not in small letters, only before a number.
_ABBREVIATIONS = (
    "mr|mrs|ms|messrs|mme|mlle|dr|prof|rev|gen|col|sgt|capt|cmdr|lt|maj|gov|sen|rep|pres|hon|supt|insp|brig|adm|det|pvt"
    "|cpl|st|jr|sr|esq|ave|blvd|rd|ct|bldg|ste|sq|mt|ft|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu"
    "|thurs|fri|inc|corp|co|cos|ltd|plc|bros|assn|assoc|dept|univ|intl|etc|vs|al|est|cf|tel|ext|mo|ala|ariz|calif|colo|conn"
    "|fla|ga|ind|kan|ky|md|mich|minn|mont|neb|nev|okla|penn|tenn|va|vt|wis|wyo|mfg|alex|wm|jos|ph\\.d|rt|[a-z]"
)
_CAPITAL_ABBREVIATIONS = "Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|ARK|DEL|ILL|LA|MASS|MISS|ORE|PA|TEX|WASH"
_NUMBER_ABBREVIATIONS = "nos?|fig|pp|ca|op"
# In this order, for the first that fits wins.
_ENGLISH_PATTERN = re.compile(
    r"&(?:amp|lt|gt|quot|apos);|</?[a-z][^<>]*>|https?://\S*[^\s.,;:!?)]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    # n't; endings; the parts of 'tis, y'all, 'n', 'em; decades
    r"|n't\b|'(?:s|m|d|re|ve|ll)\b|'t(?= (?:is|was)\b)|\by'(?= (?:all|know)\b)"
    r"|'n'(?=roll\b)|'n'?(?![a-z'])|'(?:em|cause)\b|(?<!\w)'\d\ds?\b"
    # u.s., and abbreviations
    r"|(?<![\w.])(?:[a-z]\.){2,}(?!\w)"
    rf"|(?<![\w.'])(?:(?:{_ABBREVIATIONS})|(?-i:{_CAPITAL_ABBREVIATIONS}))\.(?!\w)"
    rf"|(?<![\w.'])(?:{_NUMBER_ABBREVIATIONS})\.(?=\s?\d|[,;:])"
    # A&W; 10:30 and 10.30 with am or pm behind them; .5
    r"|(?-i:(?<![\w&])[A-Z]+(?:&[A-Z]+)+(?![\w&]))|\d+[.:]\d+(?=[ap]m\b)|(?<![\w.])\.\d+"
    # A word with marks inside it: an apostrophe between letters, a comma or a colon between digits.
    r"|[@#]?[^\W\d_][^\W_]*(?:(?:[-./_]|(?<=[^\W\d])'(?=[^\W\d_]))[^\W_]+)*"
    r"|[^\W_]+(?:(?:[-./_]|(?<=\d)[,:](?=\d)|(?<=[^\W\d])'(?=[^\W\d_]))[^\W_]+)*"
    # Brackets; repeated marks; signs, of which a run of one is one token
    r"|[(){}\[\]]|[!?]{2,}|(\*|_|~)\1*|[$%&#+@/=<>^|\\¥°©®™•·]",
    re.IGNORECASE,
)
_HANGUL_PATTERN = re.compile(r"[\uac00-\ud7a3]")
# A syllable, or a run of letters and digits that are none; everything else falls away.
_KOREAN_PATTERN = re.compile(r"[\uac00-\ud7a3]|[^\W_\uac00-\ud7a3]+")


def english_tokens(text: str) -> list[str]:
    """Tokens of an English caption."""
    words = to_nfc(text).translate(_SPELLINGS).replace("\n", " ").split(" ")
    tokens: list[str] = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        # A point is all that may depend on the next word: no. 5, but no. of.
        before_number = word.endswith(".") and following[:1].isdigit()
        tokens += _english_word_tokens(word, before_number=before_number)
    return tokens


@functools.lru_cache(1 << 16)  # captions have few different words
def _english_word_tokens(word: str, *, before_number: bool) -> tuple[str, ...]:
    """Tokens of what stands between two blanks."""
    text = _CLITIC_PATTERN.sub(r" \g<0>", word)
    tokens = [match[0] for match in _ENGLISH_PATTERN.finditer(f"{text} 0" if before_number else text)]
    # Small letters at last: A&W is one token, a&w three.
    return tuple(
        _BRACKETS.get(token, _ENTITIES.get(token, token))
        for token in map(str.lower, tokens[: -1 if before_number else None])
    )


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
