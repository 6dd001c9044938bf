"""Events of Pythia's collisions: what is kept, ids, decays, independence; samples on disk, their manifest and cache."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.unit.damages import DAMAGES
from traccc_py.cli.app import app
from traccc_py.data.manifest import check_folder, read_manifest
from traccc_py.data.particle_ids import pack_particle_id
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.geometry import build_detector
from traccc_py.simulation import samples
from traccc_py.simulation.events import read_event, simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.generators.pileup import CollisionConfig, CollisionGenerator
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.samples import SampleConfig, load_sample, make_sample
from traccc_py.simulation.transport.secondaries import transport_all
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry
from traccc_py.units import T

# The hard process is cheap to set up; pile-up of the same process needs no second set-up.
TTBAR = CollisionConfig(process="ttbar", pileup=1.0, pileup_process="ttbar")
GUN = ParticleGunConfig(n_particles=5, momentum=(1.0, 5.0), eta=(0.0, 0.1), phi=(-0.1, 0.1))


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def generator():
    pytest.importorskip("pythia8mc", reason="Pythia is not installed: pip install traccc-py[simulation]")
    return CollisionGenerator(TTBAR, 2.0 * T)


@pytest.fixture(scope="module")
def generated(generator):
    return [generator.generate(7, k) for k in range(8)]


def test_particle_ids_are_acts_barcodes():
    one = np.array([1])
    packed = int(pack_particle_id(one * 3, one * 2, one * 500, one * 1, one * 4)[0])
    assert packed == (3 << 52) + (2 << 40) + (500 << 24) + (1 << 16) + 4


def test_particles_are_within_the_cuts_and_named_once(generated):
    for particles, _ in generated:
        pt = np.hypot(*particles.momentum[:, :2].T)
        assert pt.min() >= 0.1
        assert np.abs(np.arcsinh(particles.momentum[:, 2] / pt)).max() <= 4
        assert len(np.unique(particles.particle_id)) == len(particles)
        assert ((particles.charge != 0) | (particles.particle_type == 22)).all()


def test_collisions_have_a_vertex_each_and_are_numbered_from_the_hard_one(generated):
    n_collisions = []
    for particles, _ in generated:
        number = (particles.particle_id >> np.uint64(52)).astype(int)
        assert number[0] == 1
        n_collisions.append(len(np.unique(number)))
        is_direct = ((particles.particle_id >> np.uint64(40)) & np.uint64(0xFFF)) == 0
        for k in np.unique(number):
            vertices = particles.vertex[is_direct & (number == k)]
            assert np.ptp(vertices, axis=0).max() < 1e-5
    assert 1 < np.mean(n_collisions) < 4
    z = [p.vertex[0, 2] for p, _ in generated]
    assert 15 < np.std(z) < 120


def test_decay_products_start_away_from_the_vertex_and_parents_end(generated):
    decays = [p.process == 1 for p, _ in generated]
    assert sum(d.sum() for d in decays) > 20
    limits = np.concatenate([limit for _, limit in generated])
    assert np.isfinite(limits).any()
    assert limits.min() > 5
    codes = np.concatenate([p.particle_type for p, _ in generated])
    assert set(np.abs(codes[np.isfinite(limits)])) <= {211, 321, 3112, 3222, 3312, 3334, 411, 431, 521, 541, 15, 13}


def test_daughters_start_at_the_end_of_the_bent_path(generator):
    """A kaon's helix, followed for its path limit by hand, ends where its muon starts."""
    collision = straight = None
    bent, plain = (g._generator("ttbar") for g in (generator, CollisionGenerator(TTBAR, 0.0)))
    for seed in range(1, 400):
        collision, straight = bent.collide(seed), plain.collide(seed)
        rows = np.flatnonzero(np.isfinite(collision.path_limit) & (collision.path_limit > 300))
        rows = [r for r in rows if (collision.mother == collision.number[r]).any() and collision.mother[r] == 0]
        if rows:
            break
    mother = rows[0]
    daughter = np.flatnonzero(collision.mother == collision.number[mother])[0]
    p, s = collision.momentum[mother], collision.path_limit[mother]
    kappa = -collision.charge[mother] * 2.0 * T / np.linalg.norm(p)
    steps = np.linspace(0, s, 200_001)
    middle = 0.5 * (steps[1:] + steps[:-1])
    u = p / np.linalg.norm(p)
    x = np.sum(u[0] * np.cos(kappa * middle) - u[1] * np.sin(kappa * middle)) * (steps[1] - steps[0])
    y = np.sum(u[0] * np.sin(kappa * middle) + u[1] * np.cos(kappa * middle)) * (steps[1] - steps[0])
    end = collision.vertex[mother] + [x, y, u[2] * s]
    assert collision.vertex[daughter] == pytest.approx(end, abs=1e-3)
    # the angle between mother and daughter is that of the straight decay
    q, q0 = collision.momentum[daughter], straight.momentum[daughter]
    at_end = np.array([p[0] * np.cos(kappa * s) - p[1] * np.sin(kappa * s), 0, p[2]])
    at_end[1] = p[0] * np.sin(kappa * s) + p[1] * np.cos(kappa * s)
    assert q @ at_end == pytest.approx(q0 @ p, rel=1e-6)


