"""A Korean normal form for comparing answers: 한 개, 1개 and 하나 are one answer, 네 and 예 too.

The result is a key to compare, not a text to show. The rules, in this order:

1. `answers.normalise_answer` (NFC, lower case, single spaces); full-width letters, digits and marks (３, Ａ, ％)
   become ordinary ones. Marks are dropped, but for commas of a list (소, 개 is not
   소개), % and what stands between digits (3.5, 10:30, 1/2; the comma of 1,000 is dropped).
2. Particles are dropped, only where asked for: 은/는, 이/가, 을/를, 과/와 as the sound before demands and 의, where two
   syllables stay; 에, 에서, 에게, 부터, 까지, 으로, 입니다, 이에요, 예요, 이요. No dictionary is asked, so
   호랑이 becomes 호랑: on both sides of a comparison, but two answers may fall together.
3. 네 is 예, 아니오 and 아뇨 are 아니요, where they are the whole answer.
4. Numbers before a counter or unit become digits: native (한 개, 열두 마리, 스물네 살), Sino-Korean of
   several syllables (이십 명, 삼십오 분), both (백스무 명), digits with places (3만 5천 원). A single Sino-Korean
   syllable counts only before 층, 월 and 학년 (이 사람 is "this person"); 십, 백, 천, 만 also before a space
   (천 장: a thousand sheets; 천장: a ceiling).
5. A number that is the whole answer becomes digits: 하나, 열둘, 이십삼; not 이, 네 or 한, which are other
   words as well.
6. Counters that say no more than "so many" (개, 명, 마리, 장 …) are dropped; units (시, 층, 살, 원 …) stay, and
   세 is 살 (20세, 스무 살). 대 counts vehicles and machines (3대, 자동차 20대, 스무 대) but for an age group: 10, 20, … 90
   in digits or Sino-Korean where the answer begins (20대, 이십 대 여성, 십대). So 20대 for twenty cars is taken for an age.
7. Spaces beside Hangul are dropped: 노란 색 is 노란색.
"""

from __future__ import annotations

import re
from decimal import Decimal

from kovqa_core.data.answers import normalise_answer, normalise_vqav2

_ANSWER_SYNONYMS = {"네": "예", "아니오": "아니요", "아뇨": "아니요"}

_COUNTER_NOUNS = (
    "개|명|마리|대|장|권|그루|송이|자루|켤레|채|척|잔|병|그릇|사람|가지|벌|조각|쌍|줄|군데|다발|봉지|상자|접시"
    "|통|포기|캔|컵|곳|세트|박스|팩|묶음|알"
)
_NATIVE_UNITS = "시간|시|살|달|번째|번|칸|배"
_SINO_UNITS = (
    "층|학년|월|년|개월|주일|일|분|초|세|원|인분|미터|센티미터|킬로미터|킬로그램|그램|퍼센트|도|호|점|위"
)
_ALL_UNITS = f"{_COUNTER_NOUNS}|{_NATIVE_UNITS}|{_SINO_UNITS}"
_ONE_SYLLABLE = ("층", "학년", "월")
# Tropics, fever, household, cold zone, washing, bow, headache, all along: words that only look like a number and a
# counter.
_NON_NUMBER_WORDS = {"열대", "열병", "세대", "한대", "세척", "세배", "두통", "한통", "한알"}
_UNIT_SYNONYMS = {"세": "살"}
_NATIVE_TENS = "열 스물 서른 마흔 쉰 예순 일흔 여든 아흔"


def _up_to_99(ones: str) -> dict[str, int]:
    one = {word: n for n, word in enumerate(ones.split(), 1)}
    ten = {word: 10 * n for n, word in enumerate(_NATIVE_TENS.split(), 1)}
    return {**one, **ten, **{a + b: ten[a] + one[b] for a in ten for b in one}}


_NATIVE_ALONE = _up_to_99("하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉")
_NATIVE_BEFORE_UNIT = {**_up_to_99("한 두 세 네 다섯 여섯 일곱 여덟 아홉"), "스무": 20, "석": 3, "넉": 4}

