"""Completion in a real bash: the script that `davir completion bash` prints, asked as bash asks it."""

import os
import pty
import shutil
import subprocess
import sys
from functools import partial

import pytest
from click.testing import CliRunner

from davir_ray.cli import main

ASK = """\
source <({davir} completion bash) || exit 1
complete -p davir || exit 2
read -r -a COMP_WORDS <<<"$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_davir_completion davir
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def bash(tmp_path):
    """Return what asks a bash, with `davir` on its path, for completions of a line."""
    davir = tmp_path / "davir"
    davir.write_text(f"#!{sys.executable}\nfrom davir_ray.cli import main\nmain()\n")
    davir.chmod(0o755)
    (tmp_path / "recipe.yaml").touch()
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ASK.replace("{davir}", "davir")

    def ask(line: str) -> list[str]:
        command = ["bash", "-c", script, "bash", line]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        how, *found = done.stdout.splitlines()
        assert how == "complete -o nosort -F _davir_completion davir"
        return found

    ask.environment = environment
    return ask


def test_verbs_options_and_files_are_completed(bash):
    assert bash("davir sc") == ["schema", "score", "score-table", "scores"]
    assert bash("davir score recipe.yaml --li") == ["--limit"]
    assert bash("davir completion ") == ["bash", "zsh", "fish"]


def test_a_file_is_completed_when_tab_is_pressed(bash, tmp_path):
    """What names files is left to readline: a terminal, in which somebody types."""
    keys = b"source <(davir completion bash)\ndavir score rec\t\x01echo \nexit\n"
    ours, theirs = pty.openpty()
    environment = bash.environment | {"TERM": "dumb", "PS1": "> ", "INPUTRC": "/dev/null"}
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, keys)
    shown = b"".join(iter(partial(read, ours), b"")).decode()
    assert shell.wait(timeout=120) == 0
    assert "\ndavir score recipe.yaml" in shown.replace("\r", ""), shown


def read(terminal: int) -> bytes:
    """Read what a terminal shows; nothing when its shell has ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_ask_davir_and_are_looked_at_by_those_that_are_here(shell, tmp_path):
    printed = CliRunner().invoke(main, ["completion", shell])
    assert printed.exit_code == 0
    assert f"_DAVIR_COMPLETE={shell}_complete" in printed.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(printed.stdout)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=60)


def test_a_shell_that_click_does_not_know_is_refused():
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
