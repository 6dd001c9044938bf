"""Documents in detray's JSON format, made by hand: barrels, discs, portals, materials, maps."""

import copy
import json

import numpy as np

from traccc_py.geometry import read_detray

IDENTITY = [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]
PORTAL, SENSITIVE, PASSIVE = 0, 1, 2
ANNULUS, CYLINDER, CONCENTRIC, RECTANGLE, RING, TRAPEZOID = 0, 2, 4, 5, 6, 7
WORLD_END = 65535
SILICON = [95.7, 465.2, 28.03, 14.0, 2.32 * 5.6095886e20, 8.28e-5, 0.0]


def surface(kind, shape, boundaries, translation=(0.0, 0.0, 0.0), rotation=IDENTITY, source=0, link=None):
    """A surface; its link is its own volume's if none is given."""
    transform = {"translation": [float(x) for x in translation], "rotation": [float(x) for x in np.ravel(rotation)]}
    mask = {"shape": shape, "volume_link": link, "boundaries": [float(b) for b in boundaries]}
    return {"type": kind, "source": source, "transform": transform, "masks": [mask]}


def barrel_sensor(radius, phi, z=0.0, half=(10.0, 20.0), shape=RECTANGLE, boundaries=None, **rest):
    """A sensor whose normal points away from the z axis; local x along phi, y along z."""
    c, s = np.cos(phi), np.sin(phi)
    rotation = [[-s, c, 0], [0, 0, 1], [c, s, 0]]
    return surface(SENSITIVE, shape, boundaries or half, (radius * c, radius * s, z), rotation, **rest)


def disc_sensor(radius, phi, z, half=(10.0, 20.0), kind=SENSITIVE, **rest):
    """A sensor whose normal is z; local y points away from the z axis."""
    c, s = np.cos(phi), np.sin(phi)
    rotation = [[s, -c, 0], [c, s, 0], [0, 0, 1]]
    return surface(kind, RECTANGLE, half, (radius * c, radius * s, z), rotation, **rest)


def barrel(radius, n=16, half_z=20.0, **rest):
    """Sensors all around the z axis."""
    half = (1.1 * np.pi * radius / n, half_z)
    return [barrel_sensor(radius, 2 * np.pi * (k + 0.5) / n - np.pi, half=half, **rest) for k in range(n)]


def disc(z, radius=100.0, n=16, half_r=20.0, **rest):
    """Sensors of a ring."""
    half = (1.3 * np.pi * radius / n, half_r)
    return [disc_sensor(radius, 2 * np.pi * (k + 0.5) / n - np.pi, z + (k % 2), half=half, **rest) for k in range(n)]


def header(tag, **counts):
    common = {"version": "detray - 0.111.0", "detector": "test", "date": "2025-01-01", "tag": tag}
    return {"common": common, **counts}


def geometry(*volumes):
    """A geometry of volumes, each a list of surfaces."""
    made = []
    for i, of_volume in enumerate(volumes):
        surfaces = copy.deepcopy(of_volume)
        for s in surfaces:
            for mask in s["masks"]:
                if mask["volume_link"] is None:
                    mask["volume_link"] = i
        transform = {"translation": [0.0, 0.0, 0.0], "rotation": IDENTITY}
        made.append({"name": f"part_{i}", "index": i, "type": 0, "transform": transform, "surfaces": surfaces})
    counts = {"volume_count": len(made), "surface_count": sum(len(v["surfaces"]) for v in made)}
    return {"header": header("geometry", **counts), "data": {"volumes": made}}


def slab(index, thickness=1.0, params=SILICON):
    return {"type": 6, "surface_idx": index, "thickness": thickness, "material": {"params": list(params)}}


def homogeneous(slabs):
    """Material, by volume: lists of `slab`."""
    volumes = [{"volume_link": v, "surface_material": copy.deepcopy(s)} for v, s in slabs.items()]
    return {"header": header("homogeneous_material"), "data": {"volumes": volumes}}


def axis(label, n, low, high, bounds=1):
    return {"label": label, "bounds": bounds, "binning": 0, "bins": n, "edges": [low, high]}


def grid(owner, kind, axes, thicknesses):
    """A map; `thicknesses` (n0, n1) are those of silicon."""
    t = np.asarray(thicknesses, float)
    bins = [
        {"loc_index": [i, j], "content": [slab(owner, float(t[i, j]))]}
        for j in range(t.shape[1])
        for i in range(t.shape[0])
    ]
    return {"owner_link": owner, "grid_link": {"type": kind, "index": 0}, "axes": axes, "bins": bins}


def maps(by_volume):
    """Material maps, by volume: lists of `grid`."""
    grids = [{"volume_link": v, "grid_data": g} for v, g in by_volume.items()]
    return {"header": header("material_maps", grid_count=len(grids)), "data": {"grids": grids}}


def load(folder, document, *materials, **options):
    """Write documents and read the detector they describe."""
    files = []
    for k, content in enumerate((document, *materials)):
        files.append(folder / f"file{k}.json")
        files[-1].write_text(json.dumps(content))
    return read_detray(files[0], files[1:], **options)
