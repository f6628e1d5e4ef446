"""What is foreign on a page: escaped, spelt out, and allowed to do nothing."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from davir_ray.report.html import data, environment, packaged, readable, render

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "end of our script": "</script><script>alert(1)</script>",
    "comment": "<!--<script>",
    "attribute": "\"' onmouseover=alert(1) x='",
    "entity": "&lt;b&gt; &amp;",
    "template": "{{ 7 * 7 }} {% raw %}",
}


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the text in each kind of element."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags, self.texts, self.within = [], {}, ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.within = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, text):
        if self.within:
            self.texts[self.within][-1] += text


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request):
    return request.param


def page_with(text: str) -> Elements:
    """A page that has a text wherever a page of a run has foreign ones: in elements, attributes and data."""
    source = (
        '<p title="{{ text }}">{{ text }}</p><script type="application/json">{{ [text] | data }}</script>'
    )
    return Elements(environment().from_string(source).render(text=text).encode())


def test_a_hostile_text_is_text(hostile):
    page = page_with(hostile)
    assert page.tags == [("p", {"title": hostile}), ("script", {"type": "application/json"})]
    assert page.texts["p"] == [hostile]
    (text,) = page.texts["script"]
    assert "<" not in text
    assert json.loads(text) == [hostile]


@pytest.mark.parametrize(
    "mark", ["\u202e", "\u2066", "\u200f", "\u200b", "\u0000", "\x1b", "\r", "\u2028", "\ud800"], ids=ascii
)
def test_what_does_not_print_is_spelt_out(mark):
    page = page_with(f"a{mark}b")
    spelt = mark.encode("unicode_escape").decode()
    assert page.texts["p"] == [f"a{spelt}b"]
    assert json.loads(page.texts["script"][0]) == [f"a{spelt}b"]


def test_line_breaks_and_letters_of_all_scripts_stay():
    assert readable("two\nlines עברית 東\u00a0京") == "two\nlines עברית 東\u00a0京"
    assert readable(Markup("<b>\u202e</b>")) == "<b>\u202e</b>"
    assert readable(7) == 7


def test_tabs_windows_line_breaks_and_joiners_of_words_stay_readable():
    assert readable("a\tb\r\nc\r\n") == "a\tb\nc\n"
    words = "क्\u200dषण जन\u200cता 👩\u200d💻"
    assert readable(words) == words
    assert json.loads(data([words])) == [words]


def test_scores_have_digits_that_count():
    written = [
        environment().filters["significant"](one) for one in (0.75, 0.123456, 1e-6, 1234.56, 0.0, None)
    ]
    assert written == ["0.75", "0.1235", "1e-06", "1235", "0", "-"]


def test_passwords_are_hidden():
    assert page_with("s3://user:secret@bucket/x").texts["p"] == ["s3://***@bucket/x"]


def test_data_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        data([float("nan")])


def test_a_name_that_a_template_does_not_get_is_an_error():
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nothing }}").render()


def test_the_policy_allows_our_scripts_and_styles_and_nothing_else():
    page = Elements(frame())
    (policy,) = [tag["content"] for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    scripts = [
        text for (_, tag), text in zip(only(page, "script"), page.texts["script"], strict=True) if not tag
    ]
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(named, scripts)),
        "style-src": " ".join(map(named, page.texts["style"])),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(scripts) == 3


def test_a_page_has_no_inline_style_handler_or_address():
    page = Elements(frame())
    attributes = [name for _, tag in page.tags for name in tag]
    assert not [
        name for name in attributes if name == "style" or name.startswith("on") or name in ("src", "href")
    ]


def test_our_scripts_set_text_as_text():
    for name in ("templates/plots.js", "templates/table.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", packaged(name)
        )


def frame() -> bytes:
    return render("frame.html", data={"plots": {}})


def only(page: Elements, kind: str):
    return [one for one in page.tags if one[0] == kind]


def named(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
