"""Readout designs: built-in ones, Acts files, and the variance table that goes with them."""

import gzip
import json

import numpy as np
import pytest

from traccc_py.errors import GeometryError
from traccc_py.geometry import build_detector
from traccc_py.geometry.digitization import (
    Digitization,
    builtin_digitizations,
    get_digitization,
    read_conditions,
    read_digitization,
)
from traccc_py.geometry.records import MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.geometry.surfaces import encode_geometry_id
from traccc_py.geometry.variance_table import VarianceTable, load_variances, save_variances, variance_file


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def axis(bins, low, high, kind="equidistant"):
    return {"bins": bins, "min": low, "max": high, "type": kind, "option": "open", "value": "binX"}


def entry(axes, volume=17, **rest):
    levels = {k: rest.pop(k) for k in ("layer", "sensitive", "extra", "approach") if k in rest}
    return {"volume": volume, **levels, "value": {"geometric": {"segmentation": {"binningdata": axes}, **rest}}}


def conditions_entry(volume, shift, **levels):
    return entry({"shift": shift}, volume, **levels)


def write(path, *entries):
    content = {"acts-geometry-hierarchy-map": {"format-version": 0}, "entries": list(entries)}
    path.write_text(json.dumps(content))
    return path


PIXELS = [axis(100, -5, 5), axis(200, -10, 10)]


@pytest.mark.parametrize(("name", "file"), [("odd-2024", "traccc-2024"), ("odd-current", "acts")])
def test_builtin_digitization_equals_the_file(name, file, odd, reference_data):
    read = read_digitization(reference_data / "odd" / f"odd-digi-geometric-config.{file}.json")
    builtin = builtin_digitizations()[name]
    assert read.designs == builtin.designs
    assert read.design_names == builtin.design_names
    np.testing.assert_array_equal(odd.with_digitization(read).designs, odd.with_digitization(name).designs)


def test_default_digitization_of_the_odd(odd):
    assert odd.digitization.name == "odd-2024"
    by_name = dict(zip(odd.design_names, odd.designs, strict=True))
    assert by_name["17"].tolist() == pytest.approx((336, 1440, -8.4, -36, 0.05, 0.05, 2, 0.125, 0.01, 0.015, 0, 0))
    assert by_name["29"].tolist() == pytest.approx((384, 1, -48, -54, 0.25, 108, 1, 0.25, 0.01, 0.015, 1, 0))
    volumes = (odd.geometry_ids >> np.uint64(56)).astype(int)
    assert [odd.design_names[d] for d in odd.design_of_surface[::500]] == [str(v) for v in volumes[::500]]
    assert odd.with_digitization("odd-current").designs["n_channels0"][3] == 1410


def test_toy_digitization_equals_the_file(reference_data):
    toy = build_detector("toy", n_endcap_layers=7)
    other = toy.with_digitization(reference_data / "traccc_toy" / "geometry" / "actsid_toy_digi_config.json.gz")
    ours, theirs = (d.designs[d.design_of_surface] for d in (toy, other))
    np.testing.assert_array_equal(ours, theirs)
    conditions = reference_data / "traccc_toy" / "geometry" / "actsid_toy_conditions_config.json.gz"
    np.testing.assert_array_equal(toy.with_conditions(conditions).translations, 0)


def test_most_specific_entry_counts(tmp_path):
    file = write(
        tmp_path / "digi.json",
        entry([axis(4, 0, 1), axis(9, 0, 1)], volume=0),
        entry([axis(1000, 0, 1), axis(9, 0, 1)], layer=4, sensitive=3),
        entry([axis(10, 0, 1), axis(9, 0, 1)]),
        entry([axis(100, 0, 1), axis(9, 0, 1)], layer=4),
        entry([axis(7, 0, 1), axis(9, 0, 1)], layer=0, sensitive=5),  # a wildcard before a number never fits
    )
    read = read_digitization(file)
    ids = encode_geometry_id([18, 17, 17, 17, 17], [4, 2, 4, 4, 2], [3, 3, 1, 3, 5])
    assert [read.designs[i].axes[0].n_channels for i in read.design_of(ids)] == [4, 10, 100, 1000, 10]
    assert read.design_names == ("0", "17/4/3", "17", "17/4", "17/0/5")


def test_optional_values_have_defaults(tmp_path):
    (design,) = read_digitization(write(tmp_path / "d.json", entry(PIXELS, volume=0))).designs
    assert (design.thickness, design.threshold, design.charge_smearing, design.is_digital) == (None, 0, 0, False)
    telescope = build_detector("telescope", digitization=tmp_path / "d.json", sensor_thickness=0.3)
    assert telescope.designs["thickness"] == np.float32(0.3)
    assert telescope.digitization.name == "d"


