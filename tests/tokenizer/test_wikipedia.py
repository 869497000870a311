"""MediaWiki dumps: every way they are packed gives the same lines; a damaged one gives none in silence."""

from __future__ import annotations

import bz2
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from kovqa_core.errors import DataError
from kovqa_core.tokenizer import wikipedia
from kovqa_core.tokenizer.wikitext import plain_lines

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-{0}/" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-{0}/ http://www.mediawiki.org/xml/export-{0}.xsd" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="{0}" xml:lang="ko">
  <siteinfo>
    <sitename>위키백과 &amp; 시험</sitename>
    <dbname>kowiki</dbname>
    <base>https://ko.wikipedia.org/wiki/대문</base>
    <generator>MediaWiki 1.42.0-wmf.3</generator>
    <namespaces>
      <namespace key="0" case="first-letter" />
    </namespaces>
  </siteinfo>
"""
FOOT = "</mediawiki>\n"
NAME = "kowiki-20231101-pages-articles"


class Page(NamedTuple):
    """A page of a dump."""

    text: str
    space: int = 0
    redirect: bool = False
    model: str = "wikitext"

    def xml(self, id: int, version: str = "0.11") -> str:
        text = escape(self.text, {'"': "&quot;"})
        size = f'bytes="{len(self.text.encode())}" sha1="x" ' if version == "0.11" else ""
        body = f'<text {size}xml:space="preserve">{text}</text>' if text else f"<text {size}/>"
        origin = "\n      <origin>1</origin>" if version == "0.11" else ""
        return (
            f"  <page>\n    <title>쪽 {id}</title>\n    <ns>{self.space}</ns>\n    <id>{id}</id>\n"
            + ('    <redirect title="쪽" />\n' if self.redirect else "")
            + f"    <revision>\n      <id>{id}</id>\n      <comment>&lt;page&gt;</comment>{origin}\n"
            f"      <model>{self.model}</model>\n      {body}\n      <sha1>x</sha1>\n    </revision>\n  </page>\n"
        )


PAGES = [
    Page(f"'''쪽 {n}'''은 [[한국]]의 문단 \"{n}\" &amp;lt; &nbsp;이다.\n\n둘째 문단 {'가나다 ' * (n % 40)}")
    for n in range(300)
]


def dump(pages: list[Page], version: str = "0.11") -> list[str]:
    """The pieces of an export: its head, its pages, its foot."""
    return [HEAD.format(version), *(page.xml(id, version) for id, page in enumerate(pages)), FOOT]


def plain(path: Path, pieces: list[str]) -> Path:
    path = path / f"{NAME}.xml"
    path.write_text("".join(pieces), encoding="utf-8")
    return path


def single(path: Path, pieces: list[str]) -> Path:
    path = path / f"{NAME}.xml.bz2"
    path.write_bytes(bz2.compress("".join(pieces).encode()))
    return path


def multistream(path: Path, pieces: list[str]) -> Path:
    """As Wikimedia packs them: the head, ten pages a stream (100 there), the foot."""
    path = path / f"{NAME}-multistream.xml.bz2"
    inner = pieces[1:-1]
    groups = ["".join(inner[at : at + 10]) for at in range(0, len(inner), 10)]
    path.write_bytes(b"".join(bz2.compress(group.encode()) for group in [pieces[0], *groups, pieces[-1]]))
    return path


def indexed(path: Path, pieces: list[str]) -> Path:
    path = multistream(path, pieces)
    index = path.with_name(f"{NAME}-multistream-index.txt.bz2")
    index.write_bytes(bz2.compress("600:1:쪽 1\n".encode()))
    return path


def anywhere(path: Path, pieces: list[str]) -> Path:
    """As pbzip2 packs them: streams cut at any byte, here also within letters and marks."""
    path = path / f"{NAME}.xml.bz2"
    data = "".join(pieces).encode()
    path.write_bytes(b"".join(bz2.compress(data[at : at + 997]) for at in range(0, len(data), 997)))
    return path


Packed = Callable[[Path, list[str]], Path]
EVERY_WAY = pytest.mark.parametrize("packed", [plain, single, multistream, indexed, anywhere])


def read(path: Path, wanted: int = 1) -> list[str]:
    return [line for part in wikipedia.dump_slices(path, wanted) for line in wikipedia.article_lines(part)]


def by_parser(path: Path) -> list[str]:
    """The lines of all pages, found by a real XML parser."""
    texts = [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]
    return [line for text in texts for line in plain_lines(text or "")]


# ------------------------------------------------------------------------------------- parts


@EVERY_WAY
@pytest.mark.parametrize("version", ["0.10", "0.11"])
def test_all_parts_together_are_what_a_parser_reads(tmp_path: Path, packed: Packed, version: str) -> None:
    wanted = by_parser(plain(tmp_path, dump(PAGES, version)))
    path = packed(tmp_path, dump(PAGES, version))
    assert len(wanted) > 590
    assert all(read(path, count) == wanted for count in (1, 2, 3, 7, 1000))


@pytest.mark.parametrize("packed", [plain, multistream, indexed])
def test_parts_are_even_and_cover_the_file(tmp_path: Path, packed: Packed) -> None:
    path = packed(tmp_path, dump(PAGES))
    found = wikipedia.dump_slices(path, 4)
    size = path.stat().st_size
    assert len(found) == 4
    assert [part.start for part in found] == [0, *(part.end for part in found[:-1])] and found[-1].end == size
    assert all(part.end - part.start < size / 2 for part in found)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("packed", [single, anywhere])
def test_a_bz2_without_streams_of_pages_is_one_part(tmp_path: Path, packed: Packed) -> None:
    assert len(wikipedia.dump_slices(packed(tmp_path, dump(PAGES)), 4)) == 1


def peak(call: Callable[[], object]) -> int:
    """Most bytes Python held during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    path = multistream(tmp_path, dump(PAGES * 30))
    (part,) = wikipedia.dump_slices(path, 1)
    assert sum(len(block) for block in wikipedia._xml_blocks(part)) > 5e6
    assert peak(lambda: sum(1 for _ in wikipedia.article_lines(part))) < 2e6