_SINO_ONES, _SINO_PLACES = "일이삼사오육칠팔구", {"천": 1000, "백": 100, "십": 10}
# Each place may be missing, and so may its digit: 백 is 100. It matches the empty text too, so callers look for more.
_SINO_BELOW_10000 = "".join(f"(?:[{_SINO_ONES}]?{place})?" for place in _SINO_PLACES) + f"[{_SINO_ONES}]?"
_SINO_PATTERN = f"(?:{_SINO_BELOW_10000}만)?{_SINO_BELOW_10000}"
# Longest first: an alternation takes the first that fits, and 열 is the beginning of 열두.
_NATIVE_PATTERN = "|".join(sorted(_NATIVE_BEFORE_UNIT, key=len, reverse=True))
# A number at the beginning of a word, at most one space, a counter or unit; then the end of the word, or a particle
# or ending that closes it: 세 개를 counts, 세 개월 is not 세 개.
# A number stands alone or in a list: 사과 두 개, 배 세 개.
_NUMBER_BEGIN = r"(?<![^\s,])"
_NUMBER_END = r"(?=$|[\s,]|(?:[은는이가을를의도에와과]|씩|으로|정도)(?:$|[\s,]))"
_COUNTED_PATTERN = re.compile(
    rf"{_NUMBER_BEGIN}(\d+(?:\.\d+)?|{_NATIVE_PATTERN}|{_SINO_PATTERN})( ?)({_ALL_UNITS}){_NUMBER_END}"
)
# 백 before a native number: 백스무 명. Not 천 or 만: 천한 사람 is a lowly person.
_HUNDREDS_PATTERN = re.compile(
    rf"{_NUMBER_BEGIN}([이삼사오육칠팔구]?백) ?({_NATIVE_PATTERN})(?= ?(?:{_COUNTER_NOUNS}|{_NATIVE_UNITS}){_NUMBER_END})"
)
# Digits with places: 3만 5천 원, 2백 명; at least one place.
_PLACES_PATTERN = re.compile(
    _NUMBER_BEGIN
    + r"(?=\d+(?:\.\d+)?[만천백])(?:(\d+(?:\.\d+)?)([천백십]?)만 ?)?(?:(\d)천 ?)?(?:(\d)백 ?)?(\d+)?"
    rf"(?=$| ?(?:{_ALL_UNITS}){_NUMBER_END})"
)
# An age group, where the answer begins with it.
_AGE_GROUP_PATTERN = re.compile(rf"{_NUMBER_BEGIN}(?:([1-9])0|([{_SINO_ONES}]?)십) ?대{_NUMBER_END}")
# Three digits and no fourth: the comma of 1,000, not that of a list 1,2000.
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Marks that a number may hold (. / + : -) stay only between digits; % and commas stay, all others go.
_PUNCTUATION_MARKS = re.compile(r"(?<!\d)[./+:-]|[./+:-](?!\d)|[^\w\s%,./+:-]|_")
_LIST_COMMA = re.compile(r"\s*,[\s,]*")
_NUMBER_PATTERN = re.compile(rf"\d+(?:\.\d+)?(?:{_ALL_UNITS}|%)?")

# U+FF01 to U+FF5E are the ASCII characters ! to ~ in the width of a syllable. Not all that NFKC maps: it makes ½ of 1⁄2,
# and 3 of ³.
_FULL_WIDTH_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
# Of several syllables after any syllable; those of one only after two, for 가을 is autumn and not 가 with 을.
_POLITE_ENDINGS = re.compile(
    r"(?<=[가-힣])(?:입니다|이에요|예요|이요|에서|에게|에|부터|까지|으로)$|(?<=[가-힣]{2})(?:은|는|이|가|을|를|과|와|의)$"
)
_AFTER_CONSONANT, _AFTER_VOWEL = "은이을과", "는가를와"


def normalise_korean(answer: str, *, particles: bool = False) -> str:
    """The key under which Korean answers are the same; the rules stand at the top of this file.

    Args:
        answer: any text.
        particles: take particles and polite endings off (rule 2).
    """
    text = _THOUSANDS_COMMA.sub("", normalise_answer(answer.translate(_FULL_WIDTH_TO_ASCII)))
    text = _LIST_COMMA.sub(",", _PUNCTUATION_MARKS.sub(" ", text)).strip(" ,")
    words = [_strip_particle(word) for word in text.split()] if particles else text.split()
    text = " ".join(words)
    text = _ANSWER_SYNONYMS.get(text, text)
    text = _whole_number(text) or _counts_to_digits(text)
    # An answer of marks alone has an empty key: then its plain form, so that not all such answers are equal.
    return re.sub(r"(?<=[가-힣]) | (?=[가-힣])", "", text) or normalise_answer(answer)


