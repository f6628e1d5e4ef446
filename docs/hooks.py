"""What MkDocs is told beside mkdocs.yml: documents that lie outside of docs/ are pages, too, and their links hold."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/billion_rows.md": "billion_rows.md",
}
"""Document of the repository -> its page."""
HOME = {page: document for document, page in OUTSIDE.items()}
LINK = re.compile(r"(\]\()([^):#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents outside of docs/."""
    for document, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / document).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between documents into links between pages."""
    here = page.file.src_uri
    folder = PurePosixPath(HOME.get(here, f"docs/{here}")).parent

    def as_page(link: re.Match[str]) -> str:
        document = normpath(str(folder / link[2]))
        target = OUTSIDE.get(document, document.removeprefix("docs/"))
        return link[1] + relpath(target, str(PurePosixPath(here).parent))

    return LINK.sub(as_page, markdown)
