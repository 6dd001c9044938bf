"""Acts's chain beside ours: the detector in Acts, and one small event. Off unless TRACCC_PY_ACTS is 1."""

import os

import numpy as np
import pytest

from studies import acts_chain, acts_comparison, acts_geometry
from traccc_py.edm.parameters import unpack_covariance
from traccc_py.errors import ConfigError

needs_acts = [
    pytest.mark.acts,
    pytest.mark.skipif(os.environ.get("TRACCC_PY_ACTS") != "1", reason="TRACCC_PY_ACTS is not 1"),
]


def test_covariances_are_packed_and_unpacked_alike():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(4, 5, 5))
    matrices = half + half.transpose(0, 2, 1)
    assert np.array_equal(unpack_covariance(acts_comparison.packed(matrices)), matrices)


def test_readout_is_written_as_acts_reads_it():
    detector = acts_geometry.without_passive()
    found = acts_chain.digitization_json(detector.digitization, detector.variance_table)
    assert [entry["volume"] for entry in found["entries"]] == [16, 17, 18, 23, 24, 25, 28, 29, 30]
    strips = found["entries"][-2]["value"]["geometric"]
    assert strips["digital"]
    assert [axis["bins"] for axis in strips["segmentation"]["binningdata"]] == [960, 1]
    assert [v["index"] for v in strips["variances"]] == [0]
    assert not any(layer["is_sensitive"] == 0 for layer in detector.layers)


def test_bins_in_which_acts_finds_more_are_told():
    bins = {"pT > 0.5": {"abs(eta)": [(200, 190), (99, 99), (100, 90)]}}
    ours = {"pT > 0.5": {"abs(eta)": [(200, 189), (99, 50), (100, 90)]}}
    found = acts_comparison.behind({"bins": {"Acts": bins, "traccc_py": ours}})
    assert found == ["pT > 0.5, abs(eta) 0 to 0.5: 189 against 190 of 200"]


def test_without_acts_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "47.0.0")
    monkeypatch.setattr("traccc_py.extras.optional_module", lambda *_: None)
    with pytest.raises(ConfigError, match=r"pyacts is 47.0.0; expected 48\.\*"):
        acts_geometry.import_acts()


class TestWithActs:
    pytestmark = needs_acts

    def test_sensors_are_those_of_acts(self, tmp_path):
        detector = acts_geometry.without_passive()
        made = acts_geometry.build(detector)
        assert len(made.ids) == len(set(made.ids.values())) == 18_824
        acts_geometry.add_material(made, detector, tmp_path / "material.json")
        surfaces = made.geometry.geoIdSurfaceMap()
        assert sum(s.surfaceMaterial is not None for s in surfaces.values()) >= 18_824

    def test_both_find_the_same_muons(self, tmp_path):
        found = acts_comparison.run_sample("muons", 60, 1, 1, tmp_path)
        for row in found["rows"].values():
            assert row["efficiency pT > 0.5 %"] > 95
            assert row["fakes %"] < 2
            assert 5 < row["d0 [um]"] < 60
        assert acts_comparison.behind(found) == []
        assert set(found["milliseconds"]["Acts"]) == {"spacepoints", "seeding", "parameters", "finding", "resolution"}
        assert "Acts 48" in acts_comparison.table({"muons": found})