def test_an_event_does_not_depend_on_those_before_it(generator, generated):
    again = generator.generate(7, 3)
    np.testing.assert_array_equal(again.particles.momentum, generated[3].particles.momentum)
    np.testing.assert_array_equal(again.particles.particle_id, generated[3].particles.particle_id)
    assert not np.array_equal(generated[2].particles.momentum[:3], generated[3].particles.momentum[:3])


def test_impossible_collisions_are_refused():
    with pytest.raises(ConfigError, match='process is "higgs"'):
        CollisionConfig(process="higgs")
    with pytest.raises(ConfigError, match="pileup is -1"):
        CollisionConfig(pileup=-1)


def test_a_guns_hits_are_those_of_the_transport_alone(odd):
    particles = generate_particles(ParticleGunConfig(n_particles=40, particle="pion"), 3)
    key, geometry = event_key(3, 0), truth_geometry(odd)
    _, whole = transport_all(odd, particles, key, TransportConfig(), geometry=geometry)
    alone = transport(odd, particles, key, TransportConfig(), geometry=geometry)
    np.testing.assert_array_equal(whole.hits.position, alone.hits.position)
    np.testing.assert_array_equal(whole.hits.momentum, alone.hits.momentum)


def test_collisions_make_cells_of_several_hits_and_files_that_read_back(odd, generator, tmp_path):
    event = simulate_event(odd, generator, 7, 3)
    assert (np.diff(event.digitization.hit_offsets) > 1).any()
    config = SampleConfig.of_collisions(TTBAR, 7, compress=True)
    sizes = list(make_sample(tmp_path, odd, config, 1, first_event=3))
    read = read_event(tmp_path, odd, 3)
    assert sizes[0]["cells"] == len(read.cells) == len(event.cells)
    np.testing.assert_array_equal(read.simulated.particle_index, event.simulated.particle_index)
    np.testing.assert_array_equal(read.simulated.module_index, event.simulated.module_index)
    np.testing.assert_allclose(read.simulated.local_position, event.simulated.local_position, atol=2e-3)
    first = event.digitization.hit_offsets[:-1]
    np.testing.assert_array_equal(read.digitization.hit_indices, event.digitization.hit_indices[first])


def test_files_do_not_depend_on_workers(tmp_path):
    telescope = build_detector("telescope")
    config = SampleConfig(GUN, seed=5)
    list(make_sample(tmp_path / "one", telescope, config, 3))
    list(make_sample(tmp_path / "two", telescope, config, 3, workers=2))
    assert read_manifest(tmp_path / "one") == read_manifest(tmp_path / "two")
    assert check_folder(tmp_path / "two") == []


def test_manifest_tells_what_changed(tmp_path):
    telescope = build_detector("telescope")
    list(make_sample(tmp_path, telescope, SampleConfig(GUN, seed=5), 2))
    recipe = read_manifest(tmp_path).recipe
    assert recipe["seed"] == 5
    assert recipe["source"]["kind"] == "gun"
    assert recipe["detector"]["fingerprint"] == telescope.fingerprint
    names = sorted(p.name for p in tmp_path.glob("event*"))
    (tmp_path / names[0]).write_text("changed")
    (tmp_path / names[1]).unlink()
    (tmp_path / "event000000009-cells.csv").write_text("")
    problems = check_folder(tmp_path)
    assert len(problems) == 3
    assert "SHA-256" in problems[0]
    assert "missing" in problems[1]
    assert "not in the manifest" in problems[2]
    result = CliRunner().invoke(app, ["simulate", "--check", str(tmp_path)])
    assert result.exit_code == 2
    assert names[1] in result.stderr
    with pytest.raises(InputDataError, match=r"holds such a sample, but .*SHA-256 is"):
        list(make_sample(tmp_path, telescope, SampleConfig(GUN, seed=5), 2))
    with pytest.raises(InputDataError, match="1 file of other events, such as event000000009-cells"):
        list(make_sample(tmp_path, telescope, SampleConfig(GUN, seed=5), 2, overwrite=True))
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputDataError, match="not a manifest of format"):
        check_folder(tmp_path)


