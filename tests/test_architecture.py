# SPDX-License-Identifier: BSD-3-Clause
"""The arrows between modules, as docs/design.md draws them, read off the source."""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import skprojdict

PACKAGE = Path(skprojdict.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ARRAYS = ("_array", "_chunks", "_memory", "_products")
ARRAY_HELPERS = {"array_api_compat", "array_api_extra", "sklearn.utils._array_api"}


@dataclass(frozen=True)
class Import:
    module: str
    inside_function: bool
    for_types_only: bool


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


@cache
def imports_of(path):
    """Return every import of a file, relative ones made absolute, imported names included."""
    found = []
    package = ["skprojdict", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node, inside_function, for_types_only):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, inside_function, for_types_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append(Import(module, inside_function, for_types_only))
            found.extend(Import(f"{module}.{alias.name}", inside_function, for_types_only) for alias in node.names)
        inside_function = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types_only = for_types_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, inside_function, for_types_only)

    visit(ast.parse(path.read_text(encoding="utf-8")), False, False)
    return found


def within(module, packages):
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def own(path):
    """Return the modules of the package that a file imports, as 'solvers.ridge'; names inside modules as well."""
    return {each.module.removeprefix("skprojdict.") for each in imports_of(path) if within(each.module, ["skprojdict"])}


@pytest.fixture(params=FILES, ids=name_of)
def source(request):
    return request.param


def test_array_libraries_enter_by_one_door(source):
    if name_of(source) != "_array.py":
        assert not [each.module for each in imports_of(source) if within(each.module, ARRAY_HELPERS)]


def test_torch_is_for_training(source):
    torch = [each for each in imports_of(source) if within(each.module, ["torch"])]
    if name_of(source).startswith(("training/", "alignment/")):
        return
    # Estimators may ask torch for its devices and dtypes where they hand over to training, never at import.
    assert all(each.inside_function or each.for_types_only for each in torch)
    if name_of(source).startswith("solvers/"):
        assert torch == []


def test_cupy_and_matplotlib_are_imported_where_they_are_used(source):
    found = [each for each in imports_of(source) if within(each.module, ["cupy", "matplotlib"])]
    assert all(each.inside_function for each in found)


def test_formats_know_each_other_only(source):
    if name_of(source).startswith("formats/"):
        assert not [module for module in own(source) if not within(module, ["skprojdict", "formats"])]


def test_kernels_know_each_other_only(source):
    """But for whose threads wait beside theirs."""
    if name_of(source).startswith("kernels/"):
        assert not [module for module in own(source) if not within(module, ["skprojdict", "kernels", "_openmp"])]


def test_numba_is_loaded_by_the_call_that_it_pays_for(source):
    if name_of(source).startswith("kernels/"):
        return
    assert not [each.module for each in imports_of(source) if within(each.module, ["numba"])]
    kernels = [each for each in imports_of(source) if within(each.module, ["skprojdict.kernels"])]
    assert all(each.inside_function or within(each.module, ["skprojdict.kernels.threads"]) for each in kernels)


def test_solvers_know_arrays_kernels_and_each_other_only(source):
    if name_of(source).startswith("solvers/"):
        below = ["skprojdict", *ARRAYS, "kernels", "solvers"]
        assert not [module for module in own(source) if not within(module, below)]


def test_training_knows_arrays_solvers_sources_and_formats_only(source):
    if name_of(source).startswith("training/"):
        below = ["skprojdict", *ARRAYS, "solvers", "sources", "formats", "training"]
        assert not [module for module in own(source) if not within(module, below)]


def test_sources_know_formats_and_each_other_only(source):
    if name_of(source).startswith("sources/"):
        assert not [module for module in own(source) if not within(module, ["skprojdict", "formats", "sources"])]


def test_validation_and_array_know_nothing_above_them():
    assert not [module for module in own(PACKAGE / "_array.py") if not within(module, ["skprojdict", "kernels"])]
    for name in ("_chunks.py", "_memory.py"):
        assert not [module for module in own(PACKAGE / name) if not within(module, ["skprojdict", "_array"])]
    below = ["skprojdict", *ARRAYS, "sources"]
    assert not [module for module in own(PACKAGE / "_validation.py") if not within(module, below)]


def test_estimators_do_not_know_what_looks_at_them():
    above = ["cli", "plotting", "persistence", "metrics", "inspection", "datasets", "__main__"]
    family = ("_additive.py", "_topk.py", "_relu.py", "_jumprelu.py", "_gated.py")
    for name in ("_base.py", "_fitted.py", "_neural.py", "_projective.py", "_mod.py", *family):
        if (PACKAGE / name).exists():
            assert not [module for module in own(PACKAGE / name) if within(module, above)]


def test_only_the_command_line_prints(source):
    if name_of(source).startswith("cli/") or name_of(source) == "__main__.py":
        return
    names = {node.id for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
    assert "print" not in names


def test_every_file_says_what_it_is(source):
    text = source.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: BSD-3-Clause\n")
    assert ast.get_docstring(ast.parse(text))


def test_importing_the_package_loads_nothing_heavy():
    heavy = "torch", "cupy", "matplotlib", "dask"
    code = f"import sys, skprojdict; print(*[name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []
