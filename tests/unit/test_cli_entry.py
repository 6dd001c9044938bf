"""Which files `run` takes, what they hold, and identifiers of Athena; with a stand-in for the chain."""

import json
import re

import numpy as np
import pytest

from tests.unit.test_cli import assert_refused, install_fake_chain, run, write_event
from traccc_py.data.csv_events import read_cells, write_measurements
from traccc_py.data.spacepoint_files import write_spacepoints
from traccc_py.edm import Measurements, Spacepoints
from traccc_py.geometry import build_detector

N = 5  # measurements of an event


@pytest.fixture(autouse=True)
def chain(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    install_fake_chain(monkeypatch)


def make_measurements():
    detector = build_detector("telescope")
    return Measurements(
        geometry_id=detector.geometry_ids[:N],
        local_position=np.full((N, 2), 0.5, np.float32),
        local_variance=np.full((N, 2), 1e-4, np.float32),
        dimensions=np.full(N, 2, np.int32),
        time=np.zeros(N, np.float32),
        module_index=np.arange(N, dtype=np.int32),
        cluster_size=np.zeros((N, 2), np.int32),
        n_cells=np.zeros(N, np.int32),
        measurement_id=np.arange(N),
    )


def write_entry(folder, event, kind, suffix=".csv"):
    """Write a file of a kind, of spacepoints also the measurements; return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"event{event:09d}-{kind}{suffix}"
    if kind == "cells":
        return write_event(folder, event, suffix=suffix)
    measurements = make_measurements()
    if kind == "measurements":
        write_measurements(path, measurements)
        return path
    s = build_detector("telescope").surfaces[:N]
    position = s.centre + 0.5 * s.u + 0.5 * s.v
    write_measurements(folder / f"event{event:09d}-measurements.csv", measurements)
    write_spacepoints(path, Spacepoints(position.astype(np.float32), np.arange(N, dtype=np.int32)), measurements)
    return path


def reported(tmp_path, *arguments):
    """Return (event, kind) of the events that `run` reports, and its result."""
    result = run(*arguments, "--json", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    events = json.loads((tmp_path / "run.json").read_text())["events"]
    return [(e["event"], e["kind"]) for e in events], result


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("kind", ["cells", "measurements", "spacepoints", "spacepoint"])
def test_the_name_of_a_file_tells_what_it_holds(tmp_path, kind, suffix):
    path = write_entry(tmp_path / "in", 3, kind, suffix)
    found, _ = reported(tmp_path, path)
    assert found == [(3, kind.removesuffix("s") + "s")]


def test_input_kind_overrides_the_name(tmp_path):
    path = write_entry(tmp_path / "in", 3, "measurements")
    other = path.rename(path.with_name("event000000004-hits.csv"))
    assert_refused(run(other), "event000000004-hits.csv, line 1: no column channel0")
    found, _ = reported(tmp_path, other, "--input-kind", "measurements")
    assert found == [(4, "measurements")]


def test_files_of_several_kinds_in_one_run(tmp_path):
    paths = [write_entry(tmp_path / "in", k, kind) for k, kind in enumerate(("measurements", "cells", "spacepoints"))]
    found, result = reported(tmp_path, *paths)
    assert found == [(0, "measurements"), (1, "cells"), (2, "spacepoints")]
    assert "--input-kind" not in result.stderr


def test_a_directory_gives_files_of_one_kind_and_tells_which(tmp_path):
    folder = tmp_path / "in"
    for kind, taken in (("spacepoints", "measurements"), ("measurements", "measurements"), ("cells", "cells")):
        write_entry(folder, 7, kind)
        found, result = reported(tmp_path, folder)
        assert found == [(7, taken)], kind
        assert f"taking the {taken}" in result.stderr
    assert "measurements and spacepoints with --input-kind" in result.stderr
    for kind in ("cells", "measurements", "spacepoints"):
        found, result = reported(tmp_path, "--input-directory", folder, "--input-kind", kind)
        assert found == [(7, kind)]
        assert "taking" not in result.stderr


def test_a_directory_of_spacepoints_alone_lacks_the_measurements(tmp_path):
    path = write_entry(tmp_path / "in", 7, "spacepoints")
    (path.parent / "event000000007-measurements.csv").unlink()
    assert_refused(run(path.parent), "event000000007-spacepoints.csv: its measurements are in", "there is neither")


def test_kinds_that_are_not_there_are_named(tmp_path):
    write_entry(tmp_path / "in", 7, "cells")
    assert_refused(run(tmp_path / "in", "--input-kind", "measurements"), "has no file that ends in -measurements.csv")
    assert_refused(run(tmp_path / "in", "--input-kind", "hits"), '--input-kind is "hits"; expected one of "cells",')


def test_skip_and_number_of_events_by_the_names_of_traccc(tmp_path):
    for event in range(4):
        write_entry(tmp_path / "in", event, "measurements")
    found, _ = reported(tmp_path, "--input-directory", tmp_path / "in", "--input-skip", 1, "--input-events", 2)
    assert [event for event, _ in found] == [1, 2]


def test_bad_rows_of_each_file_are_named(tmp_path):
    spacepoints = write_entry(tmp_path / "in", 1, "spacepoints")
    measurements = spacepoints.with_name("event000000001-measurements.csv")
    good = measurements.read_text()
    measurements.write_text(good.replace(",0.5,0.5,", ",0.5,500,", 1))
    assert_refused(run(measurements), f"{measurements}, line 2: local1 is 500 mm")
    assert_refused(run(spacepoints), f"{measurements}, line 2: local1 is 500 mm")
    measurements.write_text(good)
    lines = spacepoints.read_text().splitlines()
    spacepoints.write_text("\n".join([*lines[:2], re.sub(r"^1,", "4,", lines[2]), *lines[3:], ""]))
    assert_refused(run(spacepoints), f"{spacepoints}, line 3: position", "from that of its measurement")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bytes(range(256)) * 4, "is not text; expected a CSV file"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "is not text; it is gzipped: name it .csv.gz"),
    ],
)
def test_binary_input_is_not_text(tmp_path, content, problem):
    path = tmp_path / "event000000000-cells.csv"
    path.write_bytes(content)
    result = run(path)
    assert_refused(result, f"{path}: {problem}")
    assert result.stderr.isascii()


# --- identifiers of Athena


@pytest.fixture
def athena(tmp_path):
    """Return cells with Athena's identifiers, two of them 0, and the map."""
    path = write_event(tmp_path, 0, n=6)
    lines = path.read_text().splitlines()
    gid = str(build_detector("telescope").geometry_ids[0])
    renamed = [line.replace(gid, "0" if k in (1, 3) else "43981") for k, line in enumerate(lines[1:])]
    path.write_text("\n".join([lines[0], *renamed, ""]))
    table = tmp_path / "map.txt"
    table.write_text(f"1f,17\nabcd,{gid}\n")
    return path, table


def test_cells_of_athena_are_translated_and_those_without_module_left_out(athena, tmp_path):
    path, table = athena
    assert len(read_cells(path).geometry_id) == 6
    result = run(path, "--athena-map", table, "--json", tmp_path / "run.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run.json").read_text())["events"][0]["n_cells"] == 4
    assert f"{path}: 2 of 6 cells have geometry_id 0; left out" in result.stderr


def test_errors_of_athena_cells_name_the_line_of_the_file(athena):
    path, table = athena
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5].replace(",4,4,", ",4,99999999,"), lines[6], ""]))
    assert_refused(run(path, "--athena-map", table), f"{path}, line 6: channel1 is 99999999")
    path.write_text("\n".join([*lines[:5], lines[5].replace("43981", "43982"), lines[6], ""]))
    assert_refused(run(path, "--athena-map", table), f"{path}, line 6: geometry_id is 43982, which is not in {table}")


def test_the_map_of_athena_is_for_cells(athena, tmp_path):
    path = write_entry(tmp_path / "in", 0, "measurements")
    assert_refused(run(path, "--athena-map", athena[1]), "has measurements; --athena-map is for cells")
    assert_refused(run(athena[0], "--athena-map", tmp_path / "none.txt"), "none.txt: can't be read")