# ------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "page",
    [
        Page("토론 문단이다.", space=1),
        Page("틀 문단이다.", space=10),
        Page("넘어가는 문단이다.", redirect=True),
        Page("#넘겨주기 [[한국]]"),
        Page("#redirect [[한국]]\n남은 문단이다."),
        Page(" #REDIRECT:[[한국]]"),
        Page('{"글": "위키 자료 문단"}', model="json"),
        Page(""),
    ],
)
def test_what_is_no_article_is_left_out(tmp_path: Path, page: Page) -> None:
    path = plain(tmp_path, dump([Page("앞 문단이다."), page, Page("뒤 문단이다.")]))
    assert read(path) == ["앞 문단이다.", "뒤 문단이다."]


def test_the_newest_revision_and_the_main_slot_count(tmp_path: Path) -> None:
    old, new = Page("옛 문단이다.").xml(1), Page("새 문단이다.").xml(1)
    history = old.replace("  </page>\n", "") + new[new.index("    <revision>") :]
    slot = "<content>\n<role>다른 곳</role>\n<text>다른 문단이다.</text>\n</content>\n    </revision>"
    path = plain(tmp_path, [HEAD.format("0.11"), history.replace("</revision>", slot), FOOT])
    assert read(path) == ["새 문단이다."]


def test_escapes_are_decoded_once(tmp_path: Path) -> None:
    text = "가&amp;lt;나 &lt;b&gt;다&lt;/b&gt; &quot;라&quot; &#44032;&#x26;amp;마 &apos;바&#39;"
    xml = Page("본문").xml(1).replace("본문", text)
    path = plain(tmp_path, [HEAD.format("0.11"), xml, FOOT])
    assert read(path) == ["가<나 다 \"라\" 가&마 '바'"] == by_parser(path)


# ------------------------------------------------------------------------------------- about


