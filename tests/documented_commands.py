"""Every command that the documents tell a reader to type.

A command begins with one of `PROGRAMS`, after settings of the environment and a prompt, and stands

    in a block of Markdown without a language     each line, or in a block of sessions each line after `$ `
    in a code span of Markdown
    in a comment of YAML, or in the docstring of a job, on a line that is indented by more than the prose
    under `command:` of a Kubernetes manifest
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")),
)
YAML = (
    "cluster.yaml",
    "jobs/nightly-cronjob.yaml",
    "jobs/raycluster.yaml",
    "jobs/rayjob.yaml",
    *sorted(f"jobs/recipes/{p.name}" for p in ROOT.glob("jobs/recipes/*")),
)
JOBS = tuple(sorted(f"jobs/{path.name}" for path in ROOT.glob("jobs/*.py")))
PROGRAMS = (
    "davir",
    "export",
    "kubectl",
    "make",
    "pip",
    "pytest",
    "python",
    "ray",
    r"\.venv/bin/\w+",
    r"\.ci/run",
    "30 2",
)
COMMAND = re.compile(rf"(?:\$ )?((?:\w+=\S+ )*(?:{'|'.join(PROGRAMS)})(?= |$).*)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BESIDE = re.compile(r"\s+#.*$")
"""What is said of a command on its own line."""


@dataclass(frozen=True)
class Command:
    """A command and the file that it stands in. is_named: prose names it, and may leave out its arguments."""

    file: str
    text: str
    is_named: bool = False


def documented() -> list[Command]:
    """Return all commands of the documents, each once a file. Raises `ValueError` for a line that is none."""
    readers = {
        **dict.fromkeys(MARKDOWN, blocks),
        **dict.fromkeys(YAML, comments),
        **dict.fromkeys(JOBS, docstring),
    }
    found = [
        Command(file, text) for file, read in readers.items() for text in read((ROOT / file).read_text())
    ]
    named = [Command(file, text, True) for file in MARKDOWN for text in spans((ROOT / file).read_text())]
    return list(dict.fromkeys([*found, *named]))


def blocks(text: str) -> Iterator[str]:
    """Yield the commands in blocks of a Markdown document."""
    for language, block in FENCED.findall(text):
        if not language:
            yield from of_block(block)


def spans(text: str) -> Iterator[str]:
    """Yield the commands in code spans of a Markdown document."""
    for span in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
        if found := COMMAND.fullmatch(span):
            yield found[1]


def of_block(block: str) -> Iterator[str]:
    """Yield the commands of a block without a language."""
    lines = [BESIDE.sub("", line) for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    if lines[0].startswith("$ "):
        lines = [line for line in lines if line.startswith("$ ")]
    for line in lines:
        if not (found := COMMAND.fullmatch(line)):
            raise ValueError(
                f"{line!r} begins with no known program; give its block a language (text) if it is no command"
            )
        yield found[1]


def comments(text: str) -> Iterator[str]:
    """Yield the commands in comments of a YAML file, and the one that a Kubernetes manifest starts."""
    for line in text.splitlines():
        if found := COMMAND.fullmatch(BESIDE.sub("", re.sub(r"^# {3}|^#.*then: ", "", line))):
            yield found[1]
    for tree in yaml.safe_load_all(text):
        if isinstance(tree, dict) and tree.get("kind") == "CronJob":
            for container in tree["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]:
                yield " ".join(container["command"])


def docstring(text: str) -> Iterator[str]:
    """Yield the commands that the docstring of a program shows."""
    for line in text.split('"""')[1].splitlines():
        if line.startswith("    ") and (found := COMMAND.fullmatch(line.strip())):
            yield found[1]
