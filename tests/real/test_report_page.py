"""The page of a run in a real Chromium: it renders and answers, says nothing on the console, and fetches nothing.

The browser is the one that DAVIR_TEST_BROWSER names, or the first of BROWSERS that is installed (`make browser`).
Without one the tests fail; DAVIR_TEST_BROWSER=none leaves them out.
"""

import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, expect, sync_playwright

from davir_ray.cli import main
from davir_ray.runs.record import load_record
from tests.made_runs import made_run, write_corpus

pytestmark = pytest.mark.real

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WORDS = (
    "river",
    "stone",
    "model",
    "learns",
    "slowly",
    "data",
    "light",
    "green",
    "apples",
    "why",
    "sums",
    "prove",
)
HOSTILE = [
    ("<script>document.title = 'taken'</script>", "<img src=x onerror=\"document.title = 'taken'\">"),
    ("</script><script>document.title = 'taken'</script>", "<!--<script>"),
    ("gnp.\u202eexe \u2066hidden\u2069", "\x1b[31m \u0000 \u200b"),
    ("long", "w" * 5000),
    ("hindi", "क्\u200dषण"),
    ("markup", '"\' onmouseover=alert(1) <b style="position:fixed">over all</b>'),
]
ROWS = 11_000
NEEDLE = "needle-in-the-haystack"


