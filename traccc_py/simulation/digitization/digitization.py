"""Digitisation: from hits to cells, by the path length in each channel, with a truth map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.edm import Cells
from traccc_py.errors import GeometryError
from traccc_py.geometry.records import OUTLINE, Shape
from traccc_py.simulation.digitization.channel_loop import ChargeOptions, DigitizationGeometry, HitArrays, divide_paths
from traccc_py.simulation.digitization.deposits import sensor_charge
from traccc_py.simulation.digitization.failures import draw_lost_hits
from traccc_py.simulation.digitization.noise import NoiseOccupancy, noise_cells
from traccc_py.simulation.transport.transport import SimulatedHits
from traccc_py.simulation.transport.truth_geometry import TruthGeometry, arrays_of, local_vectors, truth_geometry
from traccc_py.units import electron_mass

__all__ = ["PATH_LENGTHS", "ChargeOptions", "DigitizedHits", "digitization_geometry", "digitize"]


PATH_LENGTHS = ChargeOptions(fluctuations=False, delta_rays=False)


@dataclass(slots=True)
class DigitizedHits:
    """Cells of an event, ordered by (geometry_id, channel1, channel0), and the hits that made them."""

    cells: Cells  # measurement_id: the truth measurement of the first contributing hit
    hit_offsets: np.ndarray  # (n_cells + 1,) int64 into hit_indices
    hit_indices: np.ndarray  # (hit_offsets[-1],) int64, contributing hits, ascending in a cell
    measurement_hit: np.ndarray  # (n_measurements,) int64, the hit of each truth measurement


def digitization_geometry(detector: Any, *, smearing: bool = True) -> DigitizationGeometry:
    """Extract outlines and segmentations of a detector.

    Parameters
    ----------
    detector : Detector or DetectorArrays
        Detector, or its arrays.
    smearing : bool, optional
        Use the designs' charge smearing; else activations are exact path lengths.

    Returns
    -------
    DigitizationGeometry
        Arrays for `channel_loop`.

    Raises
    ------
    GeometryError
        If a sensor is an annulus or ring, and its readout is not polar.
    """
    arrays = arrays_of(detector)
    surfaces, designs = arrays.surfaces, arrays.designs
    is_round = (surfaces["shape"] >= Shape.ANNULUS) & (surfaces["design"] >= 0)
    if not designs["is_polar"][surfaces["design"][is_round]].all():
        msg = (
            "the detector has annuli or rings, whose channels are polar, but their readout design is not; expected a "
            "digitization file with the axes binR, binPhi for them"
        )
        raise GeometryError(msg)

    def pair(name: str, dtype: Any) -> np.ndarray:
        return np.stack([designs[f"{name}{axis}"].astype(dtype) for axis in (0, 1)], axis=1)

    return DigitizationGeometry(
        half_lengths=np.stack([surfaces[name].astype(np.float64) for name in ("hx_min", "hx_max", "hy")], axis=1),
        outline=np.stack([surfaces[name].astype(np.float64) for name in OUTLINE], axis=1),
        is_polar=is_round,
        design=surfaces["design"].astype(np.int64),
        shift=np.asarray(arrays.translations, np.float64),
        n_channels=pair("n_channels", np.int64),
        minimum=pair("min", np.float64),
        pitch=pair("pitch", np.float64),
        thickness=designs["thickness"].astype(np.float64),
        smearing=designs["charge_smearing"].astype(np.float64) * (1.0 if smearing else 0.0),
        is_digital=designs["is_digital"] == 1,
        charge=sensor_charge(designs["thickness"].astype(np.float64)),
    )


def _merge(rows: np.ndarray, module: np.ndarray, n_channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of rows by (module, channel1, channel0, hit) and the starts of equal channels in it."""
    channel = rows[:, 2].astype(np.int64) * n_channels[:, 0] + rows[:, 1].astype(np.int64)
    order = np.lexsort((rows[:, 0], channel, module))
    channel, module = channel[order], module[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(module) != 0) | (np.diff(channel) != 0)
    return order, np.flatnonzero(is_first)


def _empty(geometry_ids: np.ndarray) -> DigitizedHits:
    none = np.zeros(0, np.int64)
    cells = Cells(geometry_ids[:0], none, none, np.zeros(0, np.float32), np.zeros(0, np.float32), none)
    return DigitizedHits(cells, np.zeros(1, np.int64), none, none)


