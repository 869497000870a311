"""What can happen to a file: each damage is a function from its path and a random number generator."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

_DEEP = "[" * 20_000 + "]" * 20_000
_HUGE_NUMBERS = (
    "9" * 5000,
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "1" + "0" * 30,
    "-9223372036854775809",
    "1e-320",
)
_JSON_NUMBER = re.compile(r"(?<=[ :,\[\t])-?\d+(\.\d+)?(?=[ ,\]}\n\r\t])")
_JSON_STRING = re.compile(r'"[^"\\\n]+"')
# Values of every other type, as JSON spells them; YAML reads all but the last as the same.
_OTHER_VALUES = (
    "null",
    "true",
    "7",
    "-1",
    "0.5",
    '""',
    '" "',
    '"글자"',
    "[]",
    "{}",
    "[7]",
    '["글자"]',
    '{"키": 7}',
    "[[]]",
    "[null]",
)


def _change_bytes(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(path: Path, draw: random.Random) -> None:
        data = change(path.read_bytes(), draw)
        path.write_bytes(data)

    return damage


def _change_text(change: Callable[[str, random.Random], str]) -> Damage:
    def on_bytes(data: bytes, draw: random.Random) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        return change(text, draw).encode("utf-8", "surrogateescape")

    return _change_bytes(on_bytes)


# ------------------------------------------------------------------------------------------ bytes


def _truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))] if data else data


def _flip_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8)) if data else 0):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _flip_head(data: bytes, draw: random.Random) -> bytes:
    """Bits of the first bytes, where formats keep their lengths and offsets."""
    changed = bytearray(data)
    for _ in range(2 if data else 0):
        changed[draw.randrange(min(len(data), 64))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _insert_nul(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + b"\0" * draw.choice((1, 8, 600)) + data[place:]


def _zero_block(data: bytes, draw: random.Random) -> bytes:
    """What a file system leaves after a power cut."""
    place = draw.randrange(len(data) + 1)
    return data[:place] + bytes(len(data) - place)


def _repeat_part(data: bytes, draw: random.Random) -> bytes:
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:b] + data[a:b] + data[b:]


def _cut_letter(data: bytes, draw: random.Random) -> bytes:
    """One byte of a letter of several is missing."""
    places = [place for place, byte in enumerate(data) if byte >= 0xE0]
    place = draw.choice(places) if places else draw.randrange(len(data) + 1)
    return data[: place + 1] + data[place + 2 :]


def _other_encoding(codec: str) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, draw: random.Random) -> bytes:
        return data.decode("utf-8", "replace").encode(codec, "replace")

    return change


def _png_bytes() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (3, 2)).save(stream, "PNG")
    return stream.getvalue()


def _zip_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("글.txt", "글")
    return stream.getvalue()


def _other_content(data: bytes, draw: random.Random) -> bytes:
    """A whole file of another kind under this name."""
    others = (
        _png_bytes, _zip_bytes, lambda: gzip.compress(data), lambda: b"<!DOCTYPE html><html>404</html>",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        lambda: b"\x80\x04K\x01.", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", lambda: b"{}\n", lambda: b"[]\n",
        lambda: b"null\n", lambda: b"7\n", lambda: '"글"\n'.encode(), lambda: b"a,b\n1,2\n", lambda: b"a: [1\n",
    )  # fmt: skip
    return draw.choice(others)()


# ------------------------------------------------------------------------------------------- text


def _long_line(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text) + 1)
    return text[:place] + draw.choice(("가", "x", " ", "\\u0000", "[")) * 3_000_000 + text[place:]


def _replace_match(pattern: re.Pattern[str], values: tuple[str, ...]) -> Callable[[str, random.Random], str]:
    def change(text: str, draw: random.Random) -> str:
        matches = list(pattern.finditer(text))
        if not matches:
            return text + draw.choice(values)
        match = draw.choice(matches)
        return text[: match.start()] + draw.choice(values) + text[match.end() :]

    return change


def _double_key(text: str, draw: random.Random) -> str:
    """A pair of a JSON object, or a line, twice."""
    pairs = list(re.finditer(r'"[^"\n]*"\s*:\s*("[^"\n]*"|[\d.]+|true|false|null)', text))
    if pairs and draw.random() < 0.8:
        pair = draw.choice(pairs)
        return text[: pair.end()] + ", " + pair.group() + text[pair.end() :]
    lines = text.splitlines(keepends=True)
    number = draw.randrange(len(lines)) if lines else 0
    return "".join([*lines[: number + 1], *lines[number : number + 1], *lines[number + 1 :]])


def _half_character(text: str, draw: random.Random) -> str:
    """Half a surrogate pair, as JSON's escape or as bytes that no UTF-8 has."""
    strings = list(_JSON_STRING.finditer(text))
    half = draw.choice(("\\ud800", "\\udfff", "\\uD83D", "\udced\udca0\udc80"))
    if not strings:
        place = draw.randrange(len(text) + 1)
        return text[:place] + half + text[place:]
    string = draw.choice(strings)
    return text[: string.end() - 1] + half + text[string.end() - 1 :]


