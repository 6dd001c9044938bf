"""Files of TrackML: events there and back, the score, submissions, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from tests.performance_events import event_of, links_of, particles_at, tracks_of
from tests.reference import trackml as reference
from tests.trackml_files import toy_rows, write_rows
from traccc_py.cli.files import find_event_files
from traccc_py.data.trackml_files import (
    read_trackml_cells,
    read_trackml_hits,
    read_trackml_particles,
    read_trackml_truth,
    trackml_measurements,
)
from traccc_py.data.trackml_weights import hit_weights
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.geometry import read_trackml_detector
from traccc_py.performance.trackml_score import event_score
from traccc_py.performance.truth import read_truth
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.generators.particle_files import FileParticles, file_numbers
from traccc_py.simulation.settings import ParticleFilesConfig, SampleConfig
from traccc_py.simulation.trackml import TRACKML_FILES, write_trackml

NUMBER = 1000


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return read_trackml_detector(write_rows(tmp_path_factory.mktemp("detector") / "detectors.csv", toy_rows()))


@pytest.fixture(scope="module")
def event(detector):
    gun = ParticleGunConfig(20, momentum=(0.3, 5.0), eta=(-1.0, 1.0), vertex_sigma=(0.01, 0.01, 30.0))
    return simulate_event(detector, gun, 3, NUMBER, noise=(1e-7, 0.0))


@pytest.fixture
def folder(tmp_path, detector, event):
    write_trackml(tmp_path, detector, event)
    return tmp_path


def path_of(folder, kind):
    return folder / f"event{NUMBER:09d}-{kind}.csv"


def changed(folder, kind, change):
    path = path_of(folder, kind)
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_events_come_back(folder, detector, event):
    hits = read_trackml_hits(path_of(folder, "hits"))
    cells, hit_id = read_trackml_cells(path_of(folder, "hits"), detector)
    truth = read_trackml_truth(path_of(folder, "hits"), hits)
    n_noise = np.count_nonzero(event.cells.measurement_id < 0)
    n_true = len(np.unique(event.cells.measurement_id[event.cells.measurement_id >= 0]))
    assert n_noise > 5
    assert len(hits.hit_id) == n_true + n_noise
    assert len(cells) == len(event.cells)
    assert np.array_equal(hits.hit_id[cells.measurement_id], hit_id)
    order = np.lexsort((cells.channel0, cells.channel1, cells.geometry_id))
    assert np.array_equal(cells.activation[order], event.cells.activation)
    assert np.count_nonzero(truth.hits.particle_id == 0) == n_noise
    of_particles = truth.hits.particle_id > 0
    off = np.linalg.norm(truth.hits.position - hits.position, axis=1)
    assert off[of_particles].max() < 0.3  # of true crossings of 50 um pixels by inclined tracks
    assert truth.weight.sum() == pytest.approx(1)
    particles = read_trackml_particles(path_of(folder, "particles"))
    assert np.array_equal(particles.particle_id, event.particles.particle_id)
    assert np.abs(particles.momentum - event.particles.momentum).max() < 1e-6
    found = pd.read_csv(path_of(folder, "particles"))
    assert found.nhits.sum() == n_true


def test_order_of_rows_and_further_columns_change_nothing(folder, detector):
    before = read_trackml_hits(path_of(folder, "hits"))
    truth = read_trackml_truth(path_of(folder, "hits"), before)
    for kind in TRACKML_FILES:
        changed(folder, kind, lambda table: table.sample(frac=1, random_state=1).assign(note=1))
    hits = read_trackml_hits(path_of(folder, "hits"))
    again = read_trackml_truth(path_of(folder, "hits"), hits)
    order = np.argsort(hits.hit_id)
    assert np.array_equal(hits.geometry_id[order], before.geometry_id)
    assert np.array_equal(again.hits.particle_id[order], truth.hits.particle_id)
    assert len(read_trackml_cells(path_of(folder, "hits"), detector)[0])


def test_hits_alone_are_measurements_with_the_error_of_a_channel(folder, detector):
    hits = read_trackml_hits(path_of(folder, "hits"))
    found = trackml_measurements(hits, detector, "hits")
    there = detector.surfaces.global_positions(found.module_index, found.local_position.astype(float))
    assert np.abs(there - hits.position).max() < 1e-4
    assert found.local_variance == pytest.approx(0.05**2 / 12)
    assert np.array_equal(found.measurement_id, hits.hit_id)


def test_commands_know_the_files_by_their_columns(folder, tmp_path):
    def found(*arguments, **options):
        files = find_event_files(list(map(str, arguments)), with_tables=True, **options)
        return [(f.event, f.path.name, f.kind) for f in files]

    hits = path_of(folder, "hits").name
    assert found(folder) == [(NUMBER, hits, "trackml")]
    assert found(folder / hits, path_of(folder, "cells")) == [(NUMBER, hits, "trackml")]
    assert found(folder, kind="trackml_hits") == [(NUMBER, hits, "trackml_hits")]
    path_of(folder, "cells").unlink()
    assert found(folder) == [(NUMBER, hits, "trackml_hits")]


def test_truth_links_cells_and_hits(folder, detector):
    truth = read_truth(folder, NUMBER)
    hits = read_trackml_hits(path_of(folder, "hits"))
    links = truth.link(trackml_measurements(hits, detector, "hits"))
    assert np.array_equal(links.hits, np.repeat(np.arange(len(hits.hit_id))[:, None], 2, axis=1))
    assert truth.hit_weights.sum() == pytest.approx(1)
    other = trackml_measurements(hits, detector, "hits")
    other.geometry_id = other.geometry_id[::-1]
    with pytest.raises(InputDataError, match="neither the hits"):
        truth.link(other)


def drop_cells_of_first(table):
    return table[table.hit_id != table.hit_id.iloc[0]]


REFUSED = {
    "hit without cells": ("cells", drop_cells_of_first, "has no cells"),
    "cell of no hit": ("cells", lambda t: t.assign(hit_id=t.hit_id.replace(5, 99999)), "column hit_id is '99999'"),
    "hit twice": ("hits", lambda t: pd.concat([t, t.head(1)]), "expected each id once"),
    "hit 0": ("hits", lambda t: t.assign(hit_id=t.hit_id - 1), "column hit_id is '0'"),
    "module": ("hits", lambda t: t.assign(module_id=t.module_id + 10000), "is it the right detector"),
    "channels": ("cells", lambda t: t.assign(ch0=335 - t.ch0), "counted in another way"),
    "value": ("cells", lambda t: t.assign(value=-1.0), "column value is '-1.0'"),
    "column": ("cells", lambda t: t.drop(columns="ch1"), "ch1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_broken_events_are_refused(folder, detector, case):
    kind, change, message = REFUSED[case]
    changed(folder, kind, change)
    with pytest.raises(InputDataError, match=message):
        read_trackml_cells(path_of(folder, "hits"), detector)


def test_truth_that_does_not_fit_is_refused(folder):
    hits = read_trackml_hits(path_of(folder, "hits"))
    changed(folder, "truth", lambda table: table.iloc[1:])
    with pytest.raises(InputDataError, match="hit 1 is missing"):
        read_trackml_truth(path_of(folder, "hits"), hits)
    path_of(folder, "truth").unlink()
    with pytest.raises(InputDataError, match="no such file"):
        read_trackml_truth(path_of(folder, "hits"), hits)


def test_hits_far_from_their_module_are_refused(folder, detector):
    hits = read_trackml_hits(path_of(folder, "hits"))
    with pytest.raises(InputDataError, match="off its module"):
        trackml_measurements(hits._replace(position=hits.position * 1.1), detector, "hits")


def random_event(seed):
    """Particles with random numbers of hits, and tracks of random hits of theirs and of others."""
    rng = np.random.default_rng(seed)
    particles = particles_at(rng.uniform(0.01, 5, 30), rng.uniform(-2, 2, 30), rng.normal(0, 30, 30))
    particle = rng.permutation(np.repeat(np.arange(-1, 30), rng.integers(0, 25, 31)))
    tracks = [
        rng.permutation(
            np.concatenate(
                [
                    rng.permutation(np.flatnonzero(particle == p))[: rng.integers(0, 25)],
                    rng.integers(0, len(particle), rng.integers(0, 6)),
                ]
            )
        )
        for p in rng.integers(0, 30, 25)
    ]
    return particles, particle, [list(dict.fromkeys(t.tolist())) for t in tracks], rng.normal(0, 500, len(particle))


@pytest.mark.parametrize("seed", range(5))
def test_score_is_that_of_the_rules(seed):
    particles, particle, tracks, z = random_event(seed)
    event = event_of(particles, particle)
    event.hits.position = np.stack([0 * z, 0 * z, z], axis=1).astype(np.float32)
    weight = hit_weights(event.hits, particles, particle)
    wanted = reference.weights(particle.tolist(), event.hits.position[:, 2], particles.pt, particles.vertex[:, 2])
    assert weight == pytest.approx(np.array(wanted), abs=1e-12)
    links = links_of([[p] if p >= 0 else [] for p in particle.tolist()])
    links = links._replace(hits=np.stack([np.arange(len(particle))] * 2, axis=1))
    on_track = np.zeros(len(particle), int)
    for k in sorted(range(len(tracks)), key=lambda k: (len(tracks[k]), -k)):  # the longest, then the first, is last
        on_track[tracks[k]] = k + 1
    wanted = reference.score(particle.tolist(), on_track.tolist(), wanted)
    assert event_score(event, tracks_of(tracks), links) == pytest.approx(wanted)
    assert 0 < wanted < 1


def test_score_without_weights_is_unknown():
    particles = particles_at([1.0], [0.0], [0.0])
    event = event_of(particles, np.zeros(3, np.int64))
    assert np.isnan(event_score(event, tracks_of([[0, 1, 2]]), links_of([[0], [0], [0]])))


def test_particle_files_are_events(folder):
    config = ParticleFilesConfig((str(path_of(folder, "particles")),))
    assert list(file_numbers(config)) == [NUMBER]
    made = FileParticles(config).generate(1, NUMBER)
    assert len(made.particles) == 20
    assert set(np.abs(made.particles.particle_type)) == {211}
    assert np.array_equal(np.sign(made.particles.particle_type), made.particles.charge)
    with pytest.raises(ConfigError, match="consecutive event numbers"):
        file_numbers(ParticleFilesConfig(("event1-particles.csv", "event3-particles.csv")))
    with pytest.raises(ConfigError, match="one file at least"):
        ParticleFilesConfig(())
    with pytest.raises(ConfigError, match="TrackML has one column"):
        SampleConfig(ParticleGunConfig(), format="trackml", particle_id_fields=True)