@pytest.fixture(scope="module")
def browser():
    wanted = os.environ.get("DAVIR_TEST_BROWSER")
    if wanted == "none":
        pytest.skip("DAVIR_TEST_BROWSER=none")
    path = wanted or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail("no browser: `make browser`, or DAVIR_TEST_BROWSER=none leaves these tests out")
    with sync_playwright() as playwright:
        expect.set_options(timeout=60_000)
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """Two runs of a corpus with hostile rows; the core-set of the second has more than 10,000 rows."""
    root, draw = tmp_path_factory.mktemp("made"), random.Random(0)
    rows = [
        {
            "question": " ".join(draw.choices(WORDS, k=6)),
            "answer": " ".join(draw.choices(WORDS, k=12)),
            "topic": "t",
        }
        for _ in range(ROWS)
    ]
    for index, (question, answer) in enumerate(HOSTILE):
        rows[index] = {"question": question, "answer": answer, "topic": question}
    for index in range(100, 107):
        rows[index]["answer"] += f" {NEEDLE}"
    write_corpus(root / "corpus", {"chat": rows[: ROWS // 2], "maths <i>": rows[ROWS // 2 :]})
    return made_run(root, "made-000000000001"), made_run(root, "made-000000000002", fraction=0.95, seed=1)


@pytest.fixture(scope="module")
def report(runs) -> Path:
    assert CliRunner().invoke(main, ["report", str(runs[1])]).exit_code == 0
    return runs[1] / "report.html"


class Opened:
    """A page that was opened, and all that it said and asked for."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(120_000)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop", "phone"])
def context(request, browser):
    width, scheme = request.param
    made = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    yield made
    made.close()


@pytest.fixture
def opened(context, report) -> Opened:
    return Opened(context.new_page(), report)


def matching(report: Path, text: str) -> int:
    """Count the rows of a page's table that hold a text."""
    (data,) = re.findall(r'id="data">(.*?)</script>', report.read_text(), re.DOTALL)
    return sum(text in one for one in json.loads(data)["rows"]["text"])


def drawn(page: Page) -> list[bool]:
    """Tell of each plot whether anything is painted on it."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".canvas canvas")].map((one) =>
           one.getContext("2d").getImageData(0, 0, one.width, one.height).data.some((value) => value))"""
    )


def found(page: Page, text: str) -> None:
    """Wait until a search has found so much: the policy of the page allows no waiting in a script."""
    expect(page.locator("#found")).to_contain_text(text)


def test_the_page_is_drawn_and_says_and_fetches_nothing(opened, report):
    page = opened.page
    assert drawn(page) == [True] * 5
    assert page.title() == "made-000000000002 - davir_ray"
    assert page.locator("article").count() > 5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert opened.said == []
    assert opened.asked == [report.as_uri()]
    assert report.stat().st_size < 5_000_000


def test_hostile_rows_are_there_as_text(opened, report):
    page = opened.page
    page.fill("#search", "document.title")
    found(page, f"{matching(report, 'document.title')} rows found")
    assert "<script>document.title = 'taken'</script>" in page.inner_text("#rows tbody")
    page.fill("#search", "gnp.")
    found(page, "1 rows found")
    assert r"gnp.\u202eexe \u2066hidden\u2069" in page.inner_text("#rows tbody")
    assert page.title() == "made-000000000002 - davir_ray"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.said == []


def test_rows_are_searched_sorted_and_filtered(opened, runs, report):
    page, record = opened.page, load_record(str(runs[1]))
    rows = page.locator("#rows tbody tr")
    assert rows.count() == 100
    assert page.inner_text("#found") == f"{min(10_000, record.selected):,} rows found, 100 shown"
    page.click("#more")
    assert rows.count() == 200
    page.click("#rows th[data-column=tokens] button")
    tokens = [int(text) for text in page.locator("#rows tbody tr td:nth-child(3)").all_inner_texts()]
    assert tokens == sorted(tokens, reverse=True)
    page.select_option("#source", label="maths <i>")
    assert set(page.locator("#rows tbody tr td:nth-child(6)").all_inner_texts()) == {"maths <i>"}
    page.select_option("#source", label="all")
    page.fill("#search", f"{NEEDLE.upper()} stack")
    found(page, f"{matching(report, NEEDLE)} rows found")
    assert all(NEEDLE in text for text in rows.all_inner_texts())
    assert rows.count() > 3


def test_places_are_short_found_and_told_in_full(opened, runs):
    page = opened.page
    cell = page.locator("#rows td.place").first
    place, full = cell.inner_text(), cell.get_attribute("title")
    assert full == f"{runs[1].parents[1]}/corpus/{place}"
    lines = """(one) => { const text = document.createRange(); text.selectNodeContents(one);
                          return text.getClientRects().length; }"""
    assert cell.evaluate(lines) == 1
    page.fill("#search", place)
    expect(page.locator("#rows tbody tr").first).to_contain_text(place)
    page.fill("#search", full)
    found(page, "0 rows found")


def test_a_table_that_is_cut_at_the_edge_has_a_shade_there(opened):
    page, table = opened.page, opened.page.locator(".scroll").first
    table.scroll_into_view_if_needed()
    table.evaluate("(one) => { one.querySelector('table').style.visibility = 'hidden'; }")
    is_cut = table.evaluate("(one) => one.scrollWidth > one.clientWidth")
    assert is_cut == (page.viewport_size["width"] == 390)
    box = table.bounding_box()
    edge = {"x": box["x"] + box["width"] - 8, "y": box["y"], "width": 8, "height": box["height"]}
    shown = page.screenshot(clip=edge)
    table.evaluate("(one) => { one.scrollLeft = one.scrollWidth; }")
    at_its_end = page.screenshot(clip=edge)
    table.evaluate("(one) => { one.style.background = 'none'; }")
    bare = page.screenshot(clip=edge)
    assert (shown != bare) == is_cut
    assert at_its_end == bare


def test_a_table_of_ten_thousand_rows_is_quick(opened):
    seconds = opened.page.evaluate(
        """() => { const start = performance.now();
           document.querySelector("#rows th[data-column=text] button").click();
           document.querySelector("#rows").getBoundingClientRect();
           return (performance.now() - start) / 1000; }"""
    )
    assert seconds < 2


def test_a_search_of_ten_thousand_rows_is_quick(opened, report):
    seconds = opened.page.evaluate(
        """async (words) => {
             const field = document.querySelector("#search"), found = document.querySelector("#found");
             const start = performance.now();
             const told = new Promise((done) => new MutationObserver(done).observe(found, { childList: true }));
             field.value = words;
             field.dispatchEvent(new Event("input"));
             await told;
             document.querySelector("#rows").getBoundingClientRect();
             return (performance.now() - start) / 1000;
           }""",
        NEEDLE,
    )
    found(opened.page, f"{matching(report, NEEDLE)} rows found")
    assert seconds < 2


def test_words_with_joiners_are_found_with_and_without_them(opened):
    for typed in ("क्\u200dषण", "क्षण"):
        opened.page.fill("#search", typed)
        found(opened.page, "1 rows found")
    assert "क्\u200dषण" in opened.page.inner_text("#rows tbody")


def test_nothing_else_may_run_or_be_fetched(opened, report):
    page = opened.page
    refused = page.evaluate(
        """async () => {
             const refused = [];
             addEventListener("securitypolicyviolation", (one) => refused.push(one.effectiveDirective));
             const add = (name, more) => document.body.append(Object.assign(document.createElement(name), more));
             add("script", { textContent: "document.title = 'taken'" });
             add("style", { textContent: "body { display: none }" });
             add("img", { src: "http://127.0.0.1:9/a.png" });
             await fetch("http://127.0.0.1:9/").catch(() => 0);
             await new Promise((done) => setTimeout(done, 300));
             return refused.sort();
           }"""
    )
    assert refused == ["connect-src", "img-src", "script-src-elem", "style-src-elem"]
    assert page.title() == "made-000000000002 - davir_ray"


def test_a_comparison_is_drawn_and_says_and_fetches_nothing(context, runs, tmp_path):
    out = tmp_path / "both.html"
    assert CliRunner().invoke(main, ["compare", *map(str, runs), "--out", str(out)]).exit_code == 0
    opened = Opened(context.new_page(), out)
    assert drawn(opened.page) == [True]
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (opened.said, opened.asked) == ([], [out.as_uri()])
