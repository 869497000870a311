"""Brings the catalogues of messages in step with the code: `python tools/catalogues.py`.

Each text of the code has an entry in `core/kovqa_core/messages/LANGUAGE/DOMAIN.po` afterwards: new ones with an empty
translation, changed ones too, with the old translation as a comment; what the code no longer says is dropped.
`tests/messages/test_catalogues.py` fails for every entry that is empty. `--empty` lists them.
"""

from __future__ import annotations

import argparse
import inspect
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from kovqa_core.messages import languages  # noqa: E402

FOLDER = Path(languages.__file__).resolve().parent
HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n"Language: {language}\\n"\n\n'


def code_messages() -> Iterator[tuple[str, str]]:
    """(key, English) of every `message(key, english, …)` of the code."""
    for folder in (ROOT / "core" / "kovqa_core", ROOT / "core" / "kovqa", ROOT / "kovqa_cli"):
        found = extract_from_dir(folder, [("**.py", "python")], keywords={"message": ((1, "c"), 2)})
        for _file, _line, english, _comments, key in found:
            yield key or "", english if isinstance(english, str) else english[0]


def help_texts() -> Iterator[str]:
    """The English text of every page of --help, and the meaning of every key of recipes and profiles."""
    from kovqa_cli.main import app
    from tools.settings_reference import key_meanings

    yield from sorted(key_meanings())
    yield from _command_texts(typer.main.get_command(app))


def _command_texts(command: Any) -> Iterator[str]:
    if command.help:
        yield inspect.cleandoc(command.help)
    if command.short_help:
        yield command.short_help
    yield from (text for parameter in command.params if (text := getattr(parameter, "help", None)))
    for subcommand in getattr(command, "commands", {}).values():
        yield from _command_texts(subcommand)


def current_entries() -> dict[str, dict[str, str]]:
    """Of each domain, the English by key; of help texts the key is the text itself."""
    domains: dict[str, dict[str, str]] = {languages.HELP_DOMAIN: {text: text for text in help_texts()}}
    for key, english in code_messages():
        domains.setdefault(key.partition(".")[0], {})[key] = english
    return domains


def read_translations(path: Path) -> dict[str, tuple[str, str]]:
    """(English, translation) by key of a catalogue; empty where there is none."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        catalog = read_po(file)
    return {
        entry.context or str(entry.id): (str(entry.id), str(entry.string)) for entry in catalog if entry.id
    }


def render_catalogue(language: str, domain: str, english: dict[str, str]) -> str:
    """The text of a catalogue as it should be, with all translations that still fit."""
    old = read_translations(FOLDER / language / f"{domain}.po")
    catalog = Catalog(locale=language)
    for key in sorted(english):
        was, translation = old.get(key, ("", ""))
        changed = bool(translation) and was != english[key]
        comments = [f"was: {was} -> {translation}"] if changed else []
        catalog.add(
            english[key],
            "" if changed else translation,
            user_comments=comments,
            context=None if domain == languages.HELP_DOMAIN else key,
        )
    file = io.BytesIO()
    write_po(file, catalog, width=0, omit_header=True, no_location=True)
    return HEADER.format(language=language) + file.getvalue().decode("utf-8").strip() + "\n"


def main() -> None:
    """Write the catalogues; or list what is not translated."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--empty", action="store_true", help="list untranslated entries, write nothing")
    parser.add_argument("domain", nargs="*", help="these domains alone")
    options = parser.parse_args()
    for language in languages.LANGUAGES[1:]:
        entries = current_entries()
        for domain, english in sorted(entries.items()):
            if options.domain and domain not in options.domain:
                continue
            text = render_catalogue(language, domain, english)
            path = FOLDER / language / f"{domain}.po"
            if not options.empty:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, "utf-8")
            empty = [key for key in english if not read_translations(path).get(key, ("", ""))[1]]
            print(f"{language}/{domain}: {len(english)} entries, {len(empty)} not translated")
            if options.empty:
                print(*(f"  {key}" for key in empty), sep="\n")
        for path in (FOLDER / language).glob("*.po"):
            if path.stem not in entries and not options.empty:
                path.unlink()


if __name__ == "__main__":
    main()
