"""Broken detray files: every one gets an error that names file and key path; none takes long or fails otherwise."""

import copy
import gzip
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.detray_documents import (
    CONCENTRIC,
    IDENTITY,
    PASSIVE,
    PORTAL,
    RECTANGLE,
    RING,
    TRAPEZOID,
    WORLD_END,
    axis,
    barrel,
    disc,
    geometry,
    grid,
    header,
    homogeneous,
    load,
    maps,
    slab,
    surface,
)
from traccc_py.errors import GeometryError
from traccc_py.geometry import read_detray

N_EXAMPLES = 150


def documents():
    """A small detector with a bit of everything: geometry, material, maps, surface grids."""
    inner = [
        *barrel(50.0, n=6),
        surface(PASSIVE, CONCENTRIC, (30, -50, 50)),
        surface(PORTAL, CONCENTRIC, (90, -60, 60), link=1),
    ]
    outer = [*disc(120.0, n=6), surface(PORTAL, RING, (0, 90), (0, 0, 60), link=WORLD_END)]
    outer[0]["masks"][0] |= {"shape": TRAPEZOID, "boundaries": [20.0, 30.0, 20.0, 0.025]}
    material = homogeneous({0: [slab(k) for k in range(7)], 1: [slab(k) for k in range(5)]})
    polar = [axis(0, 2, 0.0, 90.0), axis(1, 3, -math.pi, math.pi, 2)]
    plane = [axis(0, 2, -30.0, 30.0), axis(1, 1, -20.0, 20.0)]
    chosen = maps({1: [grid(6, 0, polar, [[1, 2, 3], [4, 5, 6]]), grid(5, 1, plane, [[1], [2]])]})
    bins = [{"loc_index": [k, 0], "content": [k]} for k in range(6)]
    of_volume = {
        "owner_link": 0,
        "grid_link": {"type": 4, "index": 0},
        "axes": [axis(0, 6, -math.pi, math.pi, 2), axis(1, 1, -20.0, 20.0)],
        "bins": bins,
    }
    grids = {"header": header("surface_grids"), "data": {"grids": [{"volume_link": 0, "grid_data": [of_volume]}]}}
    return json.loads(json.dumps([geometry(inner, outer), material, chosen, grids]))  # nothing shared


NAMES = ("geometry", "material", "maps", "grids")


def read(folder, contents):
    files = [folder / f"{name}.json" for name in NAMES]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_detray(files[0], files[1:3], files[3])


def at(document, path):
    for key in path[:-1]:
        document = document[key]
    return document, path[-1]


def broken(which, path, value):
    """The documents, with the value at a path of one of them replaced (deleted if it is ...)."""
    contents = documents()
    holder, key = at(contents[which], path)
    if value is ...:
        del holder[key]
    else:
        holder[key] = value
    return contents


