"""Text that is not ours: names of files, columns, sources and models, rows, and what libraries say.

Everything that the project prints goes through `shown`, and what it writes of foreign errors through
`without_credentials`. JSON needs neither: what `json.dumps` writes is ASCII.
"""

import re
from typing import Any
from unicodedata import category

HIDDEN = "***"
WHERE_SECRETS_BELONG = (
    "keep secrets out of the recipe, which runs are resumed from and workers read: give them in AWS_* or "
    "GOOGLE_APPLICATION_CREDENTIALS, in ~/.aws, or in fsspec's settings (~/.config/fsspec, FSSPEC_S3_KEY and its like)"
)
SHORT = 100
"""Characters of a value that a message quotes."""

# A scheme and what stands before the `@`: `user:password`, up to the last `@` before the first slash.
_USER_AND_PASSWORD = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/\"<>]*:[^\s/\"<>]*@")
# The same where the password has a slash, as secret keys of S3 have; `host:8080/path@version` is none.
_SLASH_IN_PASSWORD = re.compile(
    r"(?i)(?!file:|local:)(\b[a-z][a-z0-9+.-]*://)[^\s/@:?\"<>]+:(?!:)(?!\d{1,5}[/?#])[^\s@\"<>]*@"
)
# A token that stands alone before the `@`; with other schemes that is a user, a container or a version.
_TOKEN = re.compile(r"(?i)(\b(?:https?|s3[an]?|gcs|gs)://)[^\s/@\"<>]+@")
_QUERY = re.compile(
    r"(?i)([?&;#](?:[\w.%-]*(?:signature|credential|token|secret|passw(?:or)?d|pwd|api[-_]?key"
    r"|access[-_]?key(?:[-_]?id)?|account[-_]?key)|sig|key|auth)=)[^&;\s\"'<>#]+"
)
# Tokens that tell by their form what they are: of Hugging Face, GitHub, AWS, and services with `sk-` keys.
_KNOWN_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|A[KS]IA[0-9A-Z]{16}"
    r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{30,})\b"
)
_NAME_OF_SECRET = re.compile(
    r"(?i)(?:^|[_-])(?:(?:hf|auth|session|access)_token|secret|passw(?:or)?d|(?:api|access|secret|account)[_-]?key)$"
)


class Shown(str):
    """A line that is safe to print as it stands; it may carry the colours that davir itself has put on."""


def shown(line: str) -> Shown:
    """Make a line safe to print; one that is so already stays as it is."""
    return line if isinstance(line, Shown) else Shown(printable(without_credentials(line)))


def printable(text: str) -> str:
    """Spell out every character that does not print, line breaks among them, so that text cannot move the cursor,
    forge a line or reorder what is read. Spaces of all kinds and letters of all scripts stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or category(one) == "Zs" else _spelt(one) for one in text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def without_credentials(text: str) -> str:
    """Put `***` where a URI in a text holds a password, a token or a signature, and for tokens known by their form."""
    text = _KNOWN_TOKEN.sub(HIDDEN, text)
    if "@" in text:
        for pattern in (_USER_AND_PASSWORD, _SLASH_IN_PASSWORD, _TOKEN):
            text = pattern.sub(rf"\1{HIDDEN}@", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text) if "=" in text else text


def holds_credentials(text: str) -> bool:
    """Tell whether a text is a URI with a secret in it, or holds a token that is known by its form."""
    if _KNOWN_TOKEN.search(text):
        return True
    return "://" in text and without_credentials(text) != text


def names_secret(name: str) -> bool:
    """Tell whether a setting of this name is a secret, whatever it looks like: `hf_token`, `api_key`, `password`."""
    return bool(_NAME_OF_SECRET.search(name))


def refusal(uri: str) -> str:
    """Say why a URI with a secret is refused, without the secret."""
    return f"{without_credentials(uri)} holds credentials; {WHERE_SECRETS_BELONG}"


def is_text(text: str) -> bool:
    """Tell whether a text can be a name everywhere: no NUL, and no bytes of a name on Linux that are not UTF-8."""
    return not re.search("[\0\ud800-\udfff]", text)


def why_no_place(text: str) -> str:
    """Say why a text can name no recipe, run or store, whose files hold the name; empty where it can."""
    if not is_text(text):
        return f"{text}: holds bytes that are not UTF-8; give it another name"
    return refusal(text) if holds_credentials(text) else ""


def shortened(text: str) -> str:
    """Cut a long text."""
    return text if len(text) <= SHORT else f"{text[:SHORT]}... ({len(text):,} characters)"


def brief(value: Any) -> str:
    """Describe a value of a recipe or a row in a few words, for a message."""
    if isinstance(value, str):
        return f"'{shortened(printable(without_credentials(value)))}'"
    if isinstance(value, list | tuple):
        return f"a list of {len(value):,}"
    if isinstance(value, dict):
        return f"a mapping of {len(value):,}"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:  # Python refuses to write very long ones
        return f"a number of {value.bit_length():,} bits"
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