def test_gzipped_file_is_read(tmp_path):
    plain = write(tmp_path / "d.json", entry(PIXELS))
    packed = tmp_path / "e.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_digitization(packed).designs == read_digitization(plain).designs
    assert read_digitization(packed).name == "e"


BINNING = r"entries\[0\]\.value\.geometric\.segmentation\.binningdata"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            entry([axis(4, 0, 1, "variable"), axis(4, 0, 1)]),
            BINNING + r"\[0\]\.type: is 'variable'; only 'equidistant'",
        ),
        (entry([axis(4, 0, 1)]), BINNING + ": has 1 axes; expected 2"),
        (entry([axis(4, 0, 1), axis(2.5, 0, 1)]), BINNING + r"\[1\]\.bins: is 2.5; expected an integer from 1"),
        (entry([axis(4, 0, 1), axis(0, 0, 1)]), BINNING + r"\[1\]\.bins: is 0"),
        (entry([axis(4, 1, 1), axis(4, 0, 1)]), BINNING + r"\[0\]: min is 1.0, max is 1.0; expected min < max"),
        (entry([axis(4, None, 1), axis(4, 0, 1)]), BINNING + r"\[0\]\.min: is null; expected a finite number"),
        (entry([axis(1, 0, 1), axis(4, 0, 1)]), "local 1 only"),
        (entry({"shift": [0, 0]}), BINNING + ": is an object; expected an array"),
        (entry(PIXELS, threshold=-1), r"entries\[0\]\.value\.geometric\.threshold: is -1.0; expected 0 or more"),
        (entry(PIXELS, digital="yes"), r"geometric\.digital: is 'yes'; expected true or false"),
        (entry(PIXELS, **{"charge-smearing": {"type": "Landau"}}), r"charge-smearing\.type: is 'Landau'"),
        (entry(PIXELS, volume=256), r"entries\[0\]\.volume: is 256; expected an integer from 0 to 255"),
        (entry(PIXELS, extra=1), r"entries\[0\]\.extra: is 1"),
        ({"volume": 17}, r"entries\[0\]: has no 'value'"),
        ({"volume": 17, "value": {"geometric": 3}}, r"geometric: is a number; expected an object with 'segmentation'"),
    ],
)
def test_broken_entry_names_file_and_key(tmp_path, bad, message):
    file = write(tmp_path / "broken.json", bad)
    with pytest.raises(GeometryError, match=rf"broken\.json: .*{message}"):
        read_digitization(file)


def test_broken_files(tmp_path):
    with pytest.raises(GeometryError, match=r"nowhere\.json: there is no such file"):
        read_digitization(tmp_path / "nowhere.json")
    cut = tmp_path / "cut.json"
    cut.write_text('{"entries": [')
    with pytest.raises(GeometryError, match=r"cut\.json: can't be read as JSON"):
        read_digitization(cut)
    bad_gzip = tmp_path / "cut.json.gz"
    bad_gzip.write_bytes(gzip.compress(b"{}" * 100)[:15])
    with pytest.raises(GeometryError, match=r"cut\.json\.gz: can't be read"):
        read_digitization(bad_gzip)
    cut.write_text("[]")
    with pytest.raises(GeometryError, match="top level: is an array"):
        read_digitization(cut)
    with pytest.raises(GeometryError, match="'entries' is empty"):
        read_digitization(write(cut))
    with pytest.raises(
        GeometryError, match=r"entries\[1\]: volume, layer, sensitive \(17, 0, 0\) have an entry already"
    ):
        read_digitization(write(cut, entry(PIXELS), entry(PIXELS)))


def test_unknown_digitization_name(odd):
    with pytest.raises(GeometryError, match=r"'odd-2019' is neither one of \['odd-2024', 'odd-current'\] nor"):
        get_digitization("odd-2019")


def test_digitization_must_cover_all_surfaces(odd):
    full = odd.digitization
    barrel = Digitization("barrel", tuple(d for d in full.designs if d.volume == 17))
    with pytest.raises(GeometryError, match=r"'barrel' has no entry for surface .*\(volume 16, layer 4"):
        odd.with_digitization(barrel)


