"""One file of HTML from a template: nothing of it is fetched, and nothing runs in it but our own scripts.

Text that is not ours (rows, names, recipes) is escaped by the template engine, after every character that does not
print is spelt out: marks that reorder text cannot forge what the page says. The policy of the page allows the scripts
and styles whose hashes it names, and nothing else: no network, no frame, no form, no evaluated text, no inline style.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from davir_ray.foreign_text import printable, without_credentials

PACKAGE = "davir_ray.report"
STYLES = ("vendor/uPlot.min.css", "templates/page.css")
SCRIPTS = ("vendor/uPlot.iife.min.js", "templates/plots.js", "templates/table.js")
_SPELT_OUT = re.compile("[^\n\t\u200c\u200d]+")
"""Where what does not print is spelt out: all but line breaks, tabs, and the joiners that words of Persian and Hindi
and many emoji are written with."""


def render(template: str, **context: Any) -> bytes:
    """Return a page. template: a file of templates/. context: what it names; of `data` its scripts read."""
    styles = Markup("\n".join(map(packaged, STYLES)))  # our own files
    scripts = [Markup(packaged(name)) for name in SCRIPTS]
    text = (
        environment()
        .get_template(template)
        .render(policy=policy(scripts, styles), styles=styles, scripts=scripts, **context)
    )
    return text.encode("utf-8")


def packaged(name: str) -> str:
    """Read a file that comes with the package."""
    return files(PACKAGE).joinpath(name).read_text("utf-8")


def policy(scripts: list[Markup], styles: Markup) -> str:
    """Return the page's Content-Security-Policy."""
    allowed = " ".join(map(digest, scripts))
    return f"default-src 'none'; script-src {allowed}; style-src {digest(styles)}; base-uri 'none'; form-action 'none'"


def digest(text: str) -> str:
    """Name a script or a style by its content, as a policy does."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def readable(value: Any) -> Any:
    """Spell out what does not print of a text, but for what words need, and hide passwords; leave our markup alone."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = without_credentials(value).replace("\r\n", "\n")
    return _SPELT_OUT.sub(lambda found: printable(found[0]), text)


def data(value: Any) -> Markup:
    """Write plain data as JSON that can stand in a `script` element, whatever its texts hold."""
    text = json.dumps(_readable(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, spelt in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(letter, spelt)
    return Markup(text)


def _readable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _readable(one) for name, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, list | tuple) else readable(value)


def percent(value: float | None) -> str:
    """Write a part, 0 to 1, as people do."""
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with so many decimals, or a whole one with commas."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def significant(value: float | None, digits: int = 4) -> str:
    """Write a number with so many digits that count, however small it is."""
    return "-" if value is None else f"{value:.{digits}g}"


def correlation(value: float | None) -> str:
    """Write a correlation with its sign."""
    return "not defined" if value is None else f"{value:+z.2f}"  # z: no "-0.00"


@cache
def environment() -> Environment:
    """Return what renders the templates."""
    made = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        finalize=readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"data": data, "percent": percent, "number": number}
    made.filters |= {"significant": significant, "correlation": correlation}
    return made
