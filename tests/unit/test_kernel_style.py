"""Kernels read without a legend: state has names, not numbers, and common constants are written down once."""

import ast
from pathlib import Path

import pytest

from traccc_py.kernels import constants

KERNELS = Path(constants.__file__).parent
FOLDERS = ("ambiguity_resolution", "clusterization", "finding", "fitting", "seeding", "tracking")
FILES = [path for folder in FOLDERS for path in sorted((KERNELS / folder).glob("*.py"))]
COMPILED = {"device_function", "kernel"}


def is_compiled(node):
    """Whether a node is a function that Numba compiles."""
    decorators = getattr(node, "decorator_list", [])
    return any(getattr(d, "id", getattr(getattr(d, "func", None), "id", "")) in COMPILED for d in decorators)


def is_number(node):
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def root_of(node):
    """Name at the start of a chain of attributes."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", None)


def numeric_subscripts(source):
    """(line, text) of the subscripts in compiled functions that name a part of something by its number.

    A row of an array of the payload `p` and a member of a shape may have a number; a column is named.
    """
    found = []
    for function in filter(is_compiled, ast.walk(ast.parse(source))):
        for node in ast.walk(function):
            if not isinstance(node, ast.Subscript):
                continue
            if isinstance(node.slice, ast.Tuple):
                is_bad = any(map(is_number, node.slice.elts))
            else:
                is_shape = isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
                is_row = isinstance(node.value, ast.Attribute) and root_of(node.value) == "p"
                is_bad = is_number(node.slice) and not is_shape and not is_row
            found += [(node.lineno, ast.unparse(node))] if is_bad else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(KERNELS).as_posix())
def test_state_is_not_known_by_numbers(path):
    assert numeric_subscripts(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(KERNELS).as_posix())
def test_common_constants_are_those_of_one_file(path):
    targets = [t for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign) for t in node.targets]
    names = {name.id.strip("_") for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    assert names.isdisjoint(constants.__all__)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = track[1]", ["track[1]"]),
        ("x = track.params[-1]", ["track.params[-1]"]),
        ("x = field_at(p.field, place)[0]", ["field_at(p.field, place)[0]"]),
        ("x = p.local_position[m, 0]", ["p.local_position[m, 0]"]),
        ("p.offsets[0] = p.values.shape[1] + p.local_position[m, LOC0]", []),
    ],
)
@pytest.mark.parametrize("decorator", ["device_function", "device_function(inlined=True)", "kernel(grain=8)"])
def test_numbers_are_found_in_compiled_functions(line, found, decorator):
    source = f"def f(i, p):\n    {line}\n"
    assert [text for _, text in numeric_subscripts(f"@{decorator}\n{source}")] == found
    assert numeric_subscripts(source) == []
