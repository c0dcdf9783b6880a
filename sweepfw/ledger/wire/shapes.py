"""How values are written as JSON data and read again, put together from parts.

Loading checks: what does not have the agreed form is refused, with a word on where. Records are objects with
their fields' names; unknown ones are left out, and lacking ones get their defaults, so that versions can mix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple


class MisshapenError(ValueError):
    """What came does not have the agreed form."""


class Form(NamedTuple):
    """How a value is written as JSON data, and read again; `load` raises MisshapenError."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]
    names: Collection[str] = ()  # a record's fields that have a form of their own


def _same(value: Any) -> Any:
    return value


def _only(word: str, *kinds: type) -> Form:
    def load(value: Any) -> Any:
        if type(value) not in kinds:
            raise MisshapenError(f"should be {word}, not {type(value).__name__}")
        return value

    return Form(_same, load)


ANY = Form(_same, _same)
TEXT = _only("text", str)
WHOLE = _only("a whole number", int)
REAL = _only("a number", int, float)
FLAG = _only("true or false", bool)
PLAIN = Form(dict, _only("an object", dict).load)  # what is JSON already


def within(form: Form, least: float, most: float) -> Form:
    """Numbers from `least` to `most`: what is no number (NaN) is not among them."""

    def load(value: Any) -> Any:
        if not least <= form.load(value) <= most:
            raise MisshapenError(f"should be from {least:g} to {most:g}")
        return value

    return Form(form.dump, load)


def one_of(*words: str) -> Form:
    def load(value: Any) -> Any:
        if value not in words:
            raise MisshapenError(f"should be one of {', '.join(words)}")
        return value

    return Form(_same, load)


def maybe(form: Form) -> Form:
    return Form(
        lambda value: None if value is None else form.dump(value),
        lambda value: None if value is None else form.load(value),
    )


def many(form: Form, into: Callable[[Iterable[Any]], Any] = list) -> Form:
    plain = form.dump is _same

    def load(value: Any) -> Any:
        if type(value) is not list:
            raise MisshapenError(f"should be a list, not {type(value).__name__}")
        return into([form.load(item) for item in value])

    return Form(lambda items: list(items) if plain else [form.dump(item) for item in items], load)


def mapping(form: Form) -> Form:
    def load(value: Any) -> Any:
        return {name: form.load(item) for name, item in PLAIN.load(value).items()}

    return Form(lambda items: {name: form.dump(item) for name, item in items.items()}, load)


def row(*forms: Form) -> Form:
    """A tuple whose items each have their own form."""

    def load(value: Any) -> Any:
        if type(value) is not list or len(value) != len(forms):
            raise MisshapenError(f"should be a list of {len(forms)}")
        return tuple(form.load(item) for form, item in zip(forms, value, strict=True))

    return Form(lambda items: [form.dump(item) for form, item in zip(forms, items, strict=True)], load)


def record(kind: Any, **forms: Form) -> Form:
    """A named tuple or a dataclass as an object."""
    names = tuple(f.name for f in fields(kind)) if is_dataclass(kind) else kind._fields
    pairs = [(name, forms.get(name, ANY)) for name in names]

    def dump(value: Any) -> Any:
        return {name: form.dump(getattr(value, name)) for name, form in pairs}

    def load(value: Any) -> Any:
        if type(value) is not dict:
            raise MisshapenError(f"should be an object, not {type(value).__name__}")
        return _make(kind, {name: _load(name, form, value[name]) for name, form in pairs if name in value})

    return Form(dump, load, set(forms))


def _load(name: str, form: Form, value: Any) -> Any:
    try:
        return form.load(value)
    except MisshapenError as error:
        raise MisshapenError(f"{name}: {error}") from None


def _make(kind: Any, found: dict[str, Any]) -> Any:
    try:
        return kind(**found)
    except TypeError:
        raise MisshapenError(f"it lacks what a {kind.__name__.lower()} has") from None


def members(form: Mapping[str, Form], data: Any) -> dict[str, Any]:
    """A call's arguments. Those that aren't known are left out."""
    if type(data) is not dict:
        raise MisshapenError("a call's arguments should be an object")
    if lacking := [name for name in form if name not in data]:
        raise MisshapenError(f"a call lacks {', '.join(lacking)}")
    return {name: _load(name, one, data[name]) for name, one in form.items()}