def test_a_dump_is_known_by_its_content(tmp_path: Path) -> None:
    dumps = [
        packed(tmp_path, dump(PAGES)).rename(tmp_path / packed.__name__)
        for packed in (plain, single, multistream)
    ]
    others = {
        "글.xml.bz2": bz2.compress("한국어 글".encode()),
        "글.xml": b"<html>",
        "빈.xml": b"",
        "bz": b"BZ",
    }
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "선언").write_bytes(b'\xef\xbb\xbf<?xml version="1.0"?>\n<mediawiki>')
    assert all(map(wikipedia.is_mediawiki_dump, [*dumps, tmp_path / "선언"]))
    assert not any(wikipedia.is_mediawiki_dump(tmp_path / name) for name in others)


@EVERY_WAY
def test_a_dump_says_what_it_is(tmp_path: Path, packed: Packed) -> None:
    path = packed(tmp_path, dump(PAGES))
    assert wikipedia.dump_metadata(path) == {
        "name": "위키백과 & 시험",
        "base": "https://ko.wikipedia.org/wiki/대문",
        "generator": "MediaWiki 1.42.0-wmf.3",
        "export": "0.11",
        "date": "2023-11-01",
        "licence": "CC BY-SA 4.0, GFDL",
    }
    assert wikipedia.dump_metadata(path.rename(tmp_path / "kowiki-latest.xml"))["date"] is None


# ------------------------------------------------------------------------------------ damage


@EVERY_WAY
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.7, 0.98])
@pytest.mark.parametrize("wanted", [1, 3])
def test_a_dump_that_is_cut_is_refused(tmp_path: Path, packed: Packed, share: float, wanted: int) -> None:
    path = packed(tmp_path, dump(PAGES))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=f"{path}.* ends too early"):
        read(path, wanted)


@EVERY_WAY
def test_a_dump_without_its_last_pages_is_refused(tmp_path: Path, packed: Packed) -> None:
    path = packed(tmp_path, dump(PAGES)[:-1])
    with pytest.raises(DataError, match=f"{path} ends too early"):
        read(path)


@pytest.mark.parametrize("packed", [single, multistream])
def test_a_damaged_bz2_is_refused(tmp_path: Path, packed: Packed) -> None:
    path = packed(tmp_path, dump(PAGES))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path}: damaged bz2"):
        read(path, 3)


@EVERY_WAY
@pytest.mark.parametrize("place", [0, 1, 200])
def test_entities_of_a_dtd_are_refused(tmp_path: Path, packed: Packed, place: int) -> None:
    pieces = dump(PAGES)
    pieces[place:place] = ['<!DOCTYPE mediawiki [<!ENTITY a "가"><!ENTITY b "&a;&a;">]>\n']
    path = packed(tmp_path, pieces)
    assert wikipedia.is_mediawiki_dump(path)
    with pytest.raises(DataError, match=f"{path} holds a DTD"):
        read(path)


def test_a_bz2_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "_MAX_PAGE_BYTES", 4 << 20)
    path = single(tmp_path, dump([Page("a" * (48 << 20))]))  # 48 MiB in some hundred bytes

    def refused() -> None:
        with pytest.raises(DataError, match=f"{path}: a page above 4 MiB"):
            read(path)

    assert peak(refused) < 24e6


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<ns>0</ns>", "", "page '쪽 1' has no"),
        ("<text ", "<글 ", "page 1 has no whole <text>"),
        ("</text>", "", "page 1 has no whole <text>"),
        ("본문", "\udcff", "page 1 is not UTF-8"),
    ],
)
def test_a_broken_page_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    xml = HEAD.format("0.11") + Page("본문").xml(1).replace(old, new) + FOOT
    path = tmp_path / "쪽.xml"
    path.write_bytes(xml.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=f"{path}: {problem}"):
        read(path)


def test_what_is_not_a_dump_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "글.xml"
    path.write_text("<html>글</html>", encoding="utf-8")
    for call in (wikipedia.dump_metadata, read):
        with pytest.raises(DataError, match="is not a MediaWiki export"):
            call(path)
    with pytest.raises(DataError, match="cannot read"):
        wikipedia.is_mediawiki_dump(tmp_path / "없음")
    with pytest.raises(DataError, match="cannot read"):
        wikipedia.dump_slices(tmp_path, 1)
