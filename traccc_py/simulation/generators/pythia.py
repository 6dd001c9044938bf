"""Proton-proton collisions from Pythia 8 (package `pythia8mc`)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import ConfigError, TracccError
from traccc_py.units import speed_of_light

__all__ = ["Collision", "PythiaGenerator", "pythia_version"]

#: Settings of the hard processes.
_PROCESSES: dict[str, tuple[str, ...]] = {
    "minbias": ("SoftQCD:inelastic = on",),
    "softqcd": ("SoftQCD:all = on",),  # with elastic collisions: one in four or five leaves almost nothing
    "ttbar": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on"),
    "jets": ("HardQCD:all = on",),
    "zmumu": (
        "WeakSingleBoson:ffbar2gmZ = on",
        "PhaseSpace:mHatMin = 60.",
        "23:onMode = off",
        "23:onIfAny = 13",
    ),
}
# Particles decay inside the tracker, also K0L, which Pythia does not decay by default. Charged pions and kaons don't:
# the transport, which knows their path, makes them decay.
_SETTINGS = (
    "Print:quiet = on",
    "ParticleDecays:limitCylinder = on",
    "ParticleDecays:xyMax = 1150.",
    "ParticleDecays:zMax = 3100.",
    "211:mayDecay = off",
    "321:mayDecay = off",
    "130:mayDecay = on",
    "Random:setSeed = on",
    "Random:seed = 1",
)
_PHOTON = 22
_MIN_FLIGHT = 5.0  # [mm] shorter flights of charged particles are not bent
_MIN_DECAY_RADIUS = 20.0  # [mm] particles that decay nearer to the beam leave no hits: the beam pipe is outside
_PROMPT = 1e-6  # [mm]
_STRAIGHT = 1e-12


class Collision(NamedTuple):
    """Particles of one collision whose primary vertex is at 0: charged ones that may leave hits, and photons."""

    number: np.ndarray  # (n,) int64, row in Pythia's record
    mother: np.ndarray  # (n,) int64, row of the mother if produced away from the primary vertex, else 0
    code: np.ndarray  # (n,) int32, PDG number
    vertex: np.ndarray  # (n, 3) [mm]
    time: np.ndarray  # (n,) [ns]
    momentum: np.ndarray  # (n, 3) [GeV]
    mass: np.ndarray  # (n,) [GeV]
    charge: np.ndarray  # (n,) [e]
    path_limit: np.ndarray  # (n,) path to the decay [mm], inf if there is none in the tracker


class _Turn(NamedTuple):
    """Rotation about z and shift from the straight flight of a particle's ancestors to the curved one."""

    angle: float
    before: tuple[float, float, float]
    after: tuple[float, float, float]

    def direction(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        c, s = math.cos(self.angle), math.sin(self.angle)
        return c * x - s * y, s * x + c * y, z

    def position(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        moved = self.direction(x - self.before[0], y - self.before[1], z - self.before[2])
        return moved[0] + self.after[0], moved[1] + self.after[1], moved[2] + self.after[2]


_NO_TURN = _Turn(0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def pythia_version() -> str | None:
    """Return the version of the installed `pythia8mc`, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pythia8mc")
    except PackageNotFoundError:
        return None


def _import_pythia() -> Any:
    try:
        import pythia8mc
    except ImportError as error:
        msg = "collisions need Pythia 8: pip install 'traccc-py[simulation]'"
        raise TracccError(msg) from error
    return pythia8mc


class PythiaGenerator:
    """Make collisions of one process; each depends on its seed only.

    Parameters
    ----------
    process : str
        One of `traccc_py.simulation.settings.PROCESSES`.
    energy : float, optional
        Centre-of-mass energy [GeV].
    pt_hat_min : float, optional
        Smallest pT of the hard scattering [GeV].
    b_z : float, optional
        Field along z in which charged particles fly before they decay [GeV / (e mm)].
    settings : sequence of str, optional
        More of Pythia's settings.

    Raises
    ------
    ConfigError
        If the process is unknown or Pythia refuses a setting.
    TracccError
        If Pythia is not installed.
    """

    def __init__(
        self,
        process: str,
        energy: float = 14_000.0,
        pt_hat_min: float = 0.0,
        b_z: float = 0.0,
        settings: tuple[str, ...] = (),
    ) -> None:
        if process not in _PROCESSES:
            msg = f"process is {process!r}; expected one of {', '.join(_PROCESSES)}"
            raise ConfigError(msg)
        self._pythia = _import_pythia().Pythia("", False)
        self._b_z = b_z
        cuts = (f"PhaseSpace:pTHatMin = {pt_hat_min}",) if pt_hat_min > 0 else ()
        beams = (f"Beams:eCM = {energy}",)
        for line in (*_SETTINGS, *beams, *_PROCESSES[process], *cuts, *settings):
            if not self._pythia.readString(line):
                msg = f"Pythia does not know the setting {line!r}"
                raise ConfigError(msg)
        if not self._pythia.init():
            msg = f"Pythia can't make {process} collisions at {energy} GeV with pT-hat above {pt_hat_min} GeV"
            raise ConfigError(msg)

    def collide(self, seed: int) -> Collision:
        """Return the collision of a seed, 1 to 900,000,000."""
        self._pythia.rndm.init(seed)
        while not self._pythia.next():
            pass
        return self._collect()

    def _collect(self) -> Collision:
        turns: dict[int, _Turn] = {}
        rows = []
        event = self._pythia.event
        for i in range(1, event.size()):
            particle = event[i]
            turn = turns.get(particle.mother1()) if turns else None
            if particle.isFinal():
                if particle.isCharged() or particle.id() == _PHOTON:
                    rows.append(self._row(i, particle, turn, math.inf))
                continue
            # where its daughters start: decay vertices of partons are not used by any
            daughter = event[particle.daughter1()] if particle.daughter1() else particle
            end = (daughter.xProd(), daughter.yProd(), daughter.zProd())
            flight = math.dist(end, (particle.xProd(), particle.yProd(), particle.zProd()))
            if turn is None and flight < _MIN_FLIGHT:
                continue
            turns[i] = turn or _NO_TURN
            if particle.isCharged() and flight >= _MIN_FLIGHT:
                if math.hypot(end[0], end[1]) > _MIN_DECAY_RADIUS:
                    rows.append(self._row(i, particle, turn, flight))
                turns[i] = self._bend(particle, turns[i], end, flight)
        return _to_collision(rows)

    def _bend(self, particle: Any, turn: _Turn, straight_end: tuple[float, float, float], flight: float) -> _Turn:
        """Return the rotation of the daughters, from the end of the straight path to that of the helix."""
        p = particle.pAbs()
        kappa = -particle.charge() * self._b_z / p
        half = 0.5 * kappa * flight
        chord = flight * (math.sin(half) / half if abs(half) > _STRAIGHT else 1.0)
        x, y, z = turn.position(particle.xProd(), particle.yProd(), particle.zProd())
        dx, dy, dz = (c / p for c in turn.direction(particle.px(), particle.py(), particle.pz()))
        c, s = math.cos(half), math.sin(half)
        end = (x + chord * (dx * c - dy * s), y + chord * (dx * s + dy * c), z + flight * dz)
        return _Turn(turn.angle + 2.0 * half, straight_end, end)

    @staticmethod
    def _row(i: int, particle: Any, turn: _Turn | None, path_limit: float) -> tuple[float, ...]:
        turn = turn or _NO_TURN
        position = (particle.xProd(), particle.yProd(), particle.zProd())
        is_prompt = max(abs(c) for c in position) < _PROMPT
        return (
            i,
            0 if is_prompt else particle.mother1(),
            particle.id(),
            *turn.position(*position),
            particle.tProd() / speed_of_light,
            *turn.direction(particle.px(), particle.py(), particle.pz()),
            particle.m(),
            particle.charge(),
            path_limit,
        )


def _to_collision(rows: list[tuple[float, ...]]) -> Collision:
    table = np.array(rows, float).reshape(-1, 13)
    integers = table[:, :3].astype(np.int64)
    return Collision(
        number=integers[:, 0],
        mother=integers[:, 1],
        code=integers[:, 2].astype(np.int32),
        vertex=table[:, 3:6],
        time=table[:, 6],
        momentum=table[:, 7:10],
        mass=table[:, 10],
        charge=table[:, 11],
        path_limit=table[:, 12],
    )
