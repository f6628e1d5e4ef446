import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import davir_ray.scores
from davir_ray.config import ScoreConfig
from davir_ray.errors import RecipeError
from davir_ray.schema import View
from davir_ray.scores import SCORES, resolve_score
from davir_ray.scores.score import BASE, REFERENCE, Measured
from tests.measured import losses_table


@pytest.fixture
def my_scores(tmp_path, monkeypatch):
    """The example of the package's docstring, in a module of its own."""
    example = re.search(r"`my_scores.py`:\n\n(.*?)\n\nand in the recipe", davir_ray.scores.__doc__, re.DOTALL)
    source = textwrap.dedent(example.group(1))
    (tmp_path / "my_scores.py").write_text(source + "\nNOT_A_SCORE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield source
    sys.modules.pop("my_scores", None)


def test_the_documented_example_of_a_user_s_score_works_by_import_path(my_scores):
    one = resolve_score("my_scores:SURPRISE")
    row = Measured(
        {BASE: losses_table([6.0]), REFERENCE: losses_table([2.0])},
        {View.RESPONSE: np.array([2])},
        np.array([b"0123456789abcdef"]),
    )
    assert one.compute(row, ScoreConfig()).tolist() == [3.0]  # 3 nats a token times 1
    assert one.cost == "base(response) + reference(response)"
    assert pickle.loads(pickle.dumps(one)) == one  # so it reaches a worker


def test_the_documented_example_is_a_dozen_lines(my_scores):
    assert len([line for line in my_scores.splitlines() if line.strip()]) <= 12


def test_built_in_scores_are_found_by_name():
    assert [resolve_score(name) for name in SCORES] == list(SCORES.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("davvir", "davvir: expected module:attribute or one of davir, rho_mean, rho_sum, lobass, ifd"),
        ("no_such_module:X", "no_such_module:X: cannot be imported: No module named 'no_such_module'"),
        ("my_scores:MISSING", "my_scores:MISSING: cannot be imported: module 'my_scores' has no attribute"),
        (":X", ":X: cannot be imported"),
        ("my_scores:NOT_A_SCORE", "my_scores:NOT_A_SCORE: expected a Score, found int"),
        ("my_scores:surprise_left", "my_scores:surprise_left: expected a Score, found function"),
    ],
)
def test_a_name_that_is_no_score_is_refused_with_what_was_expected(my_scores, name, message):
    with pytest.raises(RecipeError, match=re.escape(f"score.name: {message}")):
        resolve_score(name)


def test_every_score_cites_and_explains_itself():
    for one in SCORES.values():
        module = sys.modules[one.compute.__module__]
        assert one.formula
        assert one.paper == "none (baseline)" or "arXiv" in one.paper
        assert f"{one.name}(x" in module.__doc__ or one.name == "lobass", one.name


def test_importing_the_scores_loads_nothing_heavy():
    heavy = "('torch', 'ray', 'datasketch', 'scipy')"
    code = f"import sys, davir_ray.scores; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
