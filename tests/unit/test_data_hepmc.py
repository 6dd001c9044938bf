"""HepMC3 of generated particles, read back by the library."""

import numpy as np
import pytest

from traccc_py.data.hepmc_output import HepmcFiles
from traccc_py.data.particle_ids import pack_particle_id

pyhepmc = pytest.importorskip("pyhepmc", reason="pyhepmc is not installed: pip install traccc-py[hepmc]")


def particles():
    """Return two collisions: the first with a decay (of two particles) and a particle that the detector has made."""
    primary = np.array([1, 1, 1, 1, 1, 2, 1])
    process = np.array([0, 0, 0, 0, 0, 0, 4])
    ids = pack_particle_id(primary, 0 * primary, np.arange(1, 8), (process > 0).astype(int), 0 * primary)
    vertices = np.array([[0, 0, 5]] * 3 + [[30, 40, 50]] * 2 + [[0, 0, -7], [100, 0, 0]], np.float32)
    momenta = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    return {
        "particle_id": ids,
        "particle_type": np.array([211, -211, 321, 2212, -211, 13, 11]),
        "process": process,
        **{name: vertices[:, k] for k, name in enumerate(("vx", "vy", "vz"))},
        "vt": np.array([0, 0, 0, 0.2, 0.2, 0, 1], np.float32),
        **{name: momenta[:, k] for k, name in enumerate(("px", "py", "pz"))},
        "m": np.array([0.13957, 0.13957, 0.49368, 0.93827, 0.13957, 0.10566, 0.000511], np.float32),
        "q": np.array([1, -1, 1, 1, -1, -1, -1]),
    }


def read(path):
    with pyhepmc.open(path) as file:
        return list(file)


def test_events_are_read_back_with_their_vertices(tmp_path):
    files, given = HepmcFiles(tmp_path, 2), particles()
    for number in (0, 1, 2):
        files.add(number, given)
    files.close()
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [f"particles/particles_{k:06d}-{k + 2:06d}.hepmc3" for k in (0, 2)]
    assert [e.event_number for e in read(tmp_path / names[0])] == [0, 1]
    (event,) = read(tmp_path / names[1])
    final = [p for p in event.particles if p.status == 1]
    assert sorted(p.pid for p in final) == sorted([211, -211, 321, 2212, -211, 13])  # not what the detector made
    (proton,) = [p for p in final if p.pid == 2212]
    place = proton.production_vertex.position
    np.testing.assert_allclose([place.x, place.y, place.z, place.t], [30, 40, 50, 0.2 * 299.792458], rtol=1e-6)
    row = int(np.flatnonzero(given["particle_type"] == 2212)[0])
    np.testing.assert_allclose(
        [proton.momentum.px, proton.momentum.pz], [given["px"][row], given["pz"][row]], rtol=1e-6
    )
    assert proton.generated_mass == pytest.approx(0.93827, rel=1e-5)
    (link,) = proton.production_vertex.particles_in
    assert (link.pid, link.status) == (90, 2)
    assert {p.pid for p in link.production_vertex.particles_out} == {211, -211, 321, 90}  # of its collision
    daughters = list(proton.production_vertex.particles_out)
    assert link.momentum.e == pytest.approx(sum(p.momentum.e for p in daughters))
    assert sum(p.status == 4 for p in event.particles) == 2  # collisions


def test_an_event_without_particles_is_an_event(tmp_path):
    files = HepmcFiles(tmp_path, 100)
    files.add(3, {name: values[:0] for name, values in particles().items()})
    files.close()
    text = (tmp_path / "particles" / "particles_000000-000100.hepmc3").read_text()
    assert "\nE 3 0 0\n" in text  # which pyhepmc, when it reads, takes for the end


def test_what_is_not_complete_is_removed(tmp_path):
    files = HepmcFiles(tmp_path, 100)
    files.add(0, particles())
    files.abandon()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
