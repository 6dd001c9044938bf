"""The notebooks run from top to bottom, and are stored without outputs."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.service.conftest import require_server

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 600

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 5


@each_notebook
def test_notebooks_have_no_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []


def test_the_comparison_with_truth_is_short():
    (path,) = [path for path in NOTEBOOKS if path.stem == "first_tracks"]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (after,) = [k for k, cell in enumerate(cells) if "".join(cell["source"]).startswith("## Beside the truth")]
    assert len("".join(cells[after + 1]["source"]).splitlines()) <= 5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter are not ours
@each_notebook
def test_notebooks_run(path, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("plotly")
    if path.stem == "serve_and_ask":
        require_server()
    os.environ.setdefault("PYTHONPATH", str(path.parents[2]))
    notebook = nbformat.read(path, 4)
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    folder = tmp_path / "kernels" / "this"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel | {"display_name": "this"}))
    os.environ["JUPYTER_PATH"] = str(tmp_path)
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="this").execute(cwd=str(tmp_path))
    assert any(cell.get("outputs") for cell in notebook.cells)
