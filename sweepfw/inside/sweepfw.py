"""What a trial's own code can import: `import sweepfw; sweepfw.report(loss=0.2, step=3)`.

This one file stands on the trial's PYTHONPATH. It works in any Python from 3.8 on and brings nothing
else of ours, so that a trial's environment stays the user's own.
"""

from __future__ import annotations

import os

__all__ = ["params", "report"]


def report(step: object = None, **metrics: object) -> None:
    """Report numbers, such as `report(loss=0.2, val_accuracy=0.9, step=3)`. Outside a trial: does nothing.

    Whatever `float()` takes is a number: also numpy's and torch's scalars, True and False. NaN and infinity
    are kept as such. Raises TypeError naming what is no number, OSError where the disk is full.
    Threads and processes of a trial may report at the same time.
    """
    path = os.environ.get("SWEEPFW_METRICS")
    if not path or not metrics:
        return
    import json

    point = {} if step is None else {"step": _step(step)}
    for name, value in metrics.items():
        point[name] = _plain(_number(name, value))
    _append(path, (json.dumps(point) + "\n").encode())


def params() -> dict[str, object]:
    """This trial's parameters, numbers as numbers; {} outside a trial, so that defaults can stand below."""
    path = os.environ.get("SWEEPFW_PARAMS")
    if not path:
        return {}
    import json

    with open(path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib takes 10 ms to import
        found: dict[str, object] = json.load(file)
    return found


def _number(name: str, value: object) -> float:
    if not isinstance(value, (str, bytes, bytearray)):  # float("3") would work, but it is a mistake
        try:
            return float(value)  # type: ignore[arg-type]  # whatever float() takes; all else is caught
        except (TypeError, ValueError, OverflowError):
            pass
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise TypeError(f"sweepfw.report: {name} must be a number, not {type(value).__name__} {shown}")


def _step(value: object) -> float | str:
    number = _number("step", value)
    return int(number) if number.is_integer() else _plain(number)


def _plain(number: float) -> float | str:
    # JSON has no word for these, and other programs should be able to read the file.
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(number), number)


def _append(path: str, line: bytes) -> None:
    """Add the line at the end, whole: one write in append mode, so that lines of others don't mix with it."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        while line:  # a second round only where the disk fills up: it raises
            line = line[os.write(file, line) :]
    finally:
        os.close(file)