def state_of(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_a_folder_with_the_same_sample_is_left_as_it_is(tmp_path):
    telescope, config = build_detector("telescope"), SampleConfig(GUN, seed=5)
    sizes = list(make_sample(tmp_path, telescope, config, 2))
    before = state_of(tmp_path)
    assert list(make_sample(tmp_path, telescope, config, 2)) == sizes
    assert state_of(tmp_path) == before
    list(make_sample(tmp_path, telescope, config, 2, overwrite=True))
    assert {name: content for name, (_, content) in state_of(tmp_path).items()} == {
        name: content for name, (_, content) in before.items()
    }


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seed": 6}, "made in another way: seed 5, now 6; use another folder, or overwrite to"),
        ({"source": replace(GUN, momentum=(7.0, 7.5))}, r"source.momentum \[.*\], now \[7.0, 7.5\]"),
        ({"smearing": False, "noise": (0.0, 1e-3), "seed": 1, "compress": True}, "; and 1 more"),
        ({"n_events": 3}, "holds a sample of 2 events from number 0, not of 3 events from number 0"),
        ({"first_event": 1}, "not of 2 events from number 1"),
    ],
)
def test_a_folder_with_another_sample_is_replaced_only_if_asked_to(tmp_path, changes, problem):
    telescope = build_detector("telescope")
    list(make_sample(tmp_path / "a", telescope, SampleConfig(GUN, seed=5), 2))
    before = state_of(tmp_path / "a")
    options = {"n_events": 2} | {k: v for k, v in changes.items() if k in ("n_events", "first_event")}
    config = replace(SampleConfig(GUN, seed=5), **{k: v for k, v in changes.items() if k not in options})
    with pytest.raises(InputDataError, match=problem):
        list(make_sample(tmp_path / "a", telescope, config, **options))
    assert state_of(tmp_path / "a") == before
    list(make_sample(tmp_path / "a", telescope, config, **options, overwrite=True))
    list(make_sample(tmp_path / "b", telescope, config, **options))
    assert check_folder(tmp_path / "a") == []
    assert read_manifest(tmp_path / "a") == read_manifest(tmp_path / "b")


def test_events_of_another_version_of_the_simulation_are_refused(tmp_path, monkeypatch):
    telescope, config = build_detector("telescope"), SampleConfig(GUN, seed=5)
    list(make_sample(tmp_path, telescope, config, 1))
    version = read_manifest(tmp_path).recipe["versions"]["events"]
    assert version == samples.EVENTS_VERSION >= 2
    monkeypatch.setattr(samples, "EVENTS_VERSION", version + 1)
    with pytest.raises(InputDataError, match=rf"versions.events {version}, now {version + 1}"):
        list(make_sample(tmp_path, telescope, config, 1))


def test_files_without_a_manifest_are_replaced_only_if_asked_to(tmp_path):
    telescope, config = build_detector("telescope"), SampleConfig(GUN, seed=5)
    (tmp_path / "event000000001-cells.csv").write_text("mine")
    with pytest.raises(InputDataError, match="holds 1 file of events without a manifest, such as event000000001-cells"):
        list(make_sample(tmp_path, telescope, config, 1))
    with pytest.raises(InputDataError, match="1 file of other events"):
        list(make_sample(tmp_path, telescope, config, 1, overwrite=True))
    assert len(list(make_sample(tmp_path, telescope, config, 2, overwrite=True))) == 2