GEOMETRY, MATERIAL, MAPS, GRIDS = range(4)
V = ("data", "volumes")
S = (*V, 0, "surfaces", 3)
MASK = (*S, "masks", 0)
G = ("data", "grids", 0, "grid_data", 0)
SLAB = (*V, 1, "surface_material", 2)
BROKEN = [
    (GEOMETRY, ("header",), ..., r"top level: has no 'header'"),
    (
        GEOMETRY,
        ("header", "common", "tag"),
        "surface_grids",
        r"header\.common\.tag: is 'surface_grids'; expected 'geometry'",
    ),
    (GEOMETRY, ("header", "common", "detector"), 3, r"header\.common\.detector: is 3; expected a string"),
    (GEOMETRY, ("header", "surface_count"), 14, r"header\.surface_count: is 14, but the file has 15"),
    (GEOMETRY, ("data",), [], r"data: is an array; expected an object with 'volumes'"),
    (GEOMETRY, V, {}, r"data\.volumes: is an object; expected an array"),
    (GEOMETRY, V, [], r"data\.volumes: has 0 volumes"),
    (GEOMETRY, (*V, 1, "index"), 0, r"volumes\[1\]\.index: is 0; expected 1"),
    (GEOMETRY, (*S, "type"), ..., r"volumes\[0\]\.surfaces\[3\]: has no 'type'"),
    (GEOMETRY, (*S, "type"), 3, r"surfaces\[3\]\.type: is 3; expected an integer from 0 to 2"),
    (GEOMETRY, (*S, "type"), True, r"surfaces\[3\]\.type: is True; expected an integer"),
    (GEOMETRY, (*S, "source"), -1, r"surfaces\[3\]\.source: is -1; expected an integer from 0"),
    (GEOMETRY, (*S, "source"), "7", r"surfaces\[3\]\.source: is '7'; expected an integer"),
    (GEOMETRY, (*S, "index_in_coll"), 0, r"surfaces\[3\]\.index_in_coll: is set, but not for all"),
    (GEOMETRY, (*S, "transform", "translation"), [1.0, 2.0], r"translation: is an array of 2; expected an array of 3"),
    (GEOMETRY, (*S, "transform", "translation", 1), math.inf, r"translation\[1\]: is inf; expected a finite number"),
    (GEOMETRY, (*S, "transform", "translation", 1), math.nan, r"translation\[1\]: is nan; expected a finite number"),
    (
        GEOMETRY,
        (*S, "transform", "translation", 1),
        1e30,
        r"translation\[1\]: is 1e\+30; expected a number from -1e\+06",
    ),
    (GEOMETRY, (*S, "transform", "translation", 1), 10**400, r"translation\[1\]: is a huge integer"),
    (
        GEOMETRY,
        (*S, "transform", "rotation"),
        [2.0, *IDENTITY[1:]],
        r"rotation: is off an orthonormal right-handed frame by 3",
    ),
    (GEOMETRY, (*S, "transform", "rotation"), [*IDENTITY[:8], -1.0], r"rotation: is off an orthonormal right-handed"),
    (GEOMETRY, (*S, "masks"), [], r"surfaces\[3\]\.masks: is empty"),
    (GEOMETRY, (*MASK, "shape"), 99, r"masks\[0\]\.shape: is 99; expected an integer from 0 to 12"),
    (GEOMETRY, (*MASK, "volume_link"), 1, r"masks\[0\]\.volume_link: is 1; expected 0, the volume of the surface"),
    (GEOMETRY, (*MASK, "boundaries"), [1.0], r"masks\[0\]\.boundaries: is an array of 1; expected an array of 2"),
    (GEOMETRY, (*MASK, "boundaries"), [0.0, 1.0], r"boundaries: is \[0\.0, 1\.0\]; expected two half lengths"),
    (
        GEOMETRY,
        (*V, 0, "surfaces", 7, "masks", 0, "volume_link"),
        2,
        r"volume_link: is 2; expected a volume, 0 to 1, or 65535",
    ),
    (
        MATERIAL,
        ("header", "common", "tag"),
        "geometry",
        r"material\.json: header\.common\.tag: is 'geometry'; expected",
    ),
    (MATERIAL, ("header", "common", "detector"), "x", r"material\.json: header\.common\.detector: is 'x', but"),
    (MATERIAL, (*V, 0, "volume_link"), 2, r"volumes\[0\]\.volume_link: is 2; expected an integer from 0 to 1"),
    (MATERIAL, (*SLAB, "surface_idx"), 7, r"surface_material\[2\]\.surface_idx: is 7; expected an integer from 0 to 6"),
    (
        MATERIAL,
        (*SLAB, "surface_idx"),
        1,
        r"surface_material\[2\]\.surface_idx: surface 1 of volume 1 has material already",
    ),
    (MATERIAL, (*SLAB, "type"), 7, r"surface_material\[2\]\.type: is 7, a rod"),
    (MATERIAL, (*SLAB, "thickness"), -1.0, r"thickness: is -1\.0; expected 0 mm or more"),
    (MATERIAL, (*SLAB, "material", "params"), [1.0], r"params: is an array of 1; expected an array of 7"),
    (MATERIAL, (*SLAB, "material", "params", 2), 0.0, r"params: is \[95\.7, .*expected X0"),
    (MATERIAL, (*SLAB, "material", "params", 2), 1e-250, r"params: is .*atomic mass >= 0\.1 x atomic number"),
    (MATERIAL, (*SLAB, "material", "params", 3), 1e-250, r"params: is .*atomic number 0\.1 to 200"),
    (MAPS, (*G, "owner_link"), 9, r"maps\.json: data\.grids\[0\]\.grid_data\[0\]\.owner_link: is 9; expected"),
    (MAPS, (*G, "owner_link"), 3, r"owner_link: surface 3 of volume 1 has material already"),
    (MAPS, (*G, "grid_link", "type"), 3, r"grid_link\.type: is 3, which does not fit the ring"),
    (MAPS, (*G, "axes", 1), axis(1, 2**30, 0.0, 1.0), r"axes\[1\]\.bins: is 1073741824; expected an integer from 1"),
    (MAPS, (*G, "axes", 0, "edges"), [2.0, 1.0], r"axes\[0\]\.edges: does not ascend"),
    (MAPS, (*G, "axes", 0, "label"), 1, r"axes\[0\]\.label: is 1; expected an integer from 0 to 0"),
    (MAPS, (*G, "bins", 2, "loc_index"), [0, 0], r"bins\[2\]\.loc_index: is \[0, 0\], as that of a bin before"),
    (MAPS, (*G, "bins", 2, "loc_index", 0), 2, r"bins\[2\]\.loc_index\[0\]: is 2; expected an integer from 0 to 1"),
    (MAPS, (*G, "bins", 2, "content"), [], r"bins\[2\]\.content: has 0 slabs; expected one"),
    (
        GRIDS,
        (*G, "bins", 2, "content"),
        [8],
        r"grids\.json: .*bins\[2\]\.content\[0\]: is 8; expected an integer from 0 to 7",
    ),
    (GRIDS, (*G, "bins", 2, "loc_index", 0), 6, r"bins\[2\]\.loc_index\[0\]: is 6; expected an integer from 0 to 5"),
]