def test_conditions_shift_local_positions(tmp_path, odd):
    file = write(tmp_path / "conditions.json", conditions_entry(0, [0, 0]), conditions_entry(17, [0.1, -0.2], layer=2))
    shifted = odd.with_conditions(file)
    is_first = (odd.geometry_ids >> np.uint64(36)) == (17 << 20) + 2
    np.testing.assert_allclose(shifted.translations[is_first], np.tile([0.1, -0.2], (224, 1)), rtol=1e-6)
    assert (shifted.translations[~is_first] == 0).all()
    assert shifted.arrays().translations is shifted.translations
    assert shifted.fingerprint != odd.fingerprint


def test_conditions_may_be_the_digitisation_file(odd, reference_data):
    file = reference_data / "odd" / "odd-digi-geometric-config.acts.json"
    np.testing.assert_array_equal(read_conditions(file, odd.geometry_ids), 0)


def test_broken_conditions(tmp_path, odd):
    file = write(tmp_path / "c.json", conditions_entry(17, [0.1]))
    with pytest.raises(GeometryError, match=r"c\.json: .*shift: has 1 values; expected 2"):
        read_conditions(file, odd.geometry_ids)
    write(file, conditions_entry(17, [0, 0]))
    with pytest.raises(GeometryError, match=r"c\.json: entries: none for surface .*volume 16"):
        read_conditions(file, odd.geometry_ids)


def test_variance_table_round_trip(tmp_path):
    names = ("17", "18/2")
    table = VarianceTable.zeros(2, np.float64)
    table.variances[0, 0, 1:4] = [2.1e-4, 5e-6, 7.5e-6]
    table.variances[1, 1, MAX_CLUSTER_SIZE] = 0.25
    table.path_sigmas[0, 0, 2] = 1e-3 * np.arange(1, N_END_PATHS + 1)
    file = tmp_path / "tables" / "t.json"
    save_variances(file, names, table, {"made by": "a test"})
    for k, column in enumerate(table):
        np.testing.assert_array_equal(load_variances(file, names)[k], column.astype(np.float32))
        np.testing.assert_array_equal(load_variances(file, names[::-1])[k], column[::-1].astype(np.float32))
    assert json.loads(file.read_text())["comment"] == {"made by": "a test"}
    assert len(file.read_text().splitlines()) < 40  # lists of numbers are not broken


def test_variance_table_that_does_not_exist_is_zero():
    table = load_variances(variance_file("odd", "nobody made this"), ("a", "b", "c"))
    assert table.variances.shape == (3, 2, MAX_CLUSTER_SIZE + 1)
    assert table.path_sigmas.shape == (3, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS)
    assert table.variances.dtype == table.path_sigmas.dtype == np.float32
    assert not table.variances.any()
    assert not table.path_sigmas.any()


@pytest.mark.parametrize(
    ("designs", "message"),
    [
        ({"19": {"loc0": {"1": {"variance": 1.0}}}}, r"designs\.19\.loc0\.1: unknown"),
        ({"17": {"x": {"1": {"variance": 1.0}}}}, r"designs\.17\.x\.1: unknown"),
        ({"17": {"loc0": {"17": {"variance": 1.0}}}}, "'17' is not a cluster size; expected 1 to 16"),
        ({"17": {"loc0": {"2": {"variance": -1.0}}}}, "variance: is -1.0; expected a variance > 0"),
        ({"17": {"loc0": {"2": {"sigmas": []}}}}, "variance: is None; expected a variance > 0"),
        ({"17": {"loc0": {"2": {"variance": 1.0, "sigmas": [1.0]}}}}, r"sigmas: is \[1.0\]; expected 17 numbers > 0"),
        ({"17": {"loc0": {"2": {"variance": 1.0, "sigmas": 3.0}}}}, r"sigmas: is 3.0; expected 17 numbers > 0"),
        ({"17": {"loc0": {"2": 1.0}}}, "is not a variance table"),
        ({"17": {"loc0": 3}}, "is not a variance table"),
    ],
)
def test_broken_variance_table(tmp_path, designs, message):
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"designs": designs}))
    with pytest.raises(GeometryError, match=rf"t\.json: .*{message}"):
        load_variances(file, ("17",))


def test_variance_table_of_other_end_paths_is_rejected(tmp_path):
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"end_paths": [0.0, 1.0], "designs": {}}))
    with pytest.raises(GeometryError, match=r"t\.json: end_paths: is \[0.0, 1.0\]; expected \[0.0, 0.25"):
        load_variances(file, ())


def test_saved_variances_must_have_the_shape_of_the_designs(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 2, 17\); expected \(1, 2, 17\)"):
        save_variances(tmp_path / "t.json", ("17",), VarianceTable.zeros(2), {})
