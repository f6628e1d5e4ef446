import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import house

FILES = {
    "__init__.py": "",
    "a/__init__.py": "from davir_ray.a.one import begin",
    "a/one.py": "from davir_ray.b import two\n\n\ndef begin(x: Unused):\n    return two.go()\n",
    "b/__init__.py": "",
    "b/two.py": "def go():\n    from davir_ray.c import THREE\n\n    return THREE\n",
    "c.py": "from davir_ray.a import begin\n\nTHREE: dict[str, Any] = {}\n",
    "d.py": "from davir_ray import c\nfrom davir_ray.a import begin\n\n\ndef run_all():\n    return begin()\n",
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "davir_ray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_rings_and_arrows_are_those_of_packages_and_loose_modules(checkout):
    read = house.House.read(checkout)
    assert read.arrows == {("a", "b"), ("b", "c"), ("c", "a"), ("d", "c"), ("d", "a")}
    assert house.rings(read.arrows) == [{"a", "b", "c"}]
    assert house.fewest_up({"a", "b", "c"}, read.arrows) == 1
    assert (read.loose, read.untyped) == (2, 1)


def test_what_is_reached_by_name_is_entered(checkout):
    assert house.House.read(checkout).entered("run_all") == {"d", "a.one", "b.two", "c"}


def test_two_parts_that_import_each_other_twice_over_cost_an_arrow_each():
    arrows = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("a", "c")}
    assert house.fewest_up({"a", "b", "c"}, arrows) == 2


def test_the_figures_of_this_checkout_are_a_table(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["house.py", str(Path(__file__).parents[2]), "--suite-seconds", "1500"])
    house.main()
    lines = capsys.readouterr().out.splitlines()
    assert "| parts in a ring | 0 |" in lines
    assert "| arrows against the order | 0 |" in lines
    assert "| seconds of the suite | 1,500 |" in lines
