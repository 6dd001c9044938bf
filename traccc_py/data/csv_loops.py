"""The compiled loops that read and write plain tables of numbers; what is not plain they leave to others.

They give what Python gives, to the bit: numbers are read and written with at most one rounding, and where that is not
possible the loops say so.

References
----------
Exact products: T. J. Dekker, Numer. Math. 18 (1971) 224. Reading with one rounding: W. D. Clinger, PLDI 1990.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from traccc_py.device.cpu.host_loop import host_function, host_loop, read_only

__all__ = ["REAL", "SIGNED", "SKIPPED", "UNSIGNED", "WIDEST", "parse_rows", "write_rows"]

SKIPPED, SIGNED, UNSIGNED, REAL = range(4)  #: kinds of columns
WIDEST = 21  #: bytes that a value may take, with its comma

_COMMA, _NEWLINE, _RETURN, _MINUS, _PLUS, _POINT, _ZERO, _E, _N, _A, _I, _F = (ord(c) for c in ",\n\r-+.0enaif")
_POWERS = np.array([float(f"1e{k}") for k in range(23)])  # those that float64 has exactly
_MOST_POWER = len(_POWERS) - 1
_EXACT = np.uint64(1 << 53)  # integers up to it are float64 numbers
_LARGEST_TENTH, _LARGEST_DIGIT = np.uint64((2**64 - 1) // 10), np.uint64((2**64 - 1) % 10)
_SPLIT = 134217729.0  # 2^27 + 1
_DIGITS = 9  # which tell every float32 from its neighbours
_LOWEST, _HIGHEST = 10.0 ** (_DIGITS - 1), 10.0**_DIGITS
_LOG10_2 = math.log10(2.0)
_HALF, _NEAR_HALF = 0.5, 1e-5
_LEAST_FIXED = -4  # power of ten from which %g writes numbers without an exponent
_TWO_DIGITS = 99
_MOST_EXPONENT = np.uint64(100)
_BAD = -1


@host_function
def _integer(raw, at):
    """Return the digits at a place as a number, and the place behind them; that is negative if it is too large."""
    value, begin = np.uint64(0), at
    while True:
        digit = np.uint64(raw[at]) - np.uint64(_ZERO)  # of what is no digit it is large
        if digit > np.uint64(9):
            break
        if value > _LARGEST_TENTH or (value == _LARGEST_TENTH and digit > _LARGEST_DIGIT):
            return value, _BAD
        value = value * np.uint64(10) + digit
        at += 1
    return value, at if at > begin else _BAD


@host_function
def _number(raw, at):
    """Return the number at a place, and the place behind it, negative if more than one rounding were needed."""
    is_negative = raw[at] == _MINUS
    if is_negative:
        at += 1
    if raw[at] == _N and raw[at + 1] == _A and raw[at + 2] == _N and not is_negative:
        return math.nan, at + 3
    value, power, begin, n_points = np.uint64(0), 0, at, 0
    while True:
        digit = np.uint64(raw[at]) - np.uint64(_ZERO)
        if digit <= np.uint64(9):
            value = value * np.uint64(10) + digit
            power -= n_points
        elif raw[at] == _POINT and n_points == 0:
            n_points = 1
        else:
            break
        if value > _EXACT:
            return 0.0, _BAD
        at += 1
    if at - begin <= n_points:
        return 0.0, _BAD
    if raw[at] == _E:
        at += 1
        falls = raw[at] == _MINUS
        if falls or raw[at] == _PLUS:
            at += 1
        exponent, at = _integer(raw, at)
        if at < 0 or exponent > _MOST_EXPONENT:
            return 0.0, _BAD
        power += -np.int64(exponent) if falls else np.int64(exponent)
    if abs(power) > _MOST_POWER:
        return 0.0, _BAD
    number = float(value) * _POWERS[power] if power >= 0 else float(value) / _POWERS[-power]
    return -number if is_negative else number, at


@host_function
def _end_of_value(raw, at):
    while raw[at] != _COMMA and raw[at] != _NEWLINE:
        at += 1
    return at


_U8, _I64, _F64 = read_only(np.uint8), read_only(np.int64), read_only(np.float64)
_WHOLE, _REAL = np.empty((0, 0), np.uint64), np.empty((0, 0), np.float64)


@host_loop([(_U8, 0, _I64, _I64, np.empty(0, np.int64), _WHOLE, _REAL)])
def parse_rows(raw: Any, at: int, kinds: Any, places: Any, n_negative: Any, whole: Any, real: Any) -> bool:
    """Read all rows of a table.

    Parameters
    ----------
    raw : ndarray of shape (n_bytes,), uint8
        The text, with a line break at its end.
    at : int
        Where the first row begins.
    kinds : ndarray of shape (n_fields,), int64
        Of each field: `SKIPPED`, `UNSIGNED` (an integer of either sign) or `REAL`.
    places : ndarray of shape (n_fields,), int64
        Its row in `whole` or `real`.
    n_negative : ndarray of shape (n_whole,), int64
        Gets how many integers of a column are negative; they are written as int64.
    whole, real : ndarray of shape (n_whole, n_rows) or (n_real, n_rows), uint64 or float64
        Get the values; at least one of them has a row.

    Returns
    -------
    bool
        Whether each line has the fields, and each value is plain. If not, what was read means nothing.
    """
    n_rows = max(whole.shape[1], real.shape[1])
    last = len(kinds) - 1
    for row in range(n_rows):
        for field in range(last + 1):
            kind, place = kinds[field], places[field]
            if kind == SKIPPED:
                at = _end_of_value(raw, at)
            elif kind == REAL:
                real[place, row], at = _number(raw, at)
            else:
                is_negative = raw[at] == _MINUS
                value, at = _integer(raw, at + 1 if is_negative else at)
                if is_negative:
                    n_negative[place] += 1
                    if value > np.uint64(1 << 62):
                        return False
                    value = np.uint64(-np.int64(value))
                whole[place, row] = value
            if at < 0:
                return False
            if field < last:
                if raw[at] != _COMMA:
                    return False
            else:
                if raw[at] == _RETURN:
                    at += 1
                if raw[at] != _NEWLINE:
                    return False
            at += 1
    return at == len(raw)


@host_function
def _error_of_product(product, a, b):
    """Return a * b - product, exactly."""
    c, d = _SPLIT * a, _SPLIT * b
    a_high, b_high = c - (c - a), d - (d - b)
    a_low, b_low = a - a_high, b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@host_function
def _scaled(value, power):
    """Return value * 10^power, what was rounded off (its sign), and whether that is known."""
    if 0 <= power <= _MOST_POWER:
        product = value * _POWERS[power]
        return product, _error_of_product(product, value, _POWERS[power]), True
    if -_MOST_POWER <= power < 0:
        quotient = value / _POWERS[-power]
        return quotient, -_error_of_product(value, quotient, _POWERS[-power]), True
    if _MOST_POWER < power <= 2 * _MOST_POWER:
        return value * _POWERS[_MOST_POWER] * _POWERS[power - _MOST_POWER], 0.0, False
    return 0.0, 0.0, False


@host_function
def _nine_digits(value):
    """Return a positive number as nine digits and the power of ten of the first; -1 if they may be others."""
    _, binary = math.frexp(value)
    power = math.floor((binary - 1) * _LOG10_2)
    scaled, error, is_exact = _scaled(value, _DIGITS - 1 - power)
    if scaled >= _HIGHEST:
        power += 1
        scaled, error, is_exact = _scaled(value, _DIGITS - 1 - power)
    if not (_LOWEST <= scaled < _HIGHEST):
        return _BAD, 0
    digits = np.int64(scaled)
    rest = scaled - digits
    if not is_exact and abs(rest - _HALF) < _NEAR_HALF:
        return _BAD, 0
    if rest > _HALF or (rest == _HALF and (error > 0 or (error == 0 and digits % 2 == 1))):
        digits += 1
    if digits == np.int64(_HIGHEST):
        digits, power = np.int64(_LOWEST), power + 1
    return digits, power


@host_function
def _put_digits(out, at, digits, n_digits, n_before_point):
    """Write digits with a point among them; return the place behind them."""
    end = at + n_digits + (1 if 0 < n_before_point < n_digits else 0)
    place = end - 1
    for k in range(n_digits):
        if n_digits - k == n_before_point and k > 0:
            out[place] = _POINT
            place -= 1
        out[place] = _ZERO + digits % 10
        digits //= 10
        place -= 1
    return end


@host_function
def _put_whole(out, at, value):
    """Write an unsigned integer; return the place behind it."""
    n, rest = 1, value // np.uint64(10)
    while rest > np.uint64(0):
        n += 1
        rest //= np.uint64(10)
    for k in range(n):
        out[at + n - 1 - k] = _ZERO + np.int64(value % np.uint64(10))
        value //= np.uint64(10)
    return at + n


@host_function
def _put_exponent(out, at, power):
    out[at] = _E
    out[at + 1] = _MINUS if power < 0 else _PLUS
    power = abs(power)
    if power > _TWO_DIGITS:
        out[at + 2] = _ZERO + power // 100
        at += 1
    out[at + 2] = _ZERO + power // 10 % 10
    out[at + 3] = _ZERO + power % 10
    return at + 4


@host_function
def _put_real(out, at, value):
    """Write a number as ``%.9g``; return the place behind it, negative if its digits are not certain."""
    if math.isnan(value):
        out[at], out[at + 1], out[at + 2] = _N, _A, _N
        return at + 3
    if math.copysign(1.0, value) < 0:
        out[at] = _MINUS
        at += 1
    if math.isinf(value):
        out[at], out[at + 1], out[at + 2] = _I, _N, _F
        return at + 3
    if value == 0:
        out[at] = _ZERO
        return at + 1
    digits, power = _nine_digits(abs(value))
    if digits < 0:
        return _BAD
    n = _DIGITS
    while digits % 10 == 0:
        digits //= 10
        n -= 1
    if power < _LEAST_FIXED or power >= _DIGITS:
        return _put_exponent(out, _put_digits(out, at, digits, n, 1), power)
    if power >= n:
        for _ in range(power + 1 - n):
            digits *= 10
        return _put_digits(out, at, digits, power + 1, 0)
    if power >= 0:
        return _put_digits(out, at, digits, n, power + 1)
    out[at] = _ZERO
    out[at + 1] = _POINT
    at += 2
    for _ in range(-power - 1):
        out[at] = _ZERO
        at += 1
    return _put_digits(out, at, digits, n, 0)


@host_loop([(_I64, _I64, _WHOLE, _REAL, np.empty(0, np.uint8))])
def write_rows(kinds: Any, places: Any, whole: Any, real: Any, out: Any) -> int:
    """Write rows as lines: integers, and reals as ``%.9g``.

    Parameters
    ----------
    kinds : ndarray of shape (n_columns,), int64
        Of each column: `SIGNED`, `UNSIGNED` or `REAL`.
    places : ndarray of shape (n_columns,), int64
        Its row in `whole` or `real`.
    whole, real : ndarray of shape (n_whole, n_rows) or (n_real, n_rows), uint64 or float64
        The values; signed ones in the bits of int64. At least one of them has a row.
    out : ndarray of shape (n_rows * n_columns * WIDEST,), uint8
        Gets the lines.

    Returns
    -------
    int
        Number of bytes; negative if there is a value that can't be written with certainty.
    """
    n_rows = max(whole.shape[1], real.shape[1])
    at = 0
    for row in range(n_rows):
        for column in range(len(kinds)):
            kind, place = kinds[column], places[column]
            if kind == REAL:
                at = _put_real(out, at, real[place, row])
                if at < 0:
                    return _BAD
            else:
                value = whole[place, row]
                if kind == SIGNED and np.int64(value) < 0:
                    out[at] = _MINUS
                    at += 1
                    value = np.uint64(-np.int64(value))
                at = _put_whole(out, at, value)
            out[at] = _COMMA
            at += 1
        out[at - 1] = _NEWLINE
    return at
