"""The chain on detectors from detray's files: maps, surfaces without readout, traccc's own events."""

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.unit.detray_documents import PASSIVE, RECTANGLE, axis, grid, maps, slab, surface
from traccc_py import ChainConfig, TrackingChain, read_cells
from traccc_py.errors import GeometryError
from traccc_py.geometry import build_detector, read_detray, write_detray
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

GUN = ParticleGunConfig(n_particles=30, momentum=(0.7, 5.0), eta=(-1.0, 1.0), vertex_sigma=(0.01, 0.01, 30.0))
TRACK_COLUMNS = ("params", "chi2", "n_measurements", "n_holes")


@cache
def event():
    return simulate_event(build_detector("toy", n_endcap_layers=0), GUN, 3).cells


def run(detector, cells=None):
    """Tracks with three measurements or more: the toy detector has four layers."""
    finding = replace(ChainConfig().finding, min_measurements=3)
    chain = TrackingChain(detector, replace(ChainConfig(), finding=finding), device="cpu", threads=2)
    return chain.run(event() if cells is None else cells).tracks


def files_of_barrel(folder):
    return write_detray(build_detector("toy", n_endcap_layers=0), folder)


def as_maps(material, folder, names):
    """Material maps of 3 x 2 equal bins in place of the slabs of some surfaces (volume, index)."""
    content, by_volume = json.loads(material.read_text()), {}
    document = json.loads((folder / "toy_geometry.json").read_text())["data"]["volumes"]
    for volume in content["data"]["volumes"]:
        kept = []
        for entry in volume["surface_material"]:
            mask = document[volume["volume_link"]]["surfaces"][entry["surface_idx"]]["masks"][0]
            is_pipe = mask["shape"] != RECTANGLE
            if ("pipe" if is_pipe else "sensors") not in names:
                kept.append(entry)
                continue
            axes = (
                [axis(0, 3, -np.pi, np.pi, 2), axis(1, 2, -500, 500)]
                if is_pipe
                else [axis(0, 3, -8.4, 8.4), axis(1, 2, -36, 36)]
            )
            made = grid(entry["surface_idx"], 3 if is_pipe else 1, axes, np.ones((3, 2)))
            for b in made["bins"]:
                b["content"] = [copy.deepcopy(entry)]
            by_volume.setdefault(volume["volume_link"], []).append(made)
        volume["surface_material"] = [e | {"index_in_coll": k} for k, e in enumerate(kept)]
    document = maps(by_volume)
    for d, name in ((content, "slabs"), (document, "maps")):
        d["header"]["common"]["detector"] = "toy"
        (folder / f"{name}.json").write_text(json.dumps(d))
    return folder / "slabs.json", folder / "maps.json"


def test_a_map_of_equal_bins_gives_the_bits_of_a_slab(tmp_path):
    files = files_of_barrel(tmp_path)
    homogeneous = run(read_detray(files["geometry"], files["homogeneous_material"], digitization=files["digitization"]))
    assert len(homogeneous) > 25
    mapped = as_maps(files["homogeneous_material"], tmp_path, {"pipe", "sensors"})
    detector = read_detray(files["geometry"], mapped, digitization=files["digitization"])
    assert len(detector.material_maps) == 2492 + 1
    found = run(detector)
    for name in TRACK_COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(homogeneous, name), err_msg=name)
    thin = run(read_detray(files["geometry"], digitization=files["digitization"]))
    assert not np.array_equal(thin.params, homogeneous.params)  # material matters