def answer_type(answer: str) -> str:
    """ "yes/no", "number" (also with a counter or unit) or "other", as VQAv2 divides its questions."""
    key = normalise_korean(answer)
    if key in ("예", "아니요", "yes", "no"):
        return "yes/no"
    return "number" if _NUMBER_PATTERN.fullmatch(key) or normalise_vqav2(answer).isdigit() else "other"


def _strip_particle(word: str) -> str:
    """A word without its particle; a particle that the sound before it rules out is part of the word."""
    match = _POLITE_ENDINGS.search(word)
    if not match:
        return word
    stem, ending = word[: match.start()], match[0]
    # Hangul syllables lie in Unicode by initial, vowel, final: 28 to a vowel, the first without a final.
    closed = (ord(stem[-1]) - ord("가")) % 28 > 0  # the syllable has a final consonant
    fits = ending not in (_AFTER_VOWEL if closed else _AFTER_CONSONANT)
    return stem if fits else word


def _whole_number(text: str) -> str:
    if text in _NATIVE_ALONE:
        return str(_NATIVE_ALONE[text])
    return str(_parse_sino_number(text)) if "십" in text and re.fullmatch(_SINO_PATTERN, text) else ""


def _counts_to_digits(text: str) -> str:
    """Numbers before counters and units as digits."""
    if not _AGE_GROUP_PATTERN.match(text):
        return _counts_to_digits_between(text)
    converted, end = "", 0
    # What begins with an age group may name others (20대와 30대), and count things between them.
    for match in _AGE_GROUP_PATTERN.finditer(text):
        tens = match[1] or str(_SINO_ONES.index(match[2]) + 1 if match[2] else 1)
        converted += f"{_counts_to_digits_between(text[end : match.start()])}{tens}0대"
        end = match.end()
    return converted + _counts_to_digits_between(text[end:])


def _counts_to_digits_between(text: str) -> str:
    text = _HUNDREDS_PATTERN.sub(
        lambda match: str(_parse_sino_number(match[1]) + _NATIVE_BEFORE_UNIT[match[2]]), text
    )
    text = _PLACES_PATTERN.sub(_places_to_digits, text)
    return _COUNTED_PATTERN.sub(_number_to_digits, text)


def _places_to_digits(match: re.Match[str]) -> str:
    """3만 5천 -> 35000."""
    ten_thousands, times, thousands, hundreds, ones = match.groups("0")
    value = Decimal(ten_thousands) * _SINO_PLACES.get(times, 1) * 10_000
    value += int(thousands) * 1000 + int(hundreds) * 100 + int(ones)
    return str(int(value)) if value == int(value) else match[0]


def _number_to_digits(match: re.Match[str]) -> str:
    number, space, unit = match.groups()
    native = number in _NATIVE_BEFORE_UNIT
    if number[:1].isdigit():
        value = number
    # Native numbers count things and hours, never Sino-Korean units: 세 원 is no number.
    elif native and unit not in _SINO_UNITS.split("|") and (space or number + unit not in _NON_NUMBER_WORDS):
        value = str(_NATIVE_BEFORE_UNIT[number])
    elif (
        number
        and not native
        and (len(number) > 1 or unit in _ONE_SYLLABLE or (space and number in "십백천만"))
    ):
        value = str(_parse_sino_number(number))
    else:
        return match[0]
    return value + ("" if unit in _COUNTER_NOUNS.split("|") else _UNIT_SYNONYMS.get(unit, unit))


def _parse_sino_number(text: str) -> int:
    """이만삼천오백 -> 23500."""
    # 만 alone is 10,000: a digit before it may be missing.
    *high, low = text.split("만")
    return sum(10_000 * (_parse_below_10000(digits) or 1) for digits in high) + _parse_below_10000(low)


def _parse_below_10000(text: str) -> int:
    total, one = 0, 0
    for letter in text:
        if letter in _SINO_PLACES:
            total, one = total + (one or 1) * _SINO_PLACES[letter], 0
        else:
            one = _SINO_ONES.index(letter) + 1
    return total + one
