"""The chain from measurements and from spacepoints: same bits as from cells, in any order and any batch.

With traccc's variances and without a cut on cluster sizes: both belong to clusters, which measurements that come in do
not have.
"""

import dataclasses

import numpy as np
import pytest

from tests.integration.small_events import columns
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_measurements
from traccc_py.data.spacepoint_files import read_spacepoints, write_spacepoints
from traccc_py.data.track_files import write_event_result
from traccc_py.device.deferred import DeferredDevice
from traccc_py.edm import Measurements, ModuleCells, Spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

CONFIG = ChainConfig().with_settings({"clusterization.variance": "traccc", "seeding.cluster_size_tolerance": "off"})
SIZES = (20, 0, 60, 3)  # muons of the events
OF_CELLS = {f"measurements.{name}" for name in ("cluster_size", "n_cells", "cell_offsets", "cell_indices")}


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def chain(detector):
    return TrackingChain(detector, CONFIG, device="cpu", threads=2)


@pytest.fixture(scope="module")
def cells(detector):
    guns = [ParticleGunConfig(n_particles=n, momentum=(0.5, 20.0), vertex_sigma=(0.01, 0.01, 55.0)) for n in SIZES]
    return [simulate_event(detector, gun, seed=5, event=k).cells for k, gun in enumerate(guns)]


@pytest.fixture(scope="module")
def expected(chain, cells):
    return chain.run_batch(cells)


@pytest.fixture(scope="module")
def files(expected, tmp_path_factory):
    """Return the folder with the output of the chain, and spacepoints."""
    folder = tmp_path_factory.mktemp("files")
    for k, result in enumerate(expected):
        write_event_result(folder, k, result)
        write_spacepoints(folder / f"event{k:09d}-spacepoints.csv", result.spacepoints, result.measurements)
    return folder


@pytest.fixture(scope="module")
def measurements(files):
    return [read_measurements(files / f"event{k:09d}-measurements.csv") for k in range(len(SIZES))]


@pytest.fixture(scope="module")
def spacepoints(files, measurements):
    read = [read_spacepoints(files / f"event{k:09d}-spacepoints.csv", m) for k, m in enumerate(measurements)]
    return list(zip(measurements, read, strict=True))


def assert_same_bits(result, expected, but=()):
    found, wanted = columns(result), columns(expected)
    for name, column in wanted.items():
        if name not in but:
            assert found[name].dtype == column.dtype, name
            assert found[name].tobytes() == column.tobytes(), name
    assert result.n_candidates == expected.n_candidates


def test_cells_by_module_give_the_same_bits(chain, cells, expected):
    ids, starts = np.unique(cells[2].geometry_id, return_index=True)
    assert (np.diff(cells[2].geometry_id.astype(np.float64)) >= 0).all()  # by module, so one run each
    n_cells = np.diff(starts, append=len(cells[2]))
    by_module = ModuleCells(ids, n_cells, *(getattr(cells[2], name) for name in ModuleCells.__slots__[2:]))
    assert len(by_module) == len(cells[2]) > 1000
    for results in (chain.run_batch([by_module]), chain.run_batch([cells[0], by_module])[1:]):
        assert_same_bits(results[0], expected[2])


def take(m, rows):
    fields = {f.name: getattr(m, f.name) for f in dataclasses.fields(m) if not f.name.startswith("cell_")}
    return Measurements(**{name: column[rows] for name, column in fields.items()})


@pytest.fixture(params=["measurements", "spacepoints"])
def events(request):
    return request.getfixturevalue(request.param)


def shuffled(event, seed):
    rng = np.random.default_rng(seed)
    m, points = event if isinstance(event, tuple) else (event, None)
    rows = rng.permutation(len(m))
    if points is None:
        return take(m, rows)
    again, new_row = rng.permutation(len(points)), np.argsort(rows).astype(np.int32)
    moved = Spacepoints(points.global_position[again], new_row[points.measurement_index[again]])
    return take(m, rows), moved


def test_events_have_tracks(expected):
    assert [len(r.tracks) > 0 for r in expected] == [True, False, True, True]


def test_same_bits_from_the_files_that_the_chain_wrote(chain, events, expected):
    for result, wanted in zip(chain.run_batch(events), expected, strict=True):
        assert_same_bits(result, wanted, OF_CELLS)
        assert result.n_cells == 0
        assert not result.measurements.cluster_size.any()
        assert not result.measurements.cell_offsets.any()


def test_same_bits_for_any_order_of_rows_and_alone(chain, events):
    for k, (event, together) in enumerate(zip(events, chain.run_batch(events), strict=True)):
        assert_same_bits(chain.run(shuffled(event, k)), together)


def test_same_bits_among_events_of_other_kinds(chain, cells, measurements, spacepoints, expected):
    mixed = [measurements[0], cells[1], spacepoints[2], cells[3], measurements[2], cells[0]]
    results = chain.run_batch(mixed)
    for result, k in zip(results, (0, 1, 2, 3, 2, 0), strict=True):
        assert_same_bits(result, expected[k], OF_CELLS)
    assert [r.n_cells > 0 for r in results] == [False, False, False, True, False, True]
    stages = [set(r.stage_milliseconds) for r in results]
    assert stages[3] - stages[0] == {"clusterization"}
    assert stages[0] - stages[2] == {"spacepoint_formation"}


def test_same_bits_where_sizes_stay_on_the_device(detector, events, expected):
    chain = TrackingChain(detector, CONFIG, device=DeferredDevice(2))
    for result, wanted in zip(chain.run_batch(events), expected, strict=True):
        assert_same_bits(result, wanted, OF_CELLS)


def test_ids_are_those_of_the_input_and_equal_rows_are_kept(chain, measurements):
    m = take(measurements[0], np.arange(len(measurements[0])))
    m.measurement_id += 1000
    result = chain.run(m)
    assert sorted(result.measurements.measurement_id) == sorted(m.measurement_id)
    twice = chain.run(take(m, np.repeat(np.arange(len(m)), 2)))
    assert len(twice.measurements) == 2 * len(m)
    assert len(twice.spacepoints) == 2 * len(result.spacepoints)


def test_given_variances_are_used(chain, measurements):
    m = take(measurements[0], np.arange(len(measurements[0])))
    m.local_variance *= 4
    result = chain.run(m)
    np.testing.assert_array_equal(result.measurements.local_variance, m.local_variance)
    plain = chain.run(measurements[0])
    n = len(plain.tracks)
    ratio = np.median(result.tracks.covariance[:n, 0]) / np.median(plain.tracks.covariance[:, 0])
    assert 1.5 < ratio < 4.5  # scattering doesn't grow


def test_given_spacepoints_are_used(chain, spacepoints):
    m, points = spacepoints[0]
    half = Spacepoints(points.global_position[::2], points.measurement_index[::2])
    result = chain.run((m, half))
    assert len(result.spacepoints) == len(half)
    assert len(result.seeds) < len(chain.run((m, points)).seeds)


def test_what_is_no_event_is_refused(chain, measurements):
    with pytest.raises(InputDataError, match="an event is a list; expected Cells, ModuleCells, Measurements, "):
        chain.run([measurements[0]])
    with pytest.raises(InputDataError, match="an event is a tuple"):
        chain.run((measurements[0],))


def test_errors_name_the_source(chain, measurements):
    m = take(measurements[0], np.arange(len(measurements[0])))
    m.local_variance[4] = 0
    with pytest.raises(InputDataError, match=r"^b\.csv, line 6: var_local0 is 0\.0"):
        chain.run_batch([measurements[0], m], ["a.csv", "b.csv"])
