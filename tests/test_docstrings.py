# SPDX-License-Identifier: BSD-3-Clause
"""The examples in docstrings and pages run and print what they say; public docstrings are whole."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
from numpydoc.validate import validate

import skprojdict

DOCS = Path(__file__).parents[1] / "docs"
API = (DOCS / "api.rst").read_text(encoding="utf-8")
ESTIMATORS = [getattr(skprojdict, name) for name in skprojdict.__all__ if name != "__version__"]
MODULES = [name for _, name, _ in pkgutil.walk_packages(skprojdict.__path__, "skprojdict.") if "__main__" not in name]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```pycon" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_the_pages_run(page):
    blocks = re.findall(r"^```pycon\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert test.examples
    printed = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=printed.append)
    assert result.failed == 0, "".join(printed)


def test_the_readme_runs_on_a_file_of_ones_own(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("## In Python")[2]
    own, made = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)[:2]
    names = {"np": np}
    exec(made.replace("20_000", "2_000"), names)
    np.save("acts.npy", np.load("acts.npy").astype(np.float16))
    exec(own.replace("max_steps=300", "max_steps=30"), names)
    assert names["codes"].shape == (1000, 256)
    assert names["X_hat"].shape == (1000, 64)
    assert len(names["numbers"]) == len(names["strengths"])
    assert {path.name for path in tmp_path.iterdir()} == {"acts.npy", "model.npz", "fidelity.png", "density.png"}


def test_the_checklist_names_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "checklist.md").read_text(encoding="utf-8")))
    assert named
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py")))
    assert named <= set(re.findall(r"^def (test_\w+)\(", sources, flags=re.MULTILINE))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_every_parameter_is_documented_with_its_default(Estimator):
    section = Estimator.__doc__.split("Parameters\n    ----------")[1].split("Attributes\n    ----------")[0]
    documented = {
        name.strip(): line
        for line in re.findall(r"^    (\w[\w, ]* : .*)$", section, flags=re.MULTILINE)
        for name in line.partition(" : ")[0].split(",")
    }
    defaults = Estimator().get_params()
    assert set(documented) == set(defaults)
    for name, default in defaults.items():
        said = documented[name].rpartition("default=")[2].strip("`. ")
        shown = '"' + default + '"' if isinstance(default, str) else str(default)
        assert said in (shown, "1/32" if name == "auxk_coef" else shown), (name, said, shown)


def public_names():
    """Every name that docs/api.rst lists, and the public methods that its class defines itself."""
    module = None
    for line in API.splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   [A-Za-z_][\w.]*", line):
            name = f"{module}.{line.strip()}"
            yield name
            found = _resolve(name)
            if inspect.isclass(found):
                yield from (f"{name}.{key}" for key in vars(found) if _is_method(found, key))


def _resolve(name):
    found, parts = skprojdict, name.split(".")[1:]
    for i, part in enumerate(parts):
        if not hasattr(found, part):
            importlib.import_module(".".join(["skprojdict", *parts[: i + 1]]))
        found = getattr(found, part)
    return found


def _is_method(owner, key):
    kinds = (classmethod, staticmethod, property)
    return not key.startswith("_") and (inspect.isfunction(vars(owner)[key]) or isinstance(vars(owner)[key], kinds))


# A reference to scikit-learn, as Markdown or reStructuredText have it, with a text of its own or without.
ROLE = r"[:{](?:class|func|exc|meth)[:}]`(?:~|[^`<]*<)?(sklearn[\w.]+)>?`"


def is_member(name):
    """Whether a name is that of a method."""
    return inspect.isclass(_resolve(name.rpartition(".")[0]))


def listed(module):
    return {name.removeprefix(f"{module}.") for name in public_names() if name.startswith(f"{module}.")}


# Packages whose parts are looked up one by one: the parts are what is public there.
PARTS = {"skprojdict.solvers"}
PUBLIC = sorted({"skprojdict.alignment.tasks", *re.findall(r"currentmodule:: (.+)", API)} - PARTS)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_lists_what_is_public(module):
    public = set(importlib.import_module(module).__all__) - {"__version__"}
    assert {name for name in listed(module) if "." not in name} == public


def test_every_public_package_is_in_the_reference():
    packages = {f"skprojdict.{name}" for _, name, _ in pkgutil.iter_modules(skprojdict.__path__) if name[0] != "_"}
    ours = {f"skprojdict.{name}" for name in ("cli", "formats", "kernels", "training")}  # for the rest of the package
    assert packages - ours == {*PUBLIC, *PARTS} - {"skprojdict", "skprojdict.alignment.tasks"}


def test_links_to_scikit_learn_lead_somewhere():
    block = re.search(r"^SCIKIT_LEARN = (\{.*?^\})", (DOCS / "conf.py").read_text(encoding="utf-8"), re.M | re.S)
    linked = set(ast.literal_eval(block.group(1)))
    for name in linked:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name
    sources = [*DOCS.glob("*.md"), *DOCS.glob("*.rst"), *(DOCS.parent / "skprojdict").rglob("*.py")]
    named = {name for path in sources for name in re.findall(ROLE, path.read_text(encoding="utf-8"))}
    assert named - linked == set()


@pytest.mark.parametrize("name", [name for name in public_names() if not is_member(name)])
def test_what_is_public_has_an_example(name):
    found = _resolve(name)
    if name.endswith("Interchanges") or (inspect.isclass(found) and issubclass(found, Exception)):
        pytest.skip("is handed out or raised, and not called")
    assert doctest.DocTestFinder(recurse=False).find(found, name)[0].examples


# numpydoc's codes: no docstring, no summary, sections unknown or in a wrong order, parameters missing, unknown, in
# another order or without a type, and generators without a Yields section. The rest is a matter of taste.
VALIDATED = {"GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "PR01", "PR02", "PR03", "PR04", "PR05", "PR10", "YD01"}
# scikit-learn calls these, and documents what it passes.
CALLBACK_HOOKS = ("setup", "teardown", "on_fit_task_begin", "on_fit_task_end")


@pytest.mark.parametrize("name", list(public_names()))
def test_public_docstrings_are_numpydoc(name):
    codes = VALIDATED - ({"PR01"} if name.endswith(CALLBACK_HOOKS) else set())
    assert [error for error in validate(name)["errors"] if error[0] in codes] == []
