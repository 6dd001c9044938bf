"""Material constants and sums of slabs."""

import math

import pytest

from traccc_py.geometry.material.material import (
    ALUMINIUM,
    BERYLLIUM,
    KAPTON,
    SILICON,
    SILICON_TML,
    TITANIUM,
    VACUUM_SLAB,
    combine_slabs,
)

ELECTRON = 0.51099895e-3  # GeV
# Minimum ionisation [MeV cm^2/g] and plasma energy [eV] from PDG's tables (2024).
PDG = {
    SILICON: (1.664, 31.05),
    ALUMINIUM: (1.615, 32.86),
    TITANIUM: (1.477, 41.62),
    BERYLLIUM: (1.595, 26.10),
    KAPTON: (1.820, 24.59),
}


def mean_loss(slab, beta_gamma=3.0, mass=0.10566):
    """Bethe's mean loss [GeV] without density effect."""
    gamma = math.hypot(1, beta_gamma)
    beta2 = (beta_gamma / gamma) ** 2
    t_max = 2 * ELECTRON * beta_gamma**2 / (1 + 2 * gamma * ELECTRON / mass + (ELECTRON / mass) ** 2)
    log = math.log(2 * ELECTRON * beta_gamma**2 * t_max / slab.excitation_energy**2)
    return slab.bethe_xi / beta2 * (log - 2 * beta2)


@pytest.mark.parametrize("material", list(PDG), ids=lambda m: m.name)
def test_materials_agree_with_pdg(material):
    minimum, plasma = PDG[material]
    slab = material.slab(1.0)
    assert slab.plasma_energy * 1e9 == pytest.approx(plasma, rel=5e-3)
    per_density = mean_loss(slab) * 1e3 / (material.density * 0.1)  # GeV / mm -> MeV cm^2 / g
    assert per_density == pytest.approx(minimum, rel=0.05)  # the density effect takes 1 to 4 % there


def test_slab_of_the_toy_is_its_thickness_in_radiation_lengths():
    assert SILICON_TML.slab(1.5).thickness_in_x0 == pytest.approx(1.5 / 95.7)


def test_combined_slabs_lose_as_much_as_one_after_the_other():
    slabs = [SILICON.slab(0.3), TITANIUM.slab(0.1), KAPTON.slab(0.25), VACUUM_SLAB]
    both = combine_slabs(slabs)
    assert both.thickness_in_x0 == pytest.approx(sum(s.thickness_in_x0 for s in slabs))
    assert mean_loss(both) == pytest.approx(sum(mean_loss(s) for s in slabs if s.bethe_xi > 0), rel=1e-12)
    assert combine_slabs([SILICON.slab(0.3)] * 2) == pytest.approx(SILICON.slab(0.6))


def test_nothing_combines_to_vacuum():
    assert combine_slabs([]) == combine_slabs([VACUUM_SLAB, SILICON.slab(0.0)]) == VACUUM_SLAB


def test_scaled_slab_is_that_of_the_scaled_thickness():
    assert SILICON.slab(0.3).scaled(2.5) == pytest.approx(SILICON.slab(0.75))
