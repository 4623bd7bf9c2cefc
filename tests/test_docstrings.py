# SPDX-License-Identifier: BSD-3-Clause
"""The examples in docstrings run and print what they say; every parameter of an estimator is documented."""

import doctest
import importlib
import pkgutil
import re

import pytest

import skprojdict
from skprojdict import MethodOfOptimalDirections, ProjectiveDictionaryLearning, TopKDictionaryLearning

MODULES = [name for _, name, _ in pkgutil.walk_packages(skprojdict.__path__, "skprojdict.") if "__main__" not in name]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_estimators_have_examples():
    found = [
        doctest.DocTestFinder().find(e, e.__name__)[0] for e in (ProjectiveDictionaryLearning, TopKDictionaryLearning)
    ]
    assert all(example.examples for example in found)


@pytest.mark.parametrize("Estimator", [ProjectiveDictionaryLearning, TopKDictionaryLearning, MethodOfOptimalDirections])
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
