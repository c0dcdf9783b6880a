"""Numbers, times, sizes and counts, as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence

_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def number(value: float) -> str:
    """Six significant digits: `0.123457`, `3`, `1.5e-07`, `nan`."""
    return f"{value:.6g}"


def duration(seconds: float) -> str:
    """`0.4s`, `12s`, `1m 12s`, `2h 05m`, `3d 04h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def age(seconds: float) -> str:
    """How long ago, in one unit: `12s`, `5m`, `3h`, `4d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def size(count: int) -> str:
    """Bytes in decimal units: `512 B`, `1.2 MB`."""
    if count < 1000:
        return f"{count} B"
    unit = next((unit for unit in _UNITS if count < 999.95 * _UNITS[unit]), "TB")
    return f"{count / _UNITS[unit]:.1f} {unit}"


def local_time(seconds: float) -> str:
    """A Unix time as the clock on the wall shows it: `2026-11-21 22:54:36`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers shortly: `1-3,7`."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