# ------------------------------------------------------------------------------------ JSON values


def _swap_type(path: Path, draw: random.Random) -> None:
    """One value of a JSON document (or of a line of one), anywhere inside, becomes one of another type."""
    data = path.read_bytes()
    try:
        text = data.decode()
        lines = [text] if path.suffix != ".jsonl" else text.splitlines(keepends=True)
        number = draw.randrange(len(lines))
        document = json.loads(lines[number])
    except (ValueError, IndexError):
        _change_text(_replace_match(_JSON_STRING, _OTHER_VALUES))(path, draw)
        return
    places = list(_places(document))
    parent, key = draw.choice(places)
    value = json.loads(draw.choice(_OTHER_VALUES))
    if parent is None:
        document = value
    elif isinstance(parent, dict) and draw.random() < 0.2:
        del parent[key]
    elif isinstance(parent, dict) and draw.random() < 0.1:
        parent[draw.choice(("", "더", "schema"))] = parent.pop(key)
    else:
        parent[key] = value
    lines[number] = json.dumps(document, ensure_ascii=False) + ("\n" if lines[number].endswith("\n") else "")
    path.unlink()
    path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document; those near the top first, and the document itself."""
    places: list[tuple[Any, Any]] = [(None, None)]
    waiting = [document]
    for value in waiting:
        if len(places) > 400:  # a vocabulary has thousands
            break
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, inner in items:
            places.append((value, key))
            waiting.append(inner)
    return places


# --------------------------------------------------------------------------- what is not a file


def _as_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / "안.txt").write_text("글", "utf-8")


def _as_link(target: str) -> Damage:
    def damage(path: Path, draw: random.Random) -> None:
        path.unlink()
        path.symlink_to(target)

    return damage


def _link_loop(path: Path, draw: random.Random) -> None:
    path.unlink()
    other = path.with_name(f".{path.name}-고리")
    path.symlink_to(other.name)
    other.symlink_to(path.name)


def _fifo(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _no_permission(path: Path, draw: random.Random) -> None:
    _change_bytes(lambda data, draw: data)(path, draw)
    path.chmod(0)


DAMAGES: dict[str, Damage] = {
    "truncated": _change_bytes(_truncate),
    "flipped bits": _change_bytes(_flip_bits),
    "flipped head": _change_bytes(_flip_head),
    "zeroed end": _change_bytes(_zero_block),
    "repeated part": _change_bytes(_repeat_part),
    "empty": _change_bytes(lambda data, draw: b""),
    "blanks": _change_bytes(lambda data, draw: b" \n\t\r\n"),
    "NUL": _change_bytes(_insert_nul),
    "cut letter": _change_bytes(_cut_letter),
    "BOM": _change_bytes(lambda data, draw: b"\xef\xbb\xbf" + data),
    "UTF-16": _change_bytes(_other_encoding("utf-16")),
    "CP949": _change_bytes(_other_encoding("cp949")),
    "other content": _change_bytes(_other_content),
    "CRLF": _change_bytes(lambda data, draw: data.replace(b"\n", draw.choice((b"\r\n", b"\r")))),
    "swapped type": _swap_type,
    "nesting": _change_text(_replace_match(_JSON_STRING, (_DEEP, '{"a":' * 20_000 + "1" + "}" * 20_000))),
    "huge number": _change_text(_replace_match(_JSON_NUMBER, _HUGE_NUMBERS)),
    "half character": _change_text(_half_character),
    "doubled key": _change_text(_double_key),
    "long line": _change_text(_long_line),
    "folder": _as_folder,
    "FIFO": _fifo,
    "/dev/zero": _as_link("/dev/zero"),
    "/dev/full": _as_link("/dev/full"),
    "/dev/null": _as_link("/dev/null"),
    "dangling link": _as_link("not-there"),
    "link to its folder": _as_link("."),
    "link loop": _link_loop,
    "no permission": _no_permission,
    "missing": lambda path, draw: path.unlink(),
}  # fmt: skip
# Without a word in the file, so that nobody can tell: whole lines may be gone, or there twice.
SILENT = {
    "truncated",
    "zeroed end",
    "repeated part",
    "doubled key",
    "flipped bits",
    "flipped head",
    "NUL",
    "cut letter",
    "half character",
    "swapped type",
    "huge number",
    "long line",
    "nesting",
    "CRLF",
    "UTF-16",
    "CP949",
}
