"""Who may import whom, checked on the syntax trees; and what importing the package loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "traccc_py"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Part of the package -> parts it may import, besides itself. A part is a folder or file directly below traccc_py.
BASE = {"units", "errors", "extras", "files", "settings", "environment", "workers"}
ALLOWED = {
    "units": set(),
    "errors": set(),
    "extras": {"errors"},
    "files": set(),
    "environment": set(),
    "workers": set(),
    "settings": {"errors"},
    "edm": BASE,
    "config": BASE,
    "wire": BASE | {"edm"},
    "device": BASE,
    "geometry": BASE | {"edm", "device"},
    "kernels": BASE | {"edm", "device", "geometry", "config"},
    "data": BASE | {"edm", "device", "geometry"},
    "derivation": BASE | {"edm", "device", "geometry", "config"},
    "gnn": BASE | {"geometry", "kernels"},
    "pipeline": BASE | {"edm", "device", "geometry", "config", "derivation", "data", "kernels", "gnn"},
    "chain": BASE | {"edm", "device", "geometry", "config", "derivation", "data", "kernels", "pipeline"},
    "training": BASE
    | {
        "edm",
        "device",
        "geometry",
        "config",
        "data",
        "kernels",
        "gnn",
        "pipeline",
        "chain",
        "simulation",
        "performance",
    },
    "detector_options": BASE | {"geometry", "data"},
    "simulation": BASE | {"edm", "device", "geometry", "data"},
    "performance": BASE | {"edm", "device", "geometry", "data", "config", "simulation"},
    "tuning": BASE | {"edm", "device", "geometry", "data", "config", "derivation", "simulation", "performance"},
    "client": BASE | {"edm", "wire"},
    "backend": BASE
    | {"detector_options", "edm", "device", "geometry", "config", "data", "kernels", "pipeline", "chain", "wire"},
    "studies": BASE
    | {"edm", "device", "geometry", "config", "data", "chain", "wire", "client", "detector_options", "backend"}
    | {"simulation", "performance", "pipeline"},
    "cli": None,  # anything below it
    "distributed": BASE | {"edm", "config", "chain", "detector_options", "cli", "data"},
    "__main__": {"cli"},
    "__init__": None,  # lazy
}
NOT_BY_THE_COMMAND_LINE = {"__main__", "cli"}

# Outside package -> the only parts (or files) that may name it.
ONLY_IN = {
    "cupy": ["device"],
    "numba.cuda": ["device"],
    "cuda": ["device"],
    "numba": ["device", "kernels", "simulation"],
    "matplotlib": ["performance/plot_style.py", "performance/plots.py", "performance/views.py", "edm/picture.py"],
    "mplhep": ["performance/plot_style.py", "performance/plots.py"],
    "pandas": ["data", "edm/collection.py"],
    "pyarrow": ["data", "edm/collection.py"],
    "awkward": ["data/root_output.py", "edm/collection.py"],
    "uproot": ["data/root_output.py"],
    "optuna": ["tuning/search.py", "cli/tuning.py"],
    "pyhepmc": ["data/hepmc_output.py", "data/hepmc_input.py"],
    "plotly": ["performance/event_display.py", "cli/display.py"],
    "typer": ["cli"],
    "rich": ["cli"],
    "tritonclient": ["client"],
    "distributed": ["distributed.py"],
    "pythia8mc": ["simulation"],
    "torch": ["training", "cli/gnn.py"],
    "onnx": ["gnn/onnx_export.py"],
    "triton_python_backend_utils": ["backend"],
    "pytriton": ["backend"],
}
LAZY = ("numba", "cupy", "tritonclient", "matplotlib", "pandas", "typer", "rich", "scipy")


def imported_names(path):
    """Return (line, full dotted name) of everything a file imports, and of uses of numba.cuda."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; imports are absolute here"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "numba":
            found += [(node.lineno, f"numba.{node.attr}")] if node.attr == "cuda" else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "optional_module")):
            found += [(node.lineno, a.value) for a in node.args if isinstance(a, ast.Constant)]
    return found


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def names(prefix, name):
    return name == prefix or name.startswith(f"{prefix}.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} is a new part of the package; say in ALLOWED what it may import"
    for line, name in imported_names(path):
        if not name.startswith("traccc_py."):
            continue
        target = name.split(".")[1]
        allowed = ALLOWED[part]
        if allowed is None:
            is_allowed = target == part or target not in NOT_BY_THE_COMMAND_LINE
        else:
            is_allowed = target == part or target in allowed
        assert is_allowed, f"{path.relative_to(ROOT)}:{line}: {part} must not import {target}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_outside_packages_are_named_only_where_they_belong(package):
    for path in SOURCES:
        relative = path.relative_to(PACKAGE).as_posix()
        if any(relative == place or relative.startswith(f"{place}/") for place in ONLY_IN[package]):
            continue
        for line, name in imported_names(path):
            assert not names(package, name), (
                f"traccc_py/{relative}:{line}: names {name}, which belongs to {ONLY_IN[package]}"
            )


def test_independent_references_import_nothing_of_the_package():
    for path in sorted((ROOT / "tests" / "reference").rglob("*.py")):
        for line, name in imported_names(path):
            assert not names("traccc_py", name), f"{path.relative_to(ROOT)}:{line}: imports {name}"


def loaded_by(code):
    """Return which of the slow packages a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}} & set({LAZY!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_slow():
    assert loaded_by("import traccc_py") == set()


def test_importing_light_parts_loads_no_compiler():
    assert loaded_by("import traccc_py.errors, traccc_py.units, traccc_py.edm, traccc_py.config") == set()
    assert loaded_by("from traccc_py import Cells, ChainConfig, EventResult, InputDataError; ChainConfig()") == set()
    assert loaded_by("import traccc_py.data.source, traccc_py.data.truth") == set()
    assert loaded_by("import traccc_py.data.csv_events, traccc_py.data.parquet_files") == set()
    assert "numba" not in loaded_by("from traccc_py import build_detector, read_cells")


def test_importing_the_client_loads_no_server_packages():
    code = "import pkgutil, importlib, traccc_py.client as c\n"
    code += "for m in pkgutil.iter_modules(c.__path__): importlib.import_module(f'traccc_py.client.{m.name}')"
    assert loaded_by(code) <= {"tritonclient", "typer", "rich"}


def test_public_names_can_be_imported():
    import traccc_py

    missing = [name for name in traccc_py.__all__ if not hasattr(traccc_py, name)]
    assert missing == []
    assert set(traccc_py.__all__) <= set(dir(traccc_py))
    assert traccc_py.__version__
    with pytest.raises(AttributeError, match="has no attribute 'wibble'"):
        _ = traccc_py.wibble
