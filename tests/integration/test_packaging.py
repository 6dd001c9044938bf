"""What is released: the files of the wheel, and the types that users' editors see."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from traccc_py import TrackingChain, match, read_cells, read_truth

chain = TrackingChain("odd")
result = chain.run(read_cells("event000000000-cells.csv"))
found = match(result, read_truth("muons", 0))
reveal_type(result.tracks[result.tracks.pt > 1])
reveal_type(found.counts(min_pt=1.0).efficiency)
result.tracks.pT
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "user.py"
    path.write_text(SCRIPT)
    return path


def checked(script, *command):
    """Return what a type checker says of a script outside of this repository."""
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, cwd=script.parent, check=False)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_sees_the_installed_package(script):
    pytest.importorskip("mypy")
    text = checked(script, sys.executable, "-m", "mypy", "--config-file=")
    assert 'Revealed type is "traccc_py.edm.collections.Tracks"' in text
    assert 'Revealed type is "float"' in text
    assert text.count("error:") == 1
    assert '"Tracks" has no attribute "pT"' in text


@pytest.mark.slow
def test_pyright_sees_the_installed_package(script):
    if find_spec("pyright") is None or shutil.which("node") is None:
        pytest.skip("no pyright, or no Node.js, which it needs")
    text = checked(script, sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
    if "user.py:" not in text:
        pytest.skip(f"pyright does not run: {text[-200:]}")  # it is fetched when it first runs
    assert 'is "Tracks"' in text
    assert 'efficiency" is "float"' in text
    assert "1 error" in text
    assert 'attribute "pT" for class "Tracks"' in text


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "traccc_py"], capture_output=True, text=True, cwd=ROOT, check=False)
    if tracked.returncode:
        pytest.skip("not a clone")
    copy = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", *tracked.stdout.split()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip(f"setuptools can't be had: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(tracked.stdout.split()) - names == set()
    assert not {name for name in names if name.startswith(("tests/", "studies/", "docs/"))}


def test_the_lock_has_a_version_that_fits_for_everything_in_development():
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = dict(
        re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^ ;\n]+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    )
    pinned = {name.lower(): version for name, version in pinned.items()}
    waiting, seen = [*project["dependencies"], *extras["dev"], *extras["docs"]], 0
    while waiting:
        one = requirements.Requirement(waiting.pop())
        if one.name == project["name"]:
            waiting += [line for extra in one.extras for line in extras[extra]]
            continue
        assert pinned[one.name.lower()] in one.specifier, one
        seen += 1
    assert seen > 30


def test_the_conda_recipe_asks_for_what_the_package_needs():
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {
        f"python {project['requires-python']}",
        *(re.sub(r"(?<=\w)(?=[<>=])", " ", d) for d in project["dependencies"]),
    }
    assert set(recipe["requirements"]["run"]) == needed
    assert recipe["context"]["version"] == project["version"]
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert entry == "traccc-py = " + project["scripts"]["traccc-py"]
