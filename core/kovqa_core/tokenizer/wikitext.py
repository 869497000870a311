"""MediaWiki markup -> plain Korean lines, at the speed a whole Wikipedia asks for.

Nothing is expanded and nothing is rendered: what is not running text (templates, tables, notes,
images, formulae, code) is dropped, the rest stays without its marks. Every pattern below runs in linear
time on any input: none can start again inside what it has read, so a page of nothing but `{{` costs
what a page of text does.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from kovqa_core.files import to_nfc

# Fraction of a line's characters that must be Hangul syllables. A sentence keeps above a third even when
# it is full of foreign names, years and spaces; lists of sources and foreign titles stay below a fifth.
MIN_HANGUL_SHARE = 0.3
# Characters. SentencePiece leaves out sentences above 9,999 bytes (docs/sources/datasets.md, D23), without a word;
# a character has four bytes at most.
MAX_LINE_CHARS = 2_400

# Elements that are dropped with all they hold; `nowiki` is the one whose words stay.
_DROPPED_ELEMENTS = (
    "ref|references|nowiki|math|chem|ce|code|syntaxhighlight|source|pre|timeline|gallery|imagemap|score|hiero"
    "|graph|mapframe|maplink|templatedata|templatestyles|includeonly|inputbox|categorytree"
)
_DROPPED_ELEMENT_START = re.compile(rf"<(?:!--|({_DROPPED_ELEMENTS})\b[^<>]*>)", re.IGNORECASE)
# The next mark of the same kind; the group is filled when it closes.
_ELEMENT_MARKS = {
    name: re.compile(rf"<(/)?{name}\b[^<>]*(?<!/)>", re.IGNORECASE) for name in _DROPPED_ELEMENTS.split("|")
}
_ELEMENT_MARKS["!--"] = re.compile(r"<!--|(-)->")
# Tags of letters, within a line: dropped, their text stays. One without its `>` goes too.
_INLINE_TAG = re.compile(
    r"</?(?:abbr|b|bdi|bdo|big|cite|del|dfn|em|font|i|ins|kbd|mark|nowiki|q|ref|rp|rt|ruby|s|samp|small|span"
    r"|strike|strong|sub|sup|time|tt|u|var|wbr)\b(?:[^<>]*>)?",
    re.IGNORECASE,
)
# All other tags end a line: any with its `>`; without it those of HTML and <poem> only, for `a<b` is text.
_BLOCK_TAG = re.compile(
    r"</?[a-z][^<>]*>|</?(?:blockquote|br|center|dd|div|dl|dt|h[1-6]|hr|li|ol|p|poem|table|td|th|tr|ul)\b",
    re.IGNORECASE,
)

# Possessive (`*+`), here and below: what was read is never given back, so time stays linear.
_FLAT_TEMPLATE = re.compile(r"\{\{[^{}]*+\}\}")
# `[[page]]` and `[[page|label]]` with nothing inside; one with a colon may be an image or a category: not here.
_PLAIN_LINK = re.compile(r"\[\[(?:[^][{}<>|:\n]*+\|)?([^][{}<>|:\n]*+)\]\]")
# Braces of templates; a table's ends; the beginning of a link up to its label; the end of a link.
_BRACKET_MARK = re.compile(
    r"(\{\{+|\}\}+"
    r"|\n[ \t:]*+\{\||\n[ \t:]*+\|\}(?!\})"  # a table's marks begin their line
    r"|\[\[[^][{}|\n]*+\|?|\]\])"
)
_HIDDEN_NAMESPACE = re.compile(
    r"\s*(?:(?i:파일|그림|이미지|미디어|분류|file|image|media|category)\s*:"
    r"|(?:simple|[a-z]{2,3}(?:-[a-z]+)*):)"  # other languages
)

# `[address label]`: the label stays; without one, nothing.
_EXTERNAL_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^][\s]*+[ \t]*+([^][\n]*+)\]", re.IGNORECASE)
# Printable ASCII but for `<>[]{|}` and a backslash, which end an address; a letter of Hangul ends it as well.
_BARE_URL = re.compile(r"(?:https?|ftp)://[!-;=?-Z^-z~]*", re.IGNORECASE)
# `-{text}-`: kept; `-{code:text;…}-` for several scripts: dropped.
_LANGUAGE_VARIANT = re.compile(r"-\{(?:[^{}|\n]*+\|)?([^{}:;\n]*+)\}-|-\{[^{}\n]*+\}-")
# `__NOTOC__`, `__목차숨김__`: switches for the renderer.
_MAGIC_WORD = re.compile(r"__(?:[A-Z]{3,}|[가-힣]{2,})__")
# `; term: what it is`, one line of a definition list.
_DEFINITION_TERM = re.compile(r"\n;([^\n:]*+): ")
_LINE_START = re.compile(
    r"\n[ \t]*+(?:"
    r"=[^\n]*=[ \t]*+(?=\n)"  # headings: the same few hundred words on every page
    r"|[|!][^\n]*+"  # rows of a table that is never closed
    r"|-{4,}+|[*#:;]++)"
)
# What a template left in brackets: () [] (, Seoul) (영어: , 1999). One by one: a pattern that begins
# with one character is looked for five times as fast as one that begins with any of several.
_BRACKET_HOLES = (
    (re.compile(r"\([^\w()]*+\)"), ""),
    (re.compile(r"\[[ \t]*+\]"), ""),
    (re.compile(r"\([ ,;:·]++"), "("),
    (re.compile(r"[,;:·] *+(?=[,)])"), ""),
)
_MARKUP_RESIDUE = ("{", "}", "\N{REPLACEMENT CHARACTER}", "[[", "]]", "<!--", "-->", "'''", "''")
_MARKUP_CHARS = re.compile(r"[][{}<>|=*#:;_]|''+")
_SINGLE_MARK = re.compile(r"[][|]")
# Thumb, frame, side, size, alternative text: in both languages, as far as an image link was never closed.
_IMAGE_OPTION = re.compile(
    r"(?:섬네일|썸네일|thumb(?:nail)?|프레임|프레임없음|frame(?:less|d)?|오른쪽|왼쪽|가운데|없음|right|left|center|none"
    r"|위로|upright(?:=[\d.]+)?|테두리|border|(?:\d{1,4}x)?\d{1,4}(?:px|픽셀)|(?:alt|대체글|link|링크)=[^|=]*)\s*\|",
    re.IGNORECASE,
)
_INVISIBLE_CHARS = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ue000-\uf8ff\U000e0000-\U0010ffff]"
)
# Its mark, quotation marks or brackets that close after it, a space.
_SENTENCE_END = re.compile(r"[.!?。…][\"'”’)」』]*+ ")
# High bytes of U+AC00..U+D7FF: the syllables.
_SYLLABLE_HIGH_BYTES = bytes(range(0xAC, 0xD8))


def plain_lines(markup: str) -> list[str]:
    """The running text of a page: one paragraph or list item a line, NFC, single spaces, no markup.

    Headings, captions and lines with little Hangul (`MIN_HANGUL_SHARE`) are left out; paragraphs above
    `MAX_LINE_CHARS` are cut at the ends of sentences. Markup that is never closed costs its own
    mark, not the page. Time is linear in the length.

    Args:
        markup: wikitext as the editor shows it, XML's escapes already decoded.

    Source: docs/sources/datasets.md, D22.
    """
    text = _drop_elements(markup) if "<" in markup else markup
    text = _FLAT_TEMPLATE.sub("", text)  # those without others inside: nearly all
    if "<" in text:
        text = _BLOCK_TAG.sub("\n", _INLINE_TAG.sub("", text))
    text = _replace_by_label(_EXTERNAL_LINK, _replace_by_label(_PLAIN_LINK, text))
    text = _strip_marks(_outside_brackets(f"\n{text}\n"))
    return [line for raw in text.split("\n") if raw for line in _finish_line(raw)]


# ------------------------------------------------------------------------- what is dropped


def _drop_elements(text: str) -> str:
    """Without comments and the elements that hold no running text.

    One that is opened again before it is closed, or never closed, loses its mark only.
    """
    texts, at = [], 0
    while match := _DROPPED_ELEMENT_START.search(text, at):
        texts.append(text[at : match.start()])
        at = match.end()
        # `<ref name="a"/>` has no end mark: looking for one would swallow the text up to the next note.
        if text[at - 2 : at] == "/>":
            continue
        name = (match[1] or "!--").lower()
        end = _ELEMENT_MARKS[name].search(text, at)
        # The next mark of the kind closes it; if it opens another one, this one was never closed.
        if end and end[1]:
            if name == "nowiki":
                texts.append(_MARKUP_CHARS.sub("", text[at : end.start()]))
            at = end.end()
    texts.append(text[at:])
    return "".join(texts)


def _outside_brackets(text: str) -> str:
    """What stands outside templates, tables, images and categories; links give their label.

    A closing mark takes everything back to its opening one, whatever was left open between;
    a mark without a partner is dropped, and what it would have held stays.
    """
    first, *rest = _BRACKET_MARK.split(text)
    output = _OpenMarks([first])
    for mark, after in zip(rest[::2], rest[1::2], strict=True):
        if mark == "]]":
            output.end_link()
        elif mark[0] == "[":
            hidden = _HIDDEN_NAMESPACE.match(mark, 2)
            output.open("[[" if hidden else "[[:")
            if not hidden and mark[-1] != "|":
                output.texts.append(mark[2:].lstrip(": "))
        elif mark[0] == "{":  # {{{a}}} is a parameter, {{{{{a}}}}} a template named by one
            odd = len(mark) % 2
            for _ in range(len(mark) // 2 - odd):
                output.open("{{")
            if odd:
                output.open("{{", 3)
        elif mark[0] == "}":
            remaining = len(mark)
            # `}}}}` closes two templates; what is left over without a partner is dropped.
            while remaining > 1 and output.count["{{"]:
                remaining -= output.drop("{{")
        elif mark[-1] == "|":
            output.texts.append("\n")
            output.open("{|")
        elif output.count["{|"]:
            output.drop("{|")
        output.texts.append(after)
    return "".join(output.texts)


class _OpenMarks:
    """The text so far, and the marks that are open in it: `[[:` is a link whose label stays."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.frames: list[tuple[str, int, int]] = []  # mark, its width, where it begins in `texts`
        self.count = {"{{": 0, "{|": 0, "[[": 0, "[[:": 0}

    def open(self, mark: str, width: int = 2) -> None:
        self.frames.append((mark, width, len(self.texts)))
        self.count[mark] += 1

    def drop(self, mark: str) -> int:
        """Take back the innermost `mark` with all it holds; its width."""
        while True:
            innermost, width, at = self.frames.pop()
            self.count[innermost] -= 1
            if innermost == mark:
                del self.texts[at:]
                return width

    def end_link(self) -> None:
        """A link ends only where nothing else is open in it."""
        if self.frames and self.frames[-1][0] == "[[":
            self.drop("[[")
        elif self.frames and self.frames[-1][0] == "[[:":
            self.count[self.frames.pop()[0]] -= 1


