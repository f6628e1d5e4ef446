"""Links and anchors of the documents, as GitHub has them; `make docs` looks at those of the site."""

import re
from pathlib import Path

import pytest
import yaml

from tests.documented_commands import FENCED, MARKDOWN, ROOT

DOCUMENTS = (*MARKDOWN, "benchmarks/README.md", "benchmarks/billion_rows.md")
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(document: Path) -> list[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    prose = FENCED.sub("", document.read_text())
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(prose)]


def links(document: Path) -> list[tuple[Path, str]]:
    """Return the files, and the anchors in them, that a document links to."""
    found = [link.partition("#") for link in LINK.findall(FENCED.sub("", document.read_text()))]
    return [((document.parent / file).resolve() if file else document, anchor) for file, _, anchor in found]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_of_a_document_lead_somewhere(name):
    for file, anchor in links(ROOT / name):
        assert file.is_file(), file
        assert not anchor or anchor in anchors(file), (file, anchor)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_headings_of_a_document_differ(name):
    found = anchors(ROOT / name)
    assert sorted(set(found)) == sorted(found)


def test_every_page_is_in_the_navigation_the_index_and_the_readme():
    pages = {name.removeprefix("docs/") for name in MARKDOWN if name.startswith("docs/")}
    listed = set(
        re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    )
    assert pages <= listed
    for name in ("README.md", "docs/index.md"):
        linked = {file for file, _ in links(ROOT / name)} | {ROOT / name}
        missing = {page for page in pages - {"index.md"} if ROOT / "docs" / page not in linked}
        assert missing == set()


def test_a_link_that_leads_nowhere_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`: three\n\n[a](#one-two-three) [b](none.md) [c](https://x.y/z.md)\n")
    assert anchors(page) == ["one-two-three"]
    assert links(page) == [(page, "one-two-three"), (tmp_path / "none.md", "")]
