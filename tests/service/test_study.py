"""Studies with real services: one in the default run, all of them in the slow one."""

import csv
import json
import os
import subprocess
import sys

import pytest

from tests.integration.small_events import telescope, telescope_cells
from tests.service.conftest import require_server
from traccc_py.data.csv_events import write_cells
from traccc_py.studies.kinds import STUDIES

SECONDS = 400
MEASURED_SECONDS = (0.6, 4.0)  # of each point; a busy machine needs more for five requests, and for warm ones


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("telescope")
    for number in range(2):
        write_cells(folder / f"event{number:09d}-cells.csv", telescope_cells(5, number, telescope()))
    return folder


def study(kind, output, *options):
    """Run a study; return the process, what it found and the table."""
    require_server()
    command = [sys.executable, "-m", "traccc_py", "study", kind, "--size", "tiny", "--output", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    (path,) = output.glob(f"*-{kind}.json")
    assert path.with_suffix(".png").exists() == (done.returncode == 0), done.stderr
    found = json.loads(path.read_text())
    return done, found, list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))


def n_usable(found):
    return sum(not point["problems"] for point in found["points"])


@pytest.mark.service
def test_a_study_from_servers_to_figure(folder, tmp_path):
    options = ["--values", "4", "--detector", "telescope", "--sample", f"0={folder}"]
    for seconds in MEASURED_SECONDS:
        done, found, table = study("batch", tmp_path / f"{seconds}", "--seconds", f"{seconds}", *options)
        if n_usable(found) == len(found["points"]):
            break
    assert done.returncode == 0, done.stderr
    assert found["is_complete"]
    assert found["plan"]["concurrency"] == 8
    standalone, service = found["points"]
    assert (standalone["curve"], service["curve"]) == ("standalone", "service")
    assert service["problems"] == ""
    assert service["requests"] > 20
    assert service["errors"] == 0
    assert 0 < service["p50_ms"] <= service["p90_ms"] <= service["p99_ms"]
    parts = [service[f"{name}_ms"] for name in ("transfer", "queue", "input", "compute", "output")]
    assert sum(parts) == pytest.approx(service["mean_ms"], rel=0.3)
    assert 1 <= service["mean_batch"] <= 4
    assert service["cpu_ms"] > 0
    assert service["memory_mb"] > 100
    assert len(table) == 2


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in STUDIES if kind != "batch"])
def test_every_study(kind, folder, tmp_path):
    if kind == "remote" and os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    options = [] if kind in ("region", "exatrkx") else ["--detector", "telescope", "--sample", f"0={folder}"]
    for seconds in MEASURED_SECONDS:
        done, found, _ = study(kind, tmp_path / f"{seconds}", "--seconds", f"{seconds}", *options)
        assert found["points"], done.stderr
        if n_usable(found) >= len(found["points"]) / 2:
            break
    assert done.returncode == 0, done.stderr
    assert n_usable(found) >= len(found["points"]) / 2, [point["problems"] for point in found["points"]]
    assert all(point["throughput"] > 0 for point in found["points"] if not point["problems"])
