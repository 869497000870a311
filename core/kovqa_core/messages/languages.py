"""Messages in the language of whoever reads them.

English stands in the code. Every other language has a folder of catalogues, `LANGUAGE/DOMAIN.po`, where the domain is the
first part of a key: what nobody asks for is not read. They are read as they were written (gettext's PO): nothing is
compiled that could be forgotten, and a start costs no more. `tools/catalogues.py` keeps them in step with the code.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kovqa_core.messages import JoinedMessage, Message, WordedMessage, cut_field, error_text
from kovqa_core.messages.one_line import escape_one_line

LANGUAGES = ("en", "ko")
HELP_DOMAIN = "help"  # texts of --help: their key is the English text itself
_FOLDER = Path(__file__).resolve().parent
_ESCAPE = re.compile(r"\\(.)")


def user_language(environment: Mapping[str, str] | None = None) -> str:
    """The language of the user: KOVQA_LANG, else the locale's, in gettext's order; English for all that kovqa lacks.

    Args:
        environment: os.environ, if not given.
    """
    values = os.environ if environment is None else environment
    if asked := values.get("KOVQA_LANG"):
        return _language_code(asked)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if values.get(name):
            languages = values.get("LANGUAGE", "").split(":") if values[name] not in ("C", "POSIX") else []
            return _language_code(next(filter(None, languages), values[name]))
    return _windows_language() if sys.platform == "win32" else "en"


def known_language(name: str) -> bool:
    """Is this a value of KOVQA_LANG that kovqa has: `ko`, `en`, `ko_KR.UTF-8`?"""
    return re.split(r"[_.@-]", name.strip())[0].lower() in LANGUAGES


def shown_language() -> str:
    """The user's language, if the stream of messages can show it: a line of question marks helps nobody."""
    language = user_language()
    if language == "en":
        return language
    try:
        "한글".encode(sys.stderr.encoding or "utf-8")
    except UnicodeEncodeError:
        return "en"
    return language


def show_text(text: str) -> str:
    """A text as it is shown: in the user's language, on one line without control characters."""
    return escape_one_line(translate(text, shown_language()) if isinstance(text, Message) else text)


def translate(text: str, language: str) -> str:
    """A text in a language: a `Message` by its key; any other text, and what a catalogue lacks, as it is.

    Args:
        text: a message or any text.
        language: one of LANGUAGES.
    """
    if language == "en" or not isinstance(text, Message):
        return str(text)
    if isinstance(text, JoinedMessage):
        return text.separator.join(translate(part, language) for part in text.parts)
    if isinstance(text, WordedMessage):
        return text.words.get(language) or str(text)
    template = read_catalogue(language, text.key.partition(".")[0]).get(text.key)
    if not template:
        return str(text)
    try:
        return escape_one_line(_fill_template(template, text.fields, language))
    except (LookupError, TypeError, ValueError):  # from a file that another version wrote, with other fields
        return str(text)


def translate_help(text: str, language: str) -> str:
    """A text of --help in a language, found by its English words; as it is where it has none."""
    if language == "en":
        return text
    return read_catalogue(language, HELP_DOMAIN).get(text) or text


@functools.cache
def read_catalogue(language: str, domain: str) -> Mapping[str, str]:
    """Texts by key (of help texts: by the English) of a catalogue; empty where there is no such catalogue.

    Raises:
        ValueError: the file is not as babel writes it.
    """
    try:
        text = (_FOLDER / language / f"{domain}.po").read_text("utf-8")
    except FileNotFoundError:
        return {}
    return dict(map(_read_entry, text.split("\n\n")[1:]))  # the first is the header


def _read_entry(entry: str) -> tuple[str, str]:
    """Key and text of an entry: each keyword's strings, a line or several, are joined."""
    values: dict[str, str] = {}
    keyword = ""
    for line in entry.splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith('"'):
            keyword, _, line = line.partition(" ")
        values[keyword] = values.get(keyword, "") + _ESCAPE.sub(_unescape, line[1:-1])
    return values.get("msgctxt") or values.get("msgid", ""), values.get("msgstr", "")


def _unescape(escape: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(escape[1], escape[1])


def _fill_template(template: str, fields: Mapping[str, Any], language: str) -> str:
    """A template with its fields, and each particle in the form that what stands before it asks for."""
    import string  # a start in English does without

    from kovqa_core.messages.korean_particles import PARTICLE, choose_particle

    text, formatter = "", string.Formatter()
    for literal, name, spec, conversion in formatter.parse(template):
        end = 0
        for particle in PARTICLE.finditer(literal):
            text += literal[end : particle.start()]
            text += choose_particle(particle[0], text)
            end = particle.end()
        text += literal[end:]
        if name is not None:
            value = _translate_field(fields[name], language)
            text += format(formatter.convert_field(value, conversion) if conversion else value, spec or "")
    return text


def _translate_field(value: object, language: str) -> Any:
    """A field in a language: of an error its message; anything but a message is cut as in English."""
    if isinstance(value, BaseException):
        value = error_text(value)
    return translate(value, language) if isinstance(value, Message) else cut_field(value)


def _language_code(name: str) -> str:
    code = re.split(r"[_.@-]", name.strip())[0].lower()
    return code if code in LANGUAGES else "en"


def _windows_language() -> str:
    """What Windows shows its own menus in: consoles there set no LANG."""
    import ctypes

    try:
        language_id = ctypes.windll.kernel32.GetUserDefaultUILanguage()  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, OSError):
        return "en"
    return "ko" if language_id & 0x3FF == 0x12 else "en"  # LANG_KOREAN
