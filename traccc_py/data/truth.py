"""Truth of a simulated event: particles, their hits, and which hits made which measurement."""

from __future__ import annotations

import numpy as np

from traccc_py.data.particle_ids import BARCODE_BITS, BARCODE_COLUMNS
from traccc_py.edm import Component, Csv, column
from traccc_py.edm.collection import Collection, collection

__all__ = ["Hits", "MeasurementHitMap", "Particles"]


_PARTICLE_ID = Csv(parts=tuple(zip(BARCODE_COLUMNS, BARCODE_BITS, strict=True)))


def _vector(prefix: str, unit: str, meaning: str) -> tuple[Component, ...]:
    return tuple(Component(f"{prefix}{axis}", unit, f"{meaning}, {axis}") for axis in "xyz")


@collection
class Particles(Collection):
    """Generated particles, as they leave their vertex."""

    particle_id: np.ndarray = column("uint64", "particle", csv=_PARTICLE_ID)
    particle_type: np.ndarray = column("int32", "PDG number", csv=Csv())
    process: np.ndarray = column("int32", "number of the process that made it", csv=Csv(default=0))
    vertex: np.ndarray = column(
        "float32", "global position", components=_vector("v", "mm", "global position"), csv=Csv()
    )
    time: np.ndarray = column("float32", "time", unit="ns", csv=Csv({"vt": 0}, default=0))
    momentum: np.ndarray = column(
        "float32", "global momentum", components=_vector("p", "GeV", "global momentum"), csv=Csv()
    )
    mass: np.ndarray = column("float32", "mass", unit="GeV", csv=Csv({"m": 0}, default=0, minimum=0))
    charge: np.ndarray = column("float32", "charge", unit="e", csv=Csv({"q": 0}))

    @property
    def pt(self) -> np.ndarray:
        """Transverse momentum [GeV], (n,) float64."""
        px, py, _ = np.asarray(self.momentum, np.float64).T
        return np.hypot(px, py)

    @property
    def eta(self) -> np.ndarray:
        """Pseudorapidity [1], (n,) float64."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.arcsinh(np.asarray(self.momentum, np.float64)[:, 2] / self.pt)

    @property
    def phi(self) -> np.ndarray:
        """Azimuth of the momentum [rad], (n,) float64."""
        px, py, _ = np.asarray(self.momentum, np.float64).T
        return np.arctan2(py, px)

    def table(self) -> dict[str, np.ndarray]:
        """Return pT, eta and phi and the columns as those of a flat table, by name."""
        derived = {name: getattr(self, name).astype(np.float32) for name in ("pt", "eta", "phi")}
        return derived | Collection.table(self)


@collection
class Hits(Collection):
    """Crossings of sensitive surfaces by particles; the row is the hit's id."""

    particle_id: np.ndarray = column("uint64", "particle", csv=_PARTICLE_ID)
    geometry_id: np.ndarray = column("uint64", "surface", csv=Csv())
    position: np.ndarray = column(
        "float32", "global position", components=_vector("t", "mm", "global position"), csv=Csv()
    )
    time: np.ndarray = column("float32", "time", unit="ns", csv=Csv({"tt": 0}, default=0))
    momentum: np.ndarray = column(
        "float32",
        "global momentum before the surface's material",
        components=_vector("tp", "GeV", "global momentum"),
        csv=Csv(),
    )
    energy: np.ndarray = column(
        "float32", "energy before the surface's material", unit="GeV", csv=Csv({"te": 0}, default=0)
    )
    delta_momentum: np.ndarray = column(
        "float32",
        "change of the momentum in the surface's material",
        components=_vector("deltap", "GeV", "change of the momentum"),
        csv=Csv(default=0),
    )
    delta_energy: np.ndarray = column(
        "float32", "change of the energy in it", unit="GeV", csv=Csv({"deltae": 0}, default=0)
    )
    index: np.ndarray = column("int64", "ordinal of the hit on its particle", csv=Csv(default=-1))


@collection
class MeasurementHitMap(Collection):
    """Pairs of a measurement and a hit that contributed to it: many to many."""

    measurement_id: np.ndarray = column("int64", "row of the measurements", csv=Csv(minimum=0))
    hit_id: np.ndarray = column("int64", "row of the hits", csv=Csv(minimum=0))
