"""Pages made of jinja2 templates: one look, two languages, every value escaped, no script but the page's own.

A page is a template, `NAME.html`, and beside it its script, `NAME.js`. What all pages share lies here: `page_base.html`
(head, policy, `page.css`), which a template extends, `macros.html`, and `page.js` (language, sortable tables), which comes
before its script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

from kovqa_core.files import read_text
from kovqa_core.messages.languages import translate
from kovqa_core.messages.readable_name import readable_name

_SHARED = Path(__file__).parent
MAX_TEXT_LETTERS = 300  # of a text on a page


def render_page(template: Path, *scripts: Path, **values: object) -> str:
    """A template with its values; what is missing is an error, and every value is escaped.

    `text | korean` is a message in Korean, `text | shorten` a text that is cut.

    The template finds its script as `script`, and that script's hash, for the page's policy, as `script_hash`.

    Args:
        template: `NAME.html`; `NAME.js` lies beside it.
        scripts: files of what `NAME.js` uses.
        values: by the names that the template knows.
    """
    import jinja2
    import markupsafe

    # StrictUndefined: a name that the template misspells must not become an empty cell.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _SHARED]),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["shorten"] = shorten_text
    environment.filters["korean"] = functools.partial(translate, language="ko")
    script = page_script(template, *scripts)
    return environment.get_template(template.name).render(
        values, script=markupsafe.Markup(script), script_hash=script_hash(script)
    )


def page_script(template: Path, *scripts: Path) -> str:
    """The script of a page: what all pages share, then its own."""
    return "\n" + "".join(map(read_text, [_SHARED / "page.js", *scripts, template.with_suffix(".js")]))


def script_hash(script: str) -> str:
    """What a page's policy calls its own script; any other, smuggled in by an answer, is not run."""
    # The hash is over the bytes between the tags, as browsers compute it: not even a space may differ.
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def shorten_text(text: str, letters: int = MAX_TEXT_LETTERS) -> str:
    """A text that is cut where it is too long, and can be written: a file's name need not be UTF-8."""
    text = readable_name(text)
    return text if len(text) <= letters else text[:letters] + "…"
