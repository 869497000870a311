"""Markup to plain lines: every construct, and none that eats a page or hangs."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from kovqa_core.tokenizer.wikitext import MAX_LINE_CHARS, MIN_HANGUL_SHARE, plain_lines

# Markup -> the lines wanted of it.
CONSTRUCTS = {
    "a template": ("앞말은 {{국기|대한민국}}이다.", ["앞말은 이다."]),
    "nested templates": ("{{정보상자\n|직업={{목록|\n* {{작은|가수}}\n}}\n|값={ㄱ}\n}}\n본문이다.", ["본문이다."]),
    "a parameter": ("본문 {{{1|기본 {{값}}}}}이다.", ["본문 이다."]),
    "a template named by a parameter": ("본문 {{{{{이름}}}|값}}이다.", ["본문 이다."]),
    "a table": ('위.\n{| class="wikitable"\n! 머리\n|-\n| 칸 || [[칸]]\n|}\n아래.', ["위.", "아래."]),
    "a table in a table": ("위.\n{|\n| 칸\n{|\n| 속\n|}\n| 칸\n|}\n아래.", ["위.", "아래."]),
    "a table in a template": ("{{접기|\n{|\n| 칸\n|}}}\n아래.", ["아래."]),
    "notes": (
        '본문<ref>[[신문]], {{인용|a}}</ref>이다.<ref name="이름" />\n<references />',
        ["본문이다."],
    ),
    "a list of notes": ("본문.\n<references>\n<ref name=a>책</ref>\n</references>", ["본문."]),
    "a note in capitals": ("본문<REF>신문</Ref >이다.", ["본문이다."]),
    "comments": ("본문<!-- [[가]] {{ -->이다.<!--\n숨은 줄\n-->", ["본문이다."]),
    "a picture": ("[[파일:가.jpg|섬네일|오른쪽|200px|[[서울]]의 [[지도|옛 지도]]]]본문이다.", ["본문이다."]),
    "pictures by other names": (
        "[[File:a.png|thumb|글]][[그림:나.jpg|글]][[이미지:다.jpg]][[Image:b.jpg|[http://c.kr 글]]]본문이다.",
        ["본문이다."],
    ),
    "categories": ("본문.\n[[분류:한국]]\n[[분류:서울|*]]\n[[Category:Korea]]\n[[ 분류 : 도시 ]]", ["본문."]),
    "a category that is named": ("[[:분류:한국|한국 분류]]를 보라.", ["한국 분류를 보라."]),
    "other languages": ("본문.\n[[en:Seoul]]\n[[zh-min-nan:Seoul]]\n[[simple:Seoul]]", ["본문."]),
    "links": ("[[서울]]의 [[대한민국|한국]]과 [[부산#역사|부산]]이다.", ["서울의 한국과 부산이다."]),
    "a link with a colon": ("[[반지의 제왕: 왕의 귀환]]은 영화이다.", ["반지의 제왕: 왕의 귀환은 영화이다."]),
    "a link with marks": ("[[서울|'''서울''']]은 [[수도|<b>수도</b>]]이다.", ["서울은 수도이다."]),
    "outside links": ("[http://a.kr/?b=1 공식 누리집], [https://a.kr 가 [[나]]], [//a.kr]", ["공식 누리집, 가 나,"]),
    "an address": ("주소는 https://a.kr/b?c=d#e 이다.", ["주소는 이다."]),
    "bold and italic": ("'''굵게''' ''기울여'' '''''둘 다''''' 쓴다.", ["굵게 기울여 둘 다 쓴다."]),
    "headings": ("== 역사 ==\n본문이다.\n=== 같이 보기 ===\n======여섯======", ["본문이다."]),
    "lists": ("* 하나\n** 둘\n# 셋\n#* 넷\n: 다섯\n:: 여섯", ["하나", "둘", "셋", "넷", "다섯", "여섯"]),
    "definitions": ("; 용어 : 뜻풀이\n;낱말\n: 뜻", ["용어 : 뜻풀이", "낱말", "뜻"]),
    "a rule": ("위.\n----\n아래.", ["위.", "아래."]),
    "elements in a line": ('물은 H<sub>2</sub>O<span style="color:red">이다</span>.', ["물은 H2O이다."]),
    "elements of their own lines": (
        '<div class="가">하나</div><p>둘<br />셋</p><center>넷</center>',
        ["하나", "둘", "셋", "넷"],
    ),
    "a poem": ("<poem>\n나 보기가 역겨워\n가실 때에는\n</poem>", ["나 보기가 역겨워", "가실 때에는"]),
    "entities": ("하나&nbsp;둘 &amp; 셋 &#44032;&#xB098; 넷", ["하나 둘 & 셋 가나 넷"]),
    "a formula": ("식 <math>\\frac{{a}}{b} [[c]]</math>이다.", ["식 이다."]),
    "a formula in a template": ("{{수식|<math>x^{2^{3}}</math>}}본문이다.", ["본문이다."]),
    "a gallery": ("<gallery widths=200>\n파일:가.jpg|설명 글\n</gallery>\n본문이다.", ["본문이다."]),
    "words that are no markup": ("별표는 <nowiki>*[[가]]'''</nowiki>이고 끝<nowiki/>이다.", ["별표는 가이고 끝이다."]),
    "code": ("<syntaxhighlight lang=c>\nint a[[3]]; /* 주석 글 */\n</syntaxhighlight>\n본문이다.", ["본문이다."]),
    "code in a line": ("함수 <code>{{가}}</code>는 이렇다.<pre>가\n나</pre>", ["함수 는 이렇다."]),
    "a timeline": ("<timeline>\n가 나 다\n</timeline>본문이다.", ["본문이다."]),
    "magic words": ("__TOC__\n__목차숨김__본문이다.__NOTOC__", ["본문이다."]),
    "variants": ("-{한국}-은 -{zh-hans:汉;zh-hant:漢}- 본문이다. -{A|표기}-", ["한국은 본문이다. 표기"]),
    "what a picture leaves": ("섬네일|오른쪽|200px|alt=글|옛 서울: 그 모습]", ["옛 서울: 그 모습"]),
    "what a template leaves": (
        "서울({{한자|首尔}})은 ({{언어|en}}, 1394년) [{{가}}] (영어: {{언어|en}}, 약칭: {{나}})이다.",
        ["서울은 (1394년) (영어, 약칭)이다."],
    ),
    "blanks and what cannot be seen": ("가\u200b나\ufeff\x07  다\t\xa0라\u3000마\xad바 ", ["가나 다 라 마바"]),
    "decomposed letters": (unicodedata.normalize("NFD", "한국어 위키백과"), ["한국어 위키백과"]),
    "letters held apart": ("ᄒ\u200bᅡ\u200bᆫ 글", ["한 글"]),
    "line ends of Windows": ("하나\r\n둘\r\n", ["하나", "둘"]),
    "lines without Korean": ("Smith, J. (1999). Seoul 서울.\n1, 2, 3\n한국의 Seoul", ["한국의 Seoul"]),
}  # fmt: skip
MARKUP = re.compile(r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]|''|==|</?\w|-->|<!--|__|https?:|&\w+;|&#|-\{|\|")


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_each_construct_gives_its_text(construct: str) -> None:
    markup, wanted = CONSTRUCTS[construct]
    assert plain_lines(markup) == wanted


def test_a_page_of_all_constructs_has_all_texts_and_no_markup() -> None:
    page = "\n\n".join(markup for markup, _ in CONSTRUCTS.values())
    found = plain_lines(page)
    assert found == [line for _, lines in CONSTRUCTS.values() for line in lines]
    assert not [line for line in found if MARKUP.search(line)]


# -------------------------------------------------------------------------- unbalanced markup

BEFORE, AFTER = "앞에 있는 문단이다.", "뒤에 있는 문단이다."
OPEN = ["{{", "{{{", "{{정보상자\n|이름=", "[[", "[[파일:가.jpg|섬네일|", "[[가|", "<ref>", "<ref name=가>", "<!--", "{|",
        "\n{|\n|-\n", "<math>", "<nowiki>", "<div", "<span style=", "'''", "[http://a.kr", "-{",
        "==", "__", "&#"]  # fmt: skip
CLOSED = ["}}", "]]", "|}", "\n|}", "</ref>", "-->", "</math>", "</div>", "}-"]


@pytest.mark.parametrize("mark", OPEN + CLOSED)
def test_markup_without_its_partner_eats_no_page(mark: str) -> None:
    others = "{{가}} [[나]]<ref>다</ref>\n{|\n|라\n|}\n<!-- 마 -->[[분류:바]]"
    found = plain_lines(f"{BEFORE}\n\n{mark}\n\n{others}\n\n{AFTER}")
    assert found[0] == BEFORE and found[-1] == AFTER
    assert not [line for line in found if MARKUP.search(line)]


def test_an_unclosed_template_in_a_table_ends_with_the_table() -> None:
    assert plain_lines("앞.\n{|\n| {{가\n|}\n뒤. {{나}}") == ["앞.", "뒤."]


def test_an_unclosed_note_ends_where_the_next_begins() -> None:
    assert plain_lines("하나<ref>둘 셋<ref>넷</ref> 다섯") == ["하나둘 셋 다섯"]


HARD = [
    *OPEN,
    *CLOSED,
    "{{ ",
    "{{가[[",
    "<ref><math>",
    "\n ",
    "\n=",
    "= ",
    "\n:",
    "\n;가",
    "(",
    "(,",
    ", ",
    "가|",
    "<",
    "&가",
]
LONG = ["\n;" + " " * 500_000, "|" + "alt=" * 125_000, "|" + "1" * 500_000, "가." * 250_000, "</ref" + " " * 500_000,
        "[[가 " * 100_000 + "]]" * 100_000, "{{가 " * 100_000 + "}}" * 100_000, "{" * 250_000 + "}" * 250_000,
        "가" + "\u0301\u0323" * 250_000]  # fmt: skip


@pytest.mark.parametrize(
    "markup", [mark * (500_000 // len(mark)) for mark in HARD] + LONG, ids=lambda m: m[:6]
)
def test_half_a_million_characters_of_one_mark_take_linear_time(markup: str) -> None:
    began = time.process_time()
    plain_lines(markup)
    assert time.process_time() - began < 5  # 0.1 to 1 s; quadratic time would be minutes


@pytest.mark.parametrize("mark", ["{{", "[[", "<ref>", "{|"])
def test_a_megabyte_of_an_opening_mark_costs_no_text(mark: str) -> None:
    began = time.process_time()
    assert plain_lines(BEFORE + "\n" + mark * (1_000_000 // len(mark)) + "\n" + AFTER) == [BEFORE, AFTER]
    assert time.process_time() - began < 10


# --------------------------------------------------------------------------------- the lines


def test_lines_keep_the_share_of_hangul() -> None:
    enough = "가" * 30 + "a" * 70
    assert MIN_HANGUL_SHARE == 0.3
    assert plain_lines(enough) == [enough]
    assert plain_lines(enough + "a") == []


def test_long_paragraphs_are_cut_at_sentences() -> None:
    sentence = "이것은 조금 긴 문장이다. "
    found = plain_lines(sentence * 1000)
    assert len(found) > 1 and max(map(len, found)) <= MAX_LINE_CHARS
    assert all(line.endswith("다.") for line in found)
    assert " ".join(found) == (sentence * 1000).strip()


def test_a_paragraph_without_sentences_is_cut_at_words_or_anywhere() -> None:
    words, letters = plain_lines("낱말 " * 2000), plain_lines("가" * 5000)
    assert " ".join(words) == ("낱말 " * 2000).strip()
    assert "".join(letters) == "가" * 5000
    assert max(map(len, words + letters)) <= MAX_LINE_CHARS
