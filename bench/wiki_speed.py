"""How fast a Wikipedia dump becomes Korean lines, beside wikiextractor 3.1.0 and mwparserfromhell 0.7.2.

    python bench/wiki_speed.py [--mb 24] [--rounds 5] [--text FILE] [--python PYTHON]
    python bench/wiki_speed.py --sizes 64 256

The dump is made in a scratch folder: articles with everything Korean ones have (infoboxes, tables,
notes, pictures with captions, links, lists, formulae …), of words made from syllables or of the lines
of `--text`. `--python` names an interpreter that has the two others installed.

Every measurement is a process of its own, in turns, and counts its processor time, so that it is per
core whatever else the machine does. Ours is the whole way, from the file to the lines. The two others
get every page's markup in memory, read beforehand and not counted: wikiextractor's command forks, so
its `Extractor.clean_text` is called without expanding templates; of mwparserfromhell `strip_code`.
`--sizes` prints time and peak memory of ours by size of the dump instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import kovqa_core

PARAGRAPHS = 4_000  # different ones; pages are put together from them
STEMS = (
    "한국", "서울", "도시", "역사", "사람", "학교", "나라", "정부", "문화", "음악", "영화", "선수", "경기", "대학",
    "지역", "건물", "전쟁", "왕조", "언어", "과학",
)  # fmt: skip
JOSA = (
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "의",
    "에",
    "에서",
    "으로",
    "와",
    "과",
    "도",
    "만",
    "까지",
    "부터",
)
VERBS = (
    "하였다.",
    "되었다.",
    "있다.",
    "이다.",
    "열렸다.",
    "알려져 있다.",
    "시작되었다.",
    "불린다.",
    "세워졌다.",
)
SYLLABLES = [chr(0xAC00 + (block * 21 + vowel) * 28 + last) for block in (0, 2, 3, 5, 6, 7, 9, 11, 12, 18)
             for vowel in (0, 4, 8, 13, 18, 20) for last in (0, 1, 4, 8, 16, 17, 21)]  # fmt: skip

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="ko">\n'
    "  <siteinfo>\n    <sitename>위키백과</sitename>\n    <dbname>kowiki</dbname>\n"
    "    <base>https://ko.wikipedia.org/wiki/대문</base>\n    <generator>bench</generator>\n  </siteinfo>\n"
)
PAGE = """  <page>
    <title>{title}</title>
    <ns>{space}</ns>
    <id>{id}</id>
{redirect}    <revision>
      <id>{id}</id>
      <timestamp>2023-11-01T00:00:00Z</timestamp>
      <contributor>
        <username>사용자</username>
        <id>1</id>
      </contributor>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{bytes}" sha1="x" xml:space="preserve">{text}</text>
      <sha1>x</sha1>
    </revision>
  </page>
"""

PAGES = """
import sys, time
from xml.etree import ElementTree
def texts(path):
    for _, element in ElementTree.iterparse(path):
        name = element.tag.rpartition("}")[2]
        if name == "ns": space = element.text
        if name == "redirect": space = None
        if name == "text" and space == "0": yield element.text
        if name == "page": element.clear()
pages = list(texts(sys.argv[1]))
"""
WAYS = {
    "kovqa, file to lines": """
import sys, time
from pathlib import Path
from kovqa_core.tokenizer import wikipedia
began = time.process_time()
(part,) = wikipedia.dump_slices(Path(sys.argv[1]), 1)
characters = sum(map(len, wikipedia.article_lines(part)))
""",
    "kovqa, markup to lines": PAGES + """
from kovqa_core.tokenizer.wikitext import plain_lines
began = time.process_time()
characters = sum(len(line) for page in pages for line in plain_lines(page))
""",
    "wikiextractor": PAGES + """
import logging; logging.disable()
from wikiextractor.extract import Extractor
began = time.process_time()
characters = 0
for page in pages:
    extractor = Extractor("1", "1", "https://ko.wikipedia.org/wiki", "제목", [page])
    characters += sum(map(len, extractor.clean_text(page, expand_templates=False)))
""",
    "mwparserfromhell": PAGES + """
