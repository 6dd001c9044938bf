"""HepMC3 of generated particles, read back by the library."""

import numpy as np
import pytest

from traccc_py.data.hepmc_input import read_hepmc
from traccc_py.data.hepmc_output import HepmcFiles
from traccc_py.data.particle_ids import pack_particle_id
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.simulation.generators.particle_files import FileParticles, file_numbers
from traccc_py.simulation.settings import ParticleFilesConfig

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


def written(folder, numbers=(4, 5), more=()):
    """Write events; the second has other particles too, as (PDG number, momentum)."""
    files, given = HepmcFiles(folder, 100), particles()
    for number in numbers:
        files.add(number, given)
        for k, (code, momentum) in enumerate(more):
            given = {name: np.concatenate([values, values[:1]]) for name, values in given.items()}
            given["particle_type"][-1], given["pz"][-1] = code, momentum
            given["particle_id"][-1] += 100 + k
    files.close()
    return str(folder / "particles" / "particles_000000-000100.hepmc3")


def test_particles_of_hepmc_events_are_simulated(tmp_path):
    path = written(tmp_path, more=[(22, 1.0), (2112, 1.0), (-11, 2.0)])
    config = ParticleFilesConfig((path,))
    assert file_numbers(config) == range(4, 6)
    source = FileParticles(config)
    assert len(source.generate(1, 4).particles) == 6
    made, given = source.generate(1, 5).particles, particles()
    codes = made.particle_type.tolist()
    assert sorted(codes) == sorted([211, -211, 321, 2212, -211, 13, 22, -11])  # no neutron
    assert made.charge.tolist() == [{22: 0, 13: -1, -11: 1}.get(code, np.sign(code)) for code in codes]
    assert len(set(made.particle_id.tolist())) == 8
    k, row = codes.index(2212), given["particle_type"].tolist().index(2212)
    np.testing.assert_allclose(made.vertex[k], [30, 40, 50])
    assert made.time[k] == pytest.approx(0.2)
    assert made.mass[k] == pytest.approx(0.93827, rel=1e-5)
    np.testing.assert_allclose(made.momentum[k], [given[name][row] for name in ("px", "py", "pz")], rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no event; expected a file of HepMC3 events|can't be read"),
        (b"particle_id,vx\n1,2\n", "has no event|can't be read"),
        (None, "can't be read"),
    ],
)
def test_what_is_no_hepmc_file_is_refused(tmp_path, content, message):
    path = tmp_path / "particles.hepmc3"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputDataError, match=message) as caught:
        list(read_hepmc(path))
    assert str(path) in str(caught.value)


def test_events_behind_an_empty_one_are_not_lost_in_silence(tmp_path):
    files, given = HepmcFiles(tmp_path, 100), particles()
    for number, n in enumerate((7, 0, 7)):
        files.add(number, {name: values[:n] for name, values in given.items()})
    files.close()
    with pytest.raises(InputDataError, match="pyhepmc reads 1 of 3 events; expected none without vertices"):
        list(read_hepmc(tmp_path / "particles" / "particles_000000-000100.hepmc3"))


def test_momenta_that_are_no_numbers_are_refused(tmp_path):
    path = tmp_path / "particles.hepmc3"
    text = (tmp_path / written(tmp_path)).read_text()
    path.write_text(text.replace(f"{particles()['pz'][0].astype(float):.16e}", "nan"))
    with pytest.raises(InputDataError, match=r"event 4: particle \d has .*nan.*; expected finite numbers"):
        list(read_hepmc(path))


def test_events_of_several_files_have_to_follow_each_other(tmp_path):
    first, second = written(tmp_path / "a", (1, 2)), written(tmp_path / "b", (4,))
    with pytest.raises(ConfigError, match=r"of the events 1, 2, 4; expected consecutive event numbers"):
        file_numbers(ParticleFilesConfig((first, second)))