def digitize(
    detector: Any,
    simulated: SimulatedHits,
    key: np.uint64,
    *,
    smearing: bool = True,
    charges: ChargeOptions = PATH_LENGTHS,
    noise: NoiseOccupancy = (0.0, 0.0),
    loss: np.ndarray | None = None,
    geometry: tuple[TruthGeometry, DigitizationGeometry] | None = None,
) -> DigitizedHits:
    """Turn hits into cells.

    Parameters
    ----------
    detector : Detector
        With `arrays()` and `geometry_ids`.
    simulated : SimulatedHits
        Hits of one event.
    key : uint64
        Key of the event's random numbers (`random_numbers.event_key`).
    smearing : bool, optional
        Use the designs' charge smearing.
    charges : ChargeOptions, optional
        Fluctuations of charges, delta rays; by default charges are path lengths.
    noise : tuple of float, optional
        Chance of a channel of 2D and of 1D designs to fire without a hit.
    loss : ndarray of shape (n_modules,), float64, optional
        Chance of a hit to leave no cells.
    geometry : tuple, optional
        `truth_geometry` and `digitization_geometry` of the detector, to avoid making them for each event.

    Returns
    -------
    DigitizedHits
        Cells with activation [mm], the summed path lengths or charges (1 in digital designs), and their truth.

    Notes
    -----
    The path is a straight segment through the sensor's active thickness, along the momentum before the material; what
    is outside the segmentation or the outline is lost, and what is in dead channels. Each (hit, channel) is smeared
    separately, as in Acts; then channels are summed and those below the threshold dropped. Charges that fluctuate:
    `deposits`.
    """
    truth, channels = geometry or (truth_geometry(detector), digitization_geometry(detector, smearing=smearing))
    geometry_ids = np.asarray(detector.geometry_ids).astype(np.uint64)
    module = simulated.module_index.astype(np.int64)
    p = np.linalg.norm(simulated.hits.momentum.astype(np.float64), axis=1)
    hits = HitArrays(
        module=module,
        local=np.ascontiguousarray(simulated.local_position, np.float64),
        direction=local_vectors(truth, module, simulated.hits.momentum),
        particle_id=simulated.hits.particle_id.astype(np.uint64),
        ordinal=simulated.hits.index.astype(np.int64),
        p=p,
        mass=np.sqrt(np.maximum(simulated.hits.energy.astype(np.float64) ** 2 - p**2, electron_mass**2)),
    )
    rows = divide_paths(channels, hits, np.uint64(key), charges)
    hit = rows[:, 0].astype(np.int64)
    if loss is not None:
        rows = rows[~draw_lost_hits(loss, module, key)[hit]]
        hit = rows[:, 0].astype(np.int64)
    dead = detector.dead_ranges
    if dead is not None:
        rows = rows[~dead.contain(module[hit], rows[:, 1], rows[:, 2])]
    arrays = arrays_of(detector)
    made = _form_cells(rows, simulated, arrays.designs, channels, geometry_ids) if len(rows) else _empty(geometry_ids)
    return _with_noise(made, noise_cells(arrays, geometry_ids, key, noise), detector) if any(noise) else made


def _with_noise(made: DigitizedHits, noise: Cells, detector: Any) -> DigitizedHits:
    """Merge the cells of noise into the others; a channel that already has charge keeps it."""
    dead, module = detector.dead_ranges, detector.module_index(noise.geometry_id)
    live = slice(None) if dead is None else ~dead.contain(module, noise.channel0, noise.channel1)
    columns = {n: np.concatenate([getattr(made.cells, n), getattr(noise, n)[live]]) for n in Cells.__dataclass_fields__}
    module = detector.module_index(columns["geometry_id"])
    is_noise = np.arange(len(module)) >= len(made.cells)
    order = np.lexsort((is_noise, columns["channel0"], columns["channel1"], module))
    keys = np.stack([module, columns["channel1"], columns["channel0"]])[:, order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.any(np.diff(keys, axis=1) != 0, axis=0)
    kept = order[is_first]
    n_noise = len(module) - len(made.cells)
    sizes = np.concatenate([np.diff(made.hit_offsets), np.zeros(n_noise, np.int64)])[kept]
    cells = Cells(**{name: column[kept] for name, column in columns.items()})
    # cells with hits keep their order, so their hits do
    return DigitizedHits(cells, np.concatenate(([0], np.cumsum(sizes))), made.hit_indices, made.measurement_hit)


def _form_cells(
    rows: np.ndarray,
    simulated: SimulatedHits,
    designs: np.ndarray,
    channels: DigitizationGeometry,
    geometry_ids: np.ndarray,
) -> DigitizedHits:
    """Sum rows by channel, apply the threshold, and number the truth measurements by hit."""
    hit = rows[:, 0].astype(np.int64)
    module = simulated.module_index[hit].astype(np.int64)
    order, first = _merge(rows, module, channels.n_channels[channels.design[module]])
    activation = np.add.reduceat(rows[order, 3], first)
    design = channels.design[module[order[first]]]
    is_digital = designs["is_digital"][design] == 1
    kept = activation > np.where(is_digital, 0.0, designs["threshold"][design])
    activation = np.where(is_digital, 1.0, activation)
    sizes = np.diff(np.append(first, len(order)))
    hit_indices = hit[order][np.repeat(kept, sizes)]
    hit_offsets = np.concatenate(([0], np.cumsum(sizes[kept])))
    first_row = order[first][kept]
    has_cells = np.zeros(len(simulated), bool)
    has_cells[hit_indices] = True
    measurement_of_hit = np.cumsum(has_cells) - 1
    cells = Cells(
        geometry_id=geometry_ids[module[first_row]],
        channel0=rows[first_row, 1].astype(np.int64),
        channel1=rows[first_row, 2].astype(np.int64),
        activation=activation[kept].astype(np.float32),
        time=simulated.hits.time[hit[first_row]].astype(np.float32),
        measurement_id=measurement_of_hit[hit[first_row]],
    )
    return DigitizedHits(cells, hit_offsets, hit_indices, np.flatnonzero(has_cells))