def test_samples_are_made_once(tmp_path, monkeypatch, odd):
    pytest.importorskip("pythia8mc", reason="Pythia is not installed: pip install traccc-py[simulation]")
    monkeypatch.setenv("TRACCC_PY_DATA_DIR", str(tmp_path))
    first = load_sample("zmumu", 0, 2, seed=3, detector=odd)
    cells = next(iter(first)).cells
    files = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    monkeypatch.setattr(samples, "make_sample", None)
    again = load_sample("zmumu", 0, 2, seed=3, detector=odd)
    assert {path: path.stat().st_mtime_ns for path in again.folder.iterdir()} == files
    assert len(again) == 2
    np.testing.assert_array_equal(next(iter(again)).cells.activation, cells.activation)
    assert len(list(tmp_path.iterdir())) == 1
    muons = [np.count_nonzero((np.abs(e.particles.particle_type) == 13) & (e.particles.process == 0)) for e in again]
    assert min(muons) >= 1


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a sample of one event, whose events are those of a gun."""
    telescope, made = build_detector("telescope"), []
    of_gun = SampleConfig(GUN, seed=5, compress=True)
    real = samples.make_sample
    monkeypatch.setenv("TRACCC_PY_DATA_DIR", str(tmp_path / "samples"))
    monkeypatch.setattr(samples, "_recipe", lambda detector, config: {"kind": "gun"})
    monkeypatch.setattr(
        samples,
        "make_sample",
        lambda folder, detector, config, n, **k: made.append(folder) or real(folder, detector, of_gun, n, **k),
    )

    def load():
        sample = load_sample("zmumu", 0, 1, detector=telescope)
        return sample, next(iter(sample)).cells, len(made)

    return load


@pytest.mark.parametrize("name", ["manifest.json", "event000000000-cells.csv.gz", "event000000000-hits.csv.gz"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_sample_is_made_anew(load, damage, name):
    sample, cells, _ = load()
    DAMAGES[damage](sample.folder / name)
    for _ in range(2):
        again, cells_again, n_made = load()
        assert again.folder == sample.folder
        assert n_made == 2
        np.testing.assert_array_equal(cells_again.activation, cells.activation)
    assert len(list(sample.folder.parent.iterdir())) == 1


def test_file_in_place_of_a_sample_is_replaced(load):
    sample, *_ = load()
    shutil.rmtree(sample.folder)
    sample.folder.write_text("no folder")
    assert load()[2] == 2
    assert sample.folder.is_dir()


def test_samples_that_cannot_be_kept_are_made_in_a_temporary_folder(load, tmp_path, caplog):
    (tmp_path / "samples").touch()
    sample, cells, _ = load()
    assert len(cells) > 0
    assert tmp_path not in sample.folder.parents
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'samples'}: can't be written (")


def test_a_gun_shoots_into_pileup(odd, generator):
    gun = ParticleGunConfig(n_particles=20, momentum=(5.0, 5.0))
    both = CollisionGenerator(CollisionConfig("gun", 1.0, "ttbar", gun=gun), 2.0 * T)
    particles, limits = both.generate(7, 3)
    shot = generate_particles(gun, 7, 3)
    np.testing.assert_array_equal(particles.momentum[:20], shot.momentum)
    assert ((particles.particle_id[:20] >> np.uint64(52)) == 1).all()
    assert np.isinf(limits[:20]).all()
    # the pile-up is that of the same event with another hard collision
    others = generator.generate(7, 3).particles
    pileup = [p.momentum[(p.particle_id >> np.uint64(52)) > 1] for p in (particles, others)]
    np.testing.assert_array_equal(*pileup)
    assert len(pileup[0])
    for process, shots in (("gun", None), ("ttbar", gun)):
        with pytest.raises(ConfigError, match="both or neither"):
            CollisionConfig(process, gun=shots)


def test_pileup_changes_without_another_set_up(generator, generated):
    alone = generator.with_pileup(0.0)
    particles, _ = alone.generate(7, 3)
    assert ((particles.particle_id >> np.uint64(52)) == 1).all()
    first = generated[3].particles
    hard = (first.particle_id >> np.uint64(52)) == 1
    np.testing.assert_array_equal(particles.momentum, first.momentum[hard])
    assert generator.config.pileup == 1.0


def test_jets_have_the_pt_asked_for():
    pytest.importorskip("pythia8mc", reason="Pythia is not installed: pip install traccc-py[simulation]")
    jets = CollisionGenerator(CollisionConfig("jets", pt_hat_min=2000.0), 2.0 * T)
    particles, _ = jets.generate(1, 0)
    pt = np.hypot(*particles.momentum[:, :2].T)
    # both jets of 2 TeV or more: charged particles and photons carry most of it, dense along two directions
    assert pt.sum() > 2000
    phi = np.arctan2(*particles.momentum[:, 1::-1].T)[pt > 10]
    weight = pt[pt > 10]
    doubled = np.hypot(np.sum(weight * np.cos(2 * phi)), np.sum(weight * np.sin(2 * phi))) / weight.sum()
    assert doubled > 0.5  # 0 for particles in all directions
    assert pt.max() > 100


def test_interactions_can_be_switched_off_one_by_one():
    config = TransportConfig.of_collisions().without("nuclear_interactions", "conversions")
    assert (config.nuclear_interactions, config.conversions, config.bremsstrahlung) == (False, False, True)
    assert config.having("conversions").conversions
    with pytest.raises(ConfigError, match="expected one of scattering"):
        config.without("tides")
    for option in ("--with", "--without"):
        result = CliRunner().invoke(app, ["simulate", "--output", "x", option, "tides"])
        assert result.exit_code == 2
        assert f"{option} 'tides': expected one of" in result.stderr