def test_documents_are_sound(tmp_path):
    detector = read(tmp_path, documents())
    assert len(detector.geometry_ids) == 12
    assert len(detector.material_maps) == 2
    assert len(detector.passive) == 2


@pytest.mark.parametrize(("which", "path", "value", "message"), BROKEN)
def test_error_names_file_key_path_and_what_was_expected(tmp_path, which, path, value, message):
    with pytest.raises(GeometryError, match=message) as caught:
        read(tmp_path, broken(which, path, value))
    assert str(tmp_path / f"{NAMES[which]}.json") in str(caught.value)


def test_duplicated_index_is_named(tmp_path):
    contents = documents()
    for k, s in enumerate(contents[0]["data"]["volumes"][0]["surfaces"]):
        s["index_in_coll"] = k
    contents[0]["data"]["volumes"][0]["surfaces"][5]["index_in_coll"] = 2
    message = r"surfaces\[5\]\.index_in_coll: is 2, as that of data\.volumes\[0\]\.surfaces\[2\]$"
    with pytest.raises(GeometryError, match=message):
        read(tmp_path, contents)


@pytest.mark.parametrize(
    ("raw", "suffix", "message"),
    [
        (b"", ".json", "can't be read as JSON"),
        (b'{"header": {"common"', ".json", "can't be read as JSON"),
        (b"\xff\xfe\x00binary\x00", ".json", "can't be read as JSON"),
        (b'{"a": "\xe9"}', ".json", "can't be read as JSON"),
        (b"[" * 100_000, ".json", "can't be read as JSON"),
        (b"not gzip", ".json.gz", "can't be read as JSON"),
        (gzip.compress(b"{}", mtime=0)[:-5], ".json.gz", "can't be read as JSON"),
        (gzip.compress(b"{}" * 50, mtime=0)[:12] + b"\x00\xff" * 8, ".json.gz", "can't be read as JSON"),
        (b"3", ".json", "top level: is a number; expected an object with 'header'"),
        (b"1" * 5000, ".json", "can't be read as JSON|top level"),
    ],
)
def test_damaged_files_are_named(tmp_path, raw, suffix, message):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(raw)
    with pytest.raises(GeometryError, match=rf"broken\.json.*({message})"):
        read_detray(file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(GeometryError, match=r"nothing\.json: there is no such file"):
        read_detray(tmp_path / "nothing.json")


def test_detector_without_sensors_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"data\.volumes: has no sensitive surface"):
        load(tmp_path, geometry([surface(PORTAL, RECTANGLE, (10, 10), link=WORLD_END)]))


def test_names_for_files_are_safe(tmp_path):
    document = geometry(barrel(50.0))
    document["header"]["common"]["detector"] = "../../etc/pass wd" + "x" * 500
    name = load(tmp_path, document).name
    assert "/" not in name
    assert len(name) <= 64


# --- anything else that may happen to a file


def places(value, path=()):
    """Paths of all values below one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from places(child, (*path, key))


PLACES = [(which, path) for which, document in enumerate(documents()) for path in places(document)]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.sampled_from([math.inf, -math.inf, math.nan, 1e300, -1e300, 1e-300, 1e5, -1.0, 0, 10**30, -(10**30), 65535]),
    st.floats(-1e3, 1e3),
    st.integers(-5, 20),
    st.lists(st.integers(-2, 2), max_size=4),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
)


def mutate(draw, contents):
    which, path = draw(st.sampled_from(PLACES))
    try:
        holder, key = at(contents[which], path)
        kind = draw(st.sampled_from(["delete", "replace", "replace", "shuffle", "repeat"]))
        if kind == "delete":
            del holder[key]
        elif kind == "replace":
            holder[key] = draw(VALUES)
        elif isinstance(holder, list) and kind == "shuffle":
            holder[:] = draw(st.permutations(holder))
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    except (KeyError, IndexError, TypeError):
        pass  # an earlier change took the place away


@given(st.data())
@settings(max_examples=N_EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_documents_load_or_raise_geometry_errors(tmp_path, monkeypatch, data):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path / "cache"))
    contents = documents()
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(data.draw, contents)
    if data.draw(st.booleans()):
        which = data.draw(st.integers(0, 3))
        raw = json.dumps(contents[which]).encode()
        contents[which] = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        detector = read(tmp_path, contents)
    except GeometryError as error:
        message = str(error)
    else:
        message = f"{tmp_path / 'geometry.json'}" if len(detector.arrays().surfaces) else ""
    assert any(str(tmp_path / f"{name}.json") in message for name in NAMES)