def _replace_by_label(pattern: re.Pattern[str], text: str) -> str:
    """Every match replaced by its one group; `sub` would call back for each."""
    return "".join(pattern.split(text))


# ----------------------------------------------------------------------------- what stays


def _strip_marks(text: str) -> str:
    """Without the marks of letters and lines; entities decoded."""
    if "://" in text:
        text = _BARE_URL.sub("", text)
    if "-{" in text:
        text = _LANGUAGE_VARIANT.sub(lambda match: match[1] or "", text)
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    if "\n;" in text:
        text = _DEFINITION_TERM.sub(r"\n\1: ", text)
    text = _LINE_START.sub("\n", text)
    if "&" in text:
        text = html.unescape(text)
    for mark in _MARKUP_RESIDUE:
        text = text.replace(mark, "")
    for pattern, replacement in _BRACKET_HOLES:
        text = pattern.sub(replacement, text)
    return text


def _finish_line(line: str) -> Iterator[str]:
    """A line with single spaces, in parts of at most `MAX_LINE_CHARS`, without those that are not Korean."""
    if "|" in line:  # what an image that is never closed leaves
        line = _SINGLE_MARK.sub(" ", _IMAGE_OPTION.sub("", line))
    if not line.isprintable():  # of spaces, only the common one is printable
        line = " ".join(_INVISIBLE_CHARS.sub("", line).split())
    elif "  " in line:
        line = " ".join(line.split())
    line = line.strip()
    for segment in _split_paragraph(line) if len(line) > MAX_LINE_CHARS else (line,):
        composed = to_nfc(segment)  # one by one: Python's takes quadratic time for a run of accents
        if composed and _is_korean(composed):
            yield composed


def _is_korean(line: str) -> bool:
    # Every second byte of UTF-16 is a high byte; without those of syllables, as many are left as there are others.
    others = line.encode("utf-16-be")[::2].translate(None, _SYLLABLE_HIGH_BYTES)
    return len(line) - len(others) >= MIN_HANGUL_SHARE * len(line)


def _split_paragraph(line: str) -> Iterator[str]:
    """Parts of at most `MAX_LINE_CHARS`, ending with a sentence, a word, or anywhere."""
    at = 0
    while len(line) - at > MAX_LINE_CHARS:
        end = at + MAX_LINE_CHARS
        # The last end of a sentence that fits, else the last space; `rfind` of none is -1, so 0, so the limit itself.
        ends = [match.end() for match in _SENTENCE_END.finditer(line, at, end)]
        cut = ends[-1] if ends else line.rfind(" ", at, end) + 1 or end
        yield line[at:cut].rstrip()
        at = cut
    yield line[at:]