import mwparserfromhell
began = time.process_time()
characters = sum(len(mwparserfromhell.parse(page).strip_code()) for page in pages)
""",
}  # fmt: skip
END = """
import json, resource
took = time.process_time() - began
print(json.dumps([took, characters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


# ---------------------------------------------------------------------------------- the dump


def words(rng: random.Random) -> list[str]:
    """A vocabulary; the first ones are the common ones."""
    return [*STEMS] + [
        "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 2, 3, 3, 4)))) for _ in range(20_000)
    ]


def sentence(rng: random.Random, vocabulary: list[str]) -> str:
    """Words with endings, one in six a link, as in Korean articles."""
    said = []
    for _ in range(rng.randint(6, 18)):
        word = vocabulary[min(int(rng.paretovariate(0.3)), len(vocabulary)) - 1]
        kind = rng.random()
        if kind < 0.10:
            word = f"[[{word}]]"
        elif kind < 0.16:
            word = f"[[{word} ({rng.choice(STEMS)})|{word}]]"
        elif kind < 0.18:
            word = f"'''{word}'''"
        elif kind < 0.20:
            word = f"''{word}''({{{{llang|en|Word {rng.randint(1, 99)}}}}}, {rng.randint(1800, 2023)}년)"
        said.append(word + rng.choice(JOSA))
    return " ".join(said) + " " + rng.choice(VERBS)


def paragraph(rng: random.Random, sentences: list[str]) -> str:
    """A few sentences with a note, an entity, a formula, an address here and there."""
    said = []
    for _ in range(rng.randint(1, 6)):
        said.append(rng.choice(sentences))
        kind, number = rng.random(), rng.randint(1, 999)
        if kind < 0.2:
            said[-1] += (
                f"<ref>{{{{웹 인용|url=http://example.kr/{number}?a=1&b=2|제목={rng.choice(STEMS)} 기사"
                f"|출판사=[[신문]]|확인날짜=2020-01-01}}}}</ref>"
            )
        elif kind < 0.27:
            said[-1] += f'<ref name="이름{number}" />'
        elif kind < 0.30:
            said[-1] += f"<ref>[http://example.kr/{number} 제목 {number}] 서울신문, 2010년</ref>"
        elif kind < 0.33:
            said[-1] += f" 약 {number}&nbsp;km<sup>2</sup>이며 {number}&minus;1 &lt; {number}이다."
        elif kind < 0.35:
            said[-1] += f" 식은 <math>x^{{{number}}} + \\frac{{a}}{{b}}</math>이다.<!-- 확인할 것 -->"
        elif kind < 0.36:
            said[-1] += f" <nowiki>*</nowiki>{number}개 또는 <code>a[{number}] = {{}}</code> <br /> 다음."
    return " ".join(said)


def article(rng: random.Random, paragraphs: list[str], title: str) -> str:
    """One page's markup."""
    pick = lambda: rng.choice(paragraphs)  # noqa: E731
    row = "|-\n| 가나 || [[다라]] || {{국기|대한민국}} 123\n"
    said = ["{{다른 뜻|" + title + "}}\n"] if rng.random() < 0.2 else []
    if rng.random() < 0.4:
        said.append(
            "{{정보상자 인물\n|이름 = " + title + "\n|그림 = A.jpg\n|설명 = [[서울]]에서 {{lang|en|Seoul}}\n"
            "|출생일 = {{출생일과 나이|1970|1|1}}\n|직업 = {{플레인리스트|\n* [[가수]]\n* [[배우]]\n}}\n}}\n"
        )
    said.append(f"'''{title}'''({title}, {{{{llang|en|{rng.randint(1, 9)} Title}}}})은 " + pick())
    for number in range(int(rng.paretovariate(1.0)) % 40):
        kind = rng.random()
        if kind < 0.35:
            said.append(f"\n{'==' if number % 2 else '==='} 제목 {number} {'==' if number % 2 else '==='}")
        elif kind < 0.45:
            said.append(f"[[파일:A{number}.jpg|섬네일|오른쪽|200px|[[{title}]]의 [[지도|옛 지도]]. 2010년]]")
        elif kind < 0.53:
            said.append("\n".join("* " + pick()[:60].partition("<")[0].partition("{")[0] for _ in range(4)))
        elif kind < 0.58:
            table = '{| class="wikitable" style="text-align:center"\n! 하나 !! 둘\n'
            said.append(table + row * rng.randint(2, 30) + "|}")
        elif kind < 0.60:
            said.append("<gallery>\n파일:B.jpg|설명 [[링크]]\n파일:C.jpg|설명\n</gallery>")
        said.append(pick())
    said.append(
        "\n== 각주 ==\n{{각주}}\n\n== 외부 링크 ==\n* [http://example.kr 공식 누리집]\n* {{공식 웹사이트}}\n"
    )
    said.append(
        "{{위키데이터 속성 추적}}\n" + "".join(f"[[분류:{rng.choice(STEMS)} {n}]]\n" for n in range(4))
    )
    return "\n".join(said)


def make_dump(path: Path, size: int, text: Path | None) -> None:
    """A dump of about `size` bytes; one page in six is a redirect or no article."""
    rng = random.Random(104)
    vocabulary = words(rng)
    given = text.read_text("utf-8").splitlines() if text else []
    sentences = [line for line in given if line.strip()] or [sentence(rng, vocabulary) for _ in range(20_000)]
    paragraphs = [paragraph(rng, sentences) for _ in range(PARAGRAPHS)]
    with path.open("w", encoding="utf-8") as stream:
        stream.write(HEAD)
        written = id = 0
        while written < size:
            id += 1
            title, kind = f"{rng.choice(vocabulary)} {id}", rng.random()
            page = f"#넘겨주기 [[{title}]]" if kind < 0.12 else article(rng, paragraphs, title)
            redirect = f'    <redirect title="{title}" />\n' if kind < 0.12 else ""
            xml = PAGE.format(
                title=title, space=10 if kind > 0.95 else 0, id=id, redirect=redirect, bytes=len(page.encode()),
                text=escape(page, {'"': "&quot;"}),
            )  # fmt: skip
            written += len(xml.encode())
            stream.write(xml)
        stream.write("</mediawiki>\n")


# ------------------------------------------------------------------------------ measurements


def measured(python: str, way: str, dump: Path) -> tuple[float, int, int]:
    """Seconds of processor time, characters found, most bytes in memory."""
    known = dict(os.environ, PYTHONPATH=str(Path(kovqa_core.__file__).parents[1]))
    done = subprocess.run(
        [python, "-c", WAYS[way] + END, str(dump)], env=known, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr.strip().splitlines()[-1]}")
    seconds, characters, memory = json.loads(done.stdout)
    return seconds, characters, memory


def compare(dump: Path, python: str, rounds: int) -> None:
    """Print megabytes a second and core, and how many times ours the others need."""
    megabytes = dump.stat().st_size / 1e6
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    found = {}
    for _ in range(rounds):
        for way in WAYS:
            seconds, found[way], _ = measured(python, way, dump)
            rates[way].append(megabytes / seconds)
    print(f"{megabytes:.0f} MB of XML, {rounds} rounds: lower quartile, median, upper quartile")
    print("| | MB/s and core | ours, file to lines, is … times as fast | characters |")
    print("|---|---|---|---|")
    ours = next(iter(rates.values()))
    for way, each in rates.items():
        ratios = [a / b for a, b in zip(ours, each, strict=True)]
        print(f"| {way} | {quartiles(each)} | {quartiles(ratios)} | {found[way]:,} |")


def quartiles(values: list[float]) -> str:
    """The three, as text."""
    cuts = statistics.quantiles(values, method="inclusive") if len(values) > 1 else values * 3
    return " ".join(f"{cut:.2f}" for cut in cuts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mb", type=int, default=24, help="size of the dump that is compared on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", help="MB; time and memory of ours instead")
    parser.add_argument("--text", type=Path, help="lines to use as sentences")
    parser.add_argument("--python", default=sys.executable, help="one that has the two others")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        dump = Path(scratch) / "kowiki-20231101-pages-articles.xml"
        if not asked.sizes:
            make_dump(dump, asked.mb * 1_000_000, asked.text)
            compare(dump, asked.python, asked.rounds)
            return
        print("| MB | seconds | MB/s | peak MB |\n|---|---|---|---|")
        for size in asked.sizes:
            make_dump(dump, size * 1_000_000, asked.text)
            seconds, _, memory = measured(asked.python, next(iter(WAYS)), dump)
            print(f"| {size} | {seconds:.1f} | {size / seconds:.1f} | {memory / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
