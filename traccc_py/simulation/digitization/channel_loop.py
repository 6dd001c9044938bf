"""The compiled loop over hits of the digitisation: straight paths, clipped to the channels they cross, and charges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.digitization.deposits import (
    DELTA_RAY,
    SensorCharge,
    core_charge,
    delta_direction_cosine,
    electron_range,
    next_transfer,
    transfers_in_silicon,
)
from traccc_py.simulation.digitization.polar_channels import PolarChannels, next_event, polar_channel
from traccc_py.simulation.random_numbers import normal_pair
from traccc_py.simulation.transport.kinematics import turned_by

__all__ = ["ChargeOptions", "DigitizationGeometry", "HitArrays", "divide_paths"]

_STREAM_CHARGE = 16  # stream number of a particle's first hit; the next hits follow
_MIN_INCIDENCE = 1e-6  # cosine below which a path in the sensor's plane counts as infinite
_FIRST_CAPACITY = 256
_NOTHING = (1.0, 0.0)  # an empty range
_LEAST_DELTA = 0.1  # thicknesses: of a digital channel with less charge, all from delta rays, nothing is seen


class ChargeOptions(NamedTuple):
    """What happens to charges."""

    fluctuations: bool  # they fluctuate, else they are path lengths
    delta_rays: bool  # and electrons of more than `DELTA_RAY` leave their channel


class DigitizationGeometry(NamedTuple):
    """Outlines and segmentations; float64 unless said otherwise."""

    half_lengths: Any  # (n_modules, 3): hx at -hy, hx at +hy, hy [mm]
    outline: Any  # (n_modules, 7) columns of Annulus
    is_polar: Any  # (n_modules,) bool
    design: Any  # (n_modules,) int64
    shift: Any  # (n_modules, 2) added to channel positions [mm]; of polar axes [mm, rad]
    n_channels: Any  # (n_designs, 2) int64
    minimum: Any  # (n_designs, 2) [mm]; of polar axes [mm, rad]
    pitch: Any  # (n_designs, 2)
    thickness: Any  # (n_designs,) [mm]
    smearing: Any  # (n_designs,) Gaussian width of the path length in a channel [mm]
    is_digital: Any  # (n_designs,) bool
    charge: SensorCharge


class HitArrays(NamedTuple):
    """Hits in the frames of their modules; float64 unless said otherwise."""

    module: Any  # (n,) int64
    local: Any  # (n, 2) [mm]
    direction: Any  # (n, 3) along u, v, w; any length
    particle_id: Any  # (n,) uint64
    ordinal: Any  # (n,) int64, of the hit on its particle
    p: Any  # (n,) momentum [GeV]
    mass: Any  # (n,) [GeV]


@compiled
def _clip(low, high, start, step, limit):
    """Return the part of [low, high] in which start + t step <= limit."""
    if step == 0.0:
        return (low, high) if start <= limit else _NOTHING
    t = (limit - start) / step
    return (low, min(high, t)) if step > 0.0 else (max(low, t), high)


@compiled
def _clip_to_sensor(geometry, module, design, path):
    """Return the range of t in which the path is inside both the segmentation and the outline."""
    x, y, dx, dy = path
    low, high = 0.0, 1.0
    for axis in range(2):
        start, step = (x, dx) if axis == 0 else (y, dy)
        minimum = geometry.minimum[design, axis] + geometry.shift[module, axis]
        maximum = minimum + geometry.pitch[design, axis] * geometry.n_channels[design, axis]
        low, high = _clip(low, high, start, step, maximum)
        low, high = _clip(low, high, -start, -step, -minimum)
    hx_min, hx_max, hy = geometry.half_lengths[module]
    low, high = _clip(low, high, y, dy, hy)
    low, high = _clip(low, high, -y, -dy, hy)
    # sides: |x| - slope y <= (hx_min + hx_max) / 2
    slope = (hx_max - hx_min) / (2.0 * hy)
    middle = 0.5 * (hx_min + hx_max)
    low, high = _clip(low, high, x - slope * y, dx - slope * dy, middle)
    return _clip(low, high, -x - slope * y, -dx - slope * dy, middle)


@compiled
def _first_channel(position, minimum, pitch, n_channels):
    return min(max(math.floor((position - minimum) / pitch), 0), n_channels - 1)


@compiled
def _next_border(channel, minimum, pitch, start, step):
    """Return the t at which the path leaves a channel along one axis."""
    if step == 0.0:
        return np.inf
    border = channel + 1 if step > 0.0 else channel
    return (minimum + border * pitch - start) / step


@compiled
def _append(rows, n, hit, channel0, channel1, activation):
    """Write one row (hit, channel0, channel1, activation); return rows (maybe a larger array) and their number."""
    if n == len(rows):
        rows = np.concatenate((rows, np.empty_like(rows)))
    rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3] = hit, channel0, channel1, activation
    return rows, n + 1


@compiled
def _smeared(length, sigma, hits, i, draw, key):
    if sigma <= 0.0:
        return length
    noise, _ = normal_pair(key, hits.particle_id[i], draw, _STREAM_CHARGE + hits.ordinal[i])
    return max(0.0, length + sigma * noise)


@compiled
def _polar_sensor(geometry, module, design):
    """Return the channels and outline of an annulus or ring, relative to its focal point."""
    focal, beam_x, beam_y, r_min, r_max, half_opening, phi_middle = geometry.outline[module]
    return PolarChannels(
        geometry.minimum[design, 0] + geometry.shift[module, 0],
        geometry.pitch[design, 0],
        geometry.n_channels[design, 0],
        geometry.minimum[design, 1] + geometry.shift[module, 1],
        geometry.pitch[design, 1],
        geometry.n_channels[design, 1],
        phi_middle,
        beam_x,
        beam_y + focal,
        r_min,
        r_max,
        half_opening,
    )


@compiled
def _divide_polar(geometry, hits, i, path, length, rows, n):
    """Append the polar channels that hit `i` crosses on the path (x, y, dx, dy), in its order."""
    module = hits.module[i]
    design = geometry.design[module]
    sensor = _polar_sensor(geometry, module, design)
    x, y, dx, dy = path
    y += geometry.outline[module, 0]
    t = 0.0
    while t < 1.0:
        stop = next_event(sensor, (x, y, dx, dy), t)
        middle = 0.5 * (t + stop)
        channel0, channel1 = polar_channel(sensor, x + middle * dx, y + middle * dy)
        if (
            channel0 >= 0
            and n > 0
            and rows[n - 1, 0] == i
            and rows[n - 1, 1] == channel0
            and rows[n - 1, 2] == channel1
        ):
            rows[n - 1, 3] += (stop - t) * length
        elif channel0 >= 0:
            rows, n = _append(rows, n, i, channel0, channel1, (stop - t) * length)
        t = stop
    return rows, n


@compiled
def _add_to_channel(rows, n, first, hit, channel0, channel1, activation):
    """Add charge to a channel of a hit whose rows begin at `first`; return rows and their number."""
    for k in range(first, n):
        if rows[k, 1] == channel0 and rows[k, 2] == channel1:
            rows[k, 3] += activation
            return rows, n
    return _append(rows, n, hit, channel0, channel1, activation)


@compiled
def _walk(geometry, module, path, t, end, charge, rows, n, first, hit):
    """Divide a path from t to end, with `charge` per t, among the channels it crosses; return rows and their number.

    Rows from `first` on may have the channels already.
    """
    design = geometry.design[module]
    x, y, dx, dy = path
    min0 = geometry.minimum[design, 0] + geometry.shift[module, 0]
    min1 = geometry.minimum[design, 1] + geometry.shift[module, 1]
    pitch0, pitch1 = geometry.pitch[design]
    n0, n1 = geometry.n_channels[design]
    channel0 = _first_channel(x + t * dx, min0, pitch0, n0)
    channel1 = _first_channel(y + t * dy, min1, pitch1, n1)
    while t < end and 0 <= channel0 < n0 and 0 <= channel1 < n1:
        border0 = _next_border(channel0, min0, pitch0, x, dx)
        border1 = _next_border(channel1, min1, pitch1, y, dy)
        stop = min(end, border0, border1)
        if stop > t:
            rows, n = _add_to_channel(rows, n, first, hit, channel0, channel1, (stop - t) * charge)
            t = stop
        if border0 <= border1:
            channel0 += 1 if dx > 0.0 else -1
        else:
            channel1 += 1 if dy > 0.0 else -1
    return rows, n


@compiled
def _fly_delta_ray(geometry, module, start, direction, energy, azimuth, options, rows, n, first, hit):
    """Leave the charge of a delta ray that starts at (x, y, z) in the sensor; return rows and their number."""
    design = geometry.design[module]
    cosine, reach = delta_direction_cosine(energy), electron_range(energy)
    dx, dy, dz = turned_by(direction, cosine, azimuth)
    path = (start[0], start[1], reach * dx, reach * dy)
    low, high = _clip_to_sensor(geometry, module, design, path)
    half = 0.5 * geometry.thickness[design]
    low, high = _clip(low, high, start[2], reach * dz, half)
    low, high = _clip(low, high, -start[2], -reach * dz, half)
    if low > 0.0 or high <= 0.0:
        return rows, n
    charge = energy * geometry.charge.scale[design] if options.fluctuations else reach
    return _walk(geometry, module, path, 0.0, high, charge, rows, n, first, hit)


@compiled
def _fluctuate(geometry, hits, i, key, options, origin, rows, n, first):
    """Turn path lengths in the rows of a hit into charges and add delta rays; return rows and their number.

    `origin` is the point (x, y, z) in the sensor where the first row's path begins.
    """
    module = hits.module[i]
    design = geometry.design[module]
    scale, escape = geometry.charge.scale[design], geometry.charge.escape[design]
    du, dv, dw = hits.direction[i]
    norm = math.sqrt(du * du + dv * dv + dw * dw)
    direction = (du / norm, dv / norm, dw / norm)
    step = math.copysign(1.0, dw)  # the rows' path is that in the direction of w
    n_crossed, whole = n, 0.0
    for k in range(first, n):
        whole += rows[k, 3]
    transfers = transfers_in_silicon(hits.p[i], hits.mass[i], whole, options.fluctuations)
    number, begin = 0, 0.0
    identity, ordinal = hits.particle_id[i], hits.ordinal[i]
    place, energy, azimuth = next_transfer(transfers, key, identity, ordinal, number)
    for k in range(first, n_crossed):
        end = begin + rows[k, 3]
        if options.fluctuations:
            channel = int(rows[k, 2]) * geometry.n_channels[design, 0] + int(rows[k, 1])
            rows[k, 3] = scale * core_charge(transfers, rows[k, 3], key, identity, ordinal, channel)
        while place < end:
            if options.delta_rays and energy >= DELTA_RAY and not geometry.is_polar[module]:
                along = step * place
                x, y, z = direction
                start = (origin[0] + along * x, origin[1] + along * y, origin[2] + along * z)
                rows, n = _fly_delta_ray(
                    geometry, module, start, direction, energy, azimuth, options, rows, n, first, i
                )
            elif options.fluctuations:
                rows[k, 3] += scale * min(energy, escape)
            number += 1
            path, energy, azimuth = next_transfer(transfers, key, identity, ordinal, number)
            place += path
        begin = end
    if geometry.is_digital[design]:
        for k in range(n_crossed, n):
            if rows[k, 3] < _LEAST_DELTA * geometry.thickness[design]:
                rows[k, 3] = 0.0
    return rows, n


@compiled
def _smear(geometry, hits, i, key, rows, n, first):
    """Add the noise of their electronics to the charges of a hit."""
    design = geometry.design[hits.module[i]]
    for k in range(first, n):
        draw = int(rows[k, 2]) * geometry.n_channels[design, 0] + int(rows[k, 1])
        rows[k, 3] = _smeared(rows[k, 3], geometry.smearing[design], hits, i, draw, key)


@compiled
def _divide_path(geometry, hits, i, key, options, rows, n):
    """Append the channels that hit `i` crosses, in the order of its path, then those of its delta rays."""
    module, first = hits.module[i], n
    design = geometry.design[module]
    du, dv, dw = hits.direction[i]
    norm = math.sqrt(du * du + dv * dv + dw * dw)
    if abs(dw) < _MIN_INCIDENCE * norm:
        return rows, n
    thickness = geometry.thickness[design]
    dx, dy, length = thickness * du / dw, thickness * dv / dw, thickness * norm / abs(dw)
    x, y = hits.local[i, 0] - 0.5 * dx, hits.local[i, 1] - 0.5 * dy
    t = 0.0
    if geometry.is_polar[module]:
        rows, n = _divide_polar(geometry, hits, i, (x, y, dx, dy), length, rows, n)
    else:
        t, end = _clip_to_sensor(geometry, module, design, (x, y, dx, dy))
        if t < end:
            rows, n = _walk(geometry, module, (x, y, dx, dy), t, end, length, rows, n, n, i)
    if n == first:
        return rows, n
    if options.fluctuations or options.delta_rays:
        origin = (x + t * dx, y + t * dy, (t - 0.5) * thickness)
        rows, n = _fluctuate(geometry, hits, i, key, options, origin, rows, n, first)
    _smear(geometry, hits, i, key, rows, n, first)
    return rows, n


@compiled_entry
def divide_paths(geometry, hits, key, options):
    """Return rows (hit, channel0, channel1, activation [mm]), float64, ordered by hit."""
    rows = np.empty((_FIRST_CAPACITY, 4))
    n = 0
    for i in range(len(hits.module)):
        rows, n = _divide_path(geometry, hits, i, key, options, rows, n)
    return rows[:n].copy()