def test_surfaces_without_readout_are_no_holes(tmp_path):
    """A thin plate in front of each sensor of the second layer: the same measurements, no holes, a little more chi2."""
    files = files_of_barrel(tmp_path)
    content = json.loads(files["geometry"].read_text())
    material = json.loads(files["homogeneous_material"].read_text())
    volume = next(v for v in content["data"]["volumes"] if sum(s["type"] == 1 for s in v["surfaces"]) == 448)
    n_before = len(volume["surfaces"])
    for s in [s for s in volume["surfaces"] if s["type"] == 1]:
        placed, mask = s["transform"], s["masks"][0]
        towards = np.array(placed["translation"]) - 0.2 * np.array(placed["rotation"][6:])
        plate = surface(PASSIVE, RECTANGLE, mask["boundaries"], towards, placed["rotation"], link=volume["index"])
        volume["surfaces"].append(plate | {"index_in_coll": len(volume["surfaces"])})
    n_plates = len(volume["surfaces"]) - n_before
    content["header"]["surface_count"] += n_plates
    of_volume = next(v for v in material["data"]["volumes"] if v["volume_link"] == volume["index"])["surface_material"]
    of_volume += [slab(n_before + k, 0.05) | {"index_in_coll": len(of_volume) + k} for k in range(n_plates)]
    for d, name in ((content, "geometry"), (material, "material")):
        (tmp_path / f"plates_{name}.json").write_text(json.dumps(d))
    plates = tmp_path / "plates_geometry.json", tmp_path / "plates_material.json"
    detector = read_detray(*plates, digitization=files["digitization"])
    assert np.count_nonzero(~detector.surfaces.is_sensitive) == 448
    plain = run(read_detray(files["geometry"], files["homogeneous_material"], digitization=files["digitization"]))
    found = run(detector)
    np.testing.assert_array_equal(found.n_measurements, plain.n_measurements)
    np.testing.assert_array_equal(found.n_holes, plain.n_holes)
    assert not np.array_equal(found.params, plain.params)
    # none of the hits of a simulation lies on a plate
    made = simulate_event(detector, GUN, 3)
    assert detector.surfaces.is_sensitive[made.simulated.module_index].all()
    assert len(made.simulated) > 100


@pytest.mark.parametrize("ids", ["source", "detray"])
def test_events_of_traccc_in_the_detector_of_its_files(reference_data, ids):
    """Ten muons of 10 GeV, cells with Acts ids; or the same cells with detray's identifiers."""
    folder = reference_data / "traccc_toy"
    detector = read_detray(
        folder / "geometry" / "actsid_toy_detector_geometry.json.gz",
        folder / "geometry" / "toy_detector_homogeneous_material.json.gz",
        digitization=folder / "geometry" / "actsid_toy_digi_config.json.gz",
    )
    cells = read_cells(folder / "toy_mu10_10GeV" / "event000000000-cells.csv.gz")
    if ids == "detray":
        cells.geometry_id[:] = detector.detray_ids[detector.module_index(cells.geometry_id)]
    tracks = run(detector, cells)
    assert len(tracks) == 10
    # four 50 um pixels within 140 mm in 2 T: sigma(1/pT) is 0.012 / GeV (PDG 2024 eq. 35.58)
    momentum = 1 / np.abs(tracks.params[:, 4])
    np.testing.assert_allclose(momentum, 10.0, rtol=3 * 0.012 * 10)
    assert np.median(momentum) == pytest.approx(10, rel=0.05)


def misaligned(folder, angle):
    """A telescope whose planes are turned by Gaussian angles about their axes."""
    path = write_detray(build_detector("telescope"), folder)["geometry"]
    document, random = json.loads(path.read_text()), np.random.default_rng(3)
    for volume in document["data"]["volumes"]:
        for s in volume["surfaces"]:
            axes = np.array(s["transform"]["rotation"]).reshape(3, 3)
            for k, turn in enumerate(random.normal(0, angle, 3)):
                a, b = (k + 1) % 3, (k + 2) % 3
                axes[a], axes[b] = (
                    np.cos(turn) * axes[a] + np.sin(turn) * axes[b],
                    np.cos(turn) * axes[b] - np.sin(turn) * axes[a],
                )
            s["transform"]["rotation"] = axes.ravel().tolist()
    path.write_text(json.dumps(document))
    return read_detray(path)


@pytest.mark.parametrize("angle", [1e-4, 1e-3, 0.01])
def test_planes_of_a_telescope_may_be_misaligned(tmp_path, angle):
    detector = misaligned(tmp_path, angle)
    gun = ParticleGunConfig(
        n_particles=100, momentum=(1.0, 5.0), eta=(-0.1, 0.1), phi=(-0.1, 0.1), vertex_sigma=(0.01, 0.01, 1.0)
    )
    tracks = TrackingChain(detector, device="cpu", threads=1).run(simulate_event(detector, gun, 3).cells).tracks
    assert len(tracks) >= 98
    assert np.mean(tracks.n_measurements >= 8) > 0.97
    assert tracks.pval.mean() > 0.6  # 0.78 of planes that are aligned: errors of one pixel are rather too large


def test_planes_that_cross_each_other_are_not_a_telescope(tmp_path):
    with pytest.raises(GeometryError, match="no line from the beam line crosses 3 layers"):
        TrackingChain(misaligned(tmp_path, 0.04), device="cpu", threads=1)
