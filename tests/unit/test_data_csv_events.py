"""Event files in traccc's format."""

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from traccc_py.data.csv_events import (
    event_file_name,
    event_files,
    event_number,
    find_event_file,
    read_cells,
    read_hits,
    read_measurement_hit_map,
    read_measurements,
    read_particles,
    write_cells,
    write_hits,
    write_measurement_hit_map,
    write_measurements,
    write_particles,
)
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.errors import InputDataError
from traccc_py.performance.truth import read_truth

REFERENCE_DATA = os.environ.get("TRACCC_PY_REFERENCE_DATA")
SUFFIXES = [".csv", ".csv.gz"]


def assert_same(first, second):
    for name in (field.name for field in dataclasses.fields(first)):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype, name


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def ids(rng, n):
    return rng.integers(0, 2**64, n, dtype=np.uint64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n", [0, 1, 50])
def test_cells_survive_a_round_trip(tmp_path, rng, suffix, n):
    cells = Cells(
        geometry_id=ids(rng, n),
        channel0=rng.integers(0, 2**31, n, np.int32),
        channel1=rng.integers(0, 1400, n, np.int32),
        activation=np.abs(floats(rng, n)),
        time=floats(rng, n),
        measurement_id=rng.integers(0, 1000, n),
    )
    path = tmp_path / f"event000000000-cells{suffix}"
    write_cells(path, cells)
    assert_same(read_cells(path), cells)


def test_read_cells_needs_no_truth_and_no_time(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("value,channel1,channel0,geometry_id\n0.5,2,1,1152922329240578050\n")
    cells = read_cells(path)
    assert cells.geometry_id.tolist() == [1152922329240578050]
    assert (cells.channel0[0], cells.channel1[0], cells.activation[0], cells.time[0]) == (1, 2, 0.5, 0.0)
    assert cells.measurement_id.tolist() == [-1]
    write_cells(path, cells)
    assert path.read_text().splitlines()[1] == "1152922329240578050,0,1,2,0,0.5"


@pytest.mark.parametrize("missing", ["geometry_id", "channel0", "channel1", "value"])
def test_read_cells_names_a_missing_column(tmp_path, missing):
    path = tmp_path / "cells.csv"
    path.write_text(",".join(c for c in ["geometry_id", "channel0", "channel1", "value"] if c != missing) + "\n")
    with pytest.raises(InputDataError, match=f"no column {missing}"):
        read_cells(path)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("5,0,1,2,0,nan", "value"),
        ("5,0,1,2,0,-1", "value"),
        ("5,0,-1,2,0,1", "channel0"),
        ("5,0,1,4294967296,0,1", "channel1"),
    ],
)
def test_read_cells_names_an_impossible_value(tmp_path, row, column):
    path = tmp_path / "cells.csv"
    path.write_text(f"geometry_id,measurement_id,channel0,channel1,timestamp,value\n{row}\n")
    with pytest.raises(InputDataError, match=f"line 2: column {column} is"):
        read_cells(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n", [0, 20])
def test_truth_survives_a_round_trip(tmp_path, rng, suffix, n):
    particles = Particles(
        particle_id=ids(rng, n),
        particle_type=rng.integers(-300, 300, n).astype(np.int32),
        process=np.zeros(n, np.int32),
        vertex=floats(rng, n, 3),
        time=floats(rng, n),
        momentum=floats(rng, n, 3),
        mass=np.abs(floats(rng, n)),
        charge=floats(rng, n),
    )
    hits = Hits(
        particle_id=ids(rng, n),
        geometry_id=ids(rng, n),
        position=floats(rng, n, 3),
        time=floats(rng, n),
        momentum=floats(rng, n, 3),
        energy=floats(rng, n),
        delta_momentum=floats(rng, n, 3),
        delta_energy=floats(rng, n),
        index=np.arange(n),
    )
    links = MeasurementHitMap(np.arange(n) // 2, np.arange(n))
    write_particles(tmp_path / f"p{suffix}", particles)
    write_hits(tmp_path / f"h{suffix}", hits)
    write_measurement_hit_map(tmp_path / f"m{suffix}", links)
    assert_same(read_particles(tmp_path / f"p{suffix}"), particles)
    assert_same(read_hits(tmp_path / f"h{suffix}"), hits)
    assert_same(read_measurement_hit_map(tmp_path / f"m{suffix}"), links)


def some_measurements(rng, n):
    return Measurements(
        geometry_id=ids(rng, n),
        local_position=floats(rng, n, 2),
        local_variance=np.abs(floats(rng, n, 2)),
        dimensions=rng.integers(1, 3, n).astype(np.int32),
        time=floats(rng, n),
        module_index=np.full(n, -1, np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=np.arange(n),
        cell_offsets=np.zeros(n + 1, np.int64),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n", [0, 20])
def test_measurements_survive_a_round_trip(tmp_path, rng, suffix, n):
    measurements = some_measurements(rng, n)
    write_measurements(tmp_path / f"m{suffix}", measurements)
    assert_same(read_measurements(tmp_path / f"m{suffix}"), measurements)


MEASUREMENT_HEADER = (
    "measurement_id,geometry_id,local_key,local0,local1,phi,theta,time,"
    "var_local0,var_local1,var_phi,var_theta,var_time\n"
)


@pytest.mark.parametrize(
    ("key", "dimensions"),
    [("\x02", 1), ("\x06", 2), ("2", 1), ("6", 2), (" 6", 2), ("54", 2), ("50", 1), ("14", 2), ("\x0e", 2)],
)
def test_read_measurements_understands_local_keys(tmp_path, key, dimensions):
    path = tmp_path / "m.csv"
    path.write_text(f"{MEASUREMENT_HEADER}0,5,\x06,1,2,0,0,0,1,1,0,0,0\n1,5,{key},1,2,0,0,0,1,1,0,0,0\n")
    assert read_measurements(path).dimensions.tolist() == [2, dimensions]


@pytest.mark.parametrize("key", ["4", "\x04", "0", "x", "six", "", "-2"])
def test_read_measurements_rejects_other_local_keys(tmp_path, key):
    path = tmp_path / "m.csv"
    path.write_text(f"{MEASUREMENT_HEADER}0,5,6,1,2,0,0,0,1,1,0,0,0\n1,5,{key},1,2,0,0,0,1,1,0,0,0\n")
    with pytest.raises(InputDataError, match="line 3: column local_key is"):
        read_measurements(path)


def test_read_measurements_finds_modules(tmp_path, rng):
    class Detector:
        def module_index(self, geometry_ids):
            return np.arange(len(geometry_ids)) + 7

    write_measurements(tmp_path / "m.csv", some_measurements(rng, 3))
    assert read_measurements(tmp_path / "m.csv", Detector()).module_index.tolist() == [7, 8, 9]


def test_event_names():
    assert event_file_name(12, "tracks", compress=True) == "event000000012-tracks.csv.gz"
    assert event_number("some_event000000012-cells.csv") == 12
    assert event_number("event12-cells.csv") == 12
    assert event_number("run3_evt_7-hits.csv") == 7
    assert event_number("mu200_3-cells.csv") is None
    assert event_number(Path("event000000001") / "cells.csv") is None


def test_find_event_file(tmp_path):
    with pytest.raises(InputDataError, match="there is neither"):
        find_event_file(tmp_path, 3, "cells")
    (tmp_path / "event000000003-cells.csv.gz").touch()
    assert find_event_file(tmp_path, 3, "cells").name == "event000000003-cells.csv.gz"
    (tmp_path / "event000000003-cells.csv").touch()
    with pytest.raises(InputDataError, match=r"there are event000000003-cells.csv and event000000003-cells.csv.gz"):
        find_event_file(tmp_path, 3, "cells")


def test_files_of_any_number_of_digits_are_found_in_the_order_of_their_events(tmp_path):
    for name in ("event1-cells.csv", "event10-cells.csv", "event2-cells.csv.gz", "event3-cells.csv.bak", "cells.csv"):
        (tmp_path / name).touch()
    assert [number for number, _ in event_files(tmp_path, "cells")] == [1, 2, 10]
    assert find_event_file(tmp_path, 10, "cells").name == "event10-cells.csv"
    (tmp_path / "event010-cells.csv").touch()
    with pytest.raises(InputDataError, match=r"there are event010-cells.csv and event10-cells.csv; remove all but one"):
        find_event_file(tmp_path, 10, "cells")


def test_ids_of_particles_in_five_columns_are_those_of_one(tmp_path, rng):
    particles = Particles(
        ids(rng, 9), *(np.zeros(9, np.int32),) * 2, *(floats(rng, 9, 3), floats(rng, 9)) * 2, floats(rng, 9)
    )
    particles.mass = np.abs(particles.mass)
    path = tmp_path / "p.csv"
    write_particles(path, particles, ids_in_fields=True)
    assert path.read_text().startswith("particle_id_pv,particle_id_sv,particle_id_part,particle_id_gen,particle_id_sub")
    assert_same(read_particles(path), particles)
    lines = path.read_text().splitlines()
    for name, value, expected in (("pv", 4096, 4095), ("gen", -1, 255), ("part", "1.5", 65535)):
        column = lines[0].split(",").index(f"particle_id_{name}")
        values = lines[3].split(",")
        values[column] = str(value)
        path.write_text("\n".join([*lines[:3], ",".join(values), *lines[4:], ""]))
        message = rf"line 4: column particle_id_{name} is '{value}'; expected an integer from 0 to {expected}"
        with pytest.raises(InputDataError, match=message):
            read_particles(path)
    path.write_text("\n".join([lines[0].replace("particle_id_gen", "generation"), *lines[1:], ""]))
    with pytest.raises(InputDataError, match=r"no column particle_id or \(particle_id_pv, particle_id_sv"):
        read_particles(path)


@pytest.mark.skipif(REFERENCE_DATA is None, reason="needs TRACCC_PY_REFERENCE_DATA")
def test_barcodes_of_acts_in_five_columns_link_hits_to_particles():
    folder = Path(REFERENCE_DATA) / "cases" / "acts_barcodes"
    truth = read_truth(folder, 0)
    assert (truth.particle_of_hit >= 0).all()
    assert len(truth.particles) == len(np.unique(truth.particles.particle_id))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_last_line_without_end_is_told(tmp_path, caplog, suffix):
    path, open_file = tmp_path / f"m{suffix}", gzip.open if suffix.endswith("gz") else open
    with open_file(path, "wb") as file:
        file.write(b"measurement_id,hit_id\n0,0\n1,123")
    assert len(read_measurement_hit_map(path)) == 2
    assert "line 3: the last line has no line break, so digits of its last value '123' may be missing" in caplog.text
    caplog.clear()
    with open_file(path, "wb") as file:
        file.write(b"measurement_id,hit_id\n0,0\n1,123\n")
    read_measurement_hit_map(path)
    assert caplog.text == ""


@pytest.mark.skipif(REFERENCE_DATA is None, reason="needs TRACCC_PY_REFERENCE_DATA")
def test_reads_files_that_traccc_wrote():
    folder = Path(REFERENCE_DATA)
    odd = read_cells(next((folder / "odd_real").glob("*-cells.csv")))
    assert len(odd) == 1594
    assert odd.geometry_id[0] == 1152922329240578050
    toy = folder / "traccc_toy" / "toy_mu10_10GeV"
    measurements = read_measurements(find_event_file(toy, 0, "measurements"))
    links = read_measurement_hit_map(find_event_file(toy, 0, "measurement-simhit-map"))
    hits = read_hits(find_event_file(toy, 0, "hits"))
    particles = read_particles(find_event_file(toy, 0, "particles_initial"))
    cells = read_cells(find_event_file(toy, 0, "cells"))
    assert set(measurements.dimensions.tolist()) == {2}
    assert len(links) == len(hits)
    assert set(hits.particle_id.tolist()) <= set(particles.particle_id.tolist())
    assert len(cells) > len(measurements) > 0
    np.testing.assert_array_equal(measurements.geometry_id[links.measurement_id], hits.geometry_id[links.hit_id])
