"""Settings by name: they find what the default ones lose, and lose nothing else."""

import pytest

from traccc_py import TrackingChain, match
from traccc_py.config import PRESETS, read_config
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

ROUNDED = (0.0125, 0.0125, 20.0)
GUNS = {
    "prompt": ParticleGunConfig(40, momentum=(1.0, 10.0), eta=(-1.5, 1.5), vertex_sigma=ROUNDED),
    # Away from the beam line within 0.15 rad, as daughters of long-lived particles.
    "from 50 mm": ParticleGunConfig(
        40, momentum=(1.0, 10.0), eta=(-1.0, 1.0), phi=(-0.15, 0.15), vertex_mean=(50.0, 0.0, 0.0), vertex_sigma=ROUNDED
    ),
    "from 120 mm": ParticleGunConfig(
        40, momentum=(1.0, 10.0), eta=(-1.0, 1.0), phi=(-0.1, 0.1), vertex_mean=(120.0, 0.0, 0.0), vertex_sigma=ROUNDED
    ),
    "soft": ParticleGunConfig(40, particle="pion", momentum=(0.2, 0.3), eta=(-1.5, 1.5), vertex_sigma=ROUNDED),
}


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def efficiency(detector):
    """Return the efficiencies of each configuration for each gun [%]."""
    chains = {
        name: TrackingChain(detector, read_config(name), device="cpu", threads=2)
        for name in (None, "displaced", "low-pt")
    }
    found = {}
    for kind, gun in GUNS.items():
        event = simulate_event(detector, gun, seed=3, event=0)
        for name, chain in chains.items():
            counts = match(chain.run(event.cells), event).counts(min_measurements=5, max_eta=3.0, min_pt=0.1)
            assert counts.n_particles > 30
            found[name, kind] = 100 * counts.efficiency
    return found


@pytest.mark.parametrize(
    ("name", "kind", "at_least", "default_at_most"),
    [
        ("displaced", "prompt", 97, 100),
        ("displaced", "from 50 mm", 90, 60),
        ("displaced", "from 120 mm", 85, 30),
        ("low-pt", "prompt", 97, 100),
        ("low-pt", "soft", 85, 5),
    ],
)
def test_presets_find_what_they_are_for(efficiency, name, kind, at_least, default_at_most):
    assert efficiency[name, kind] >= at_least
    assert efficiency[None, kind] <= default_at_most


def test_every_preset_is_known_by_its_name():
    assert set(PRESETS) == {"displaced", "low-pt", "traccc"}
    for name in PRESETS:
        assert read_config(name) != read_config()
