"""Secrets that are known again wherever they turn up, and looking for them. Shares nothing with the product.

A canary has a name and a value. `Cage` looks for all of them in whatever it is shown, plainly and in the
forms that programs write texts in. `control` is one that is no secret: it is let out on purpose, and must be
found, or the search is worth nothing.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

HARD = "/+&=%?#:;@é \"'\\<$>"  # what URLs, JSON, shells and HTML write in another way
SHORTEST = 8  # characters of a form; what is shorter stands everywhere by chance


def word(length: int = 24) -> str:
    """Letters and digits that stand nowhere by chance."""
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=length))


def hard() -> str:
    """A value that looks otherwise in every encoding."""
    return f"{word(10)}{HARD}{word(10)}"


def forms(value: str) -> dict[str, str]:
    """The value as it may be written, by the name of the way."""
    lines = [line.strip() for line in value.splitlines()]
    found = {f"line {number}": line for number, line in enumerate(lines) if len(line) >= SHORTEST}
    for name, text in list(found.items()) if len(found) == 1 else [("whole", value.strip()), *found.items()]:
        for way, encoded in _encoded(text):
            if len(encoded) >= SHORTEST:
                found[f"{name}, {way}"] = encoded
    return found


def _encoded(text: str) -> Iterator[tuple[str, str]]:
    data = text.encode()
    for part in re.findall(rf"[A-Za-z0-9]{{{SHORTEST},}}", text):
        yield f"a part, {part}", part  # as it is in nearly every encoding
    yield "in a URL", quote(text)
    yield "in a URL, all of it", quote(text, safe="")
    yield "in a form", quote_plus(text)
    yield "in a URL, small letters", re.sub("%..", lambda match: match[0].lower(), quote(text, safe=""))
    yield "in JSON", json.dumps(text)[1:-1]
    yield "in JSON, as it is", json.dumps(text, ensure_ascii=False)[1:-1]
    yield "in Python", repr(text)[1:-1]
    yield "in hex", data.hex()
    for shift in range(3):
        # The first and the last characters also depend on the neighbours: what is between does not.
        for name, encode in (("base64", b64encode), ("base64 for URLs", urlsafe_b64encode)):
            whole = encode(b"\0" * shift + data).decode().rstrip("=")
            yield f"in {name} from {shift}", whole[(8 * shift + 5) // 6 : 8 * (shift + len(data)) // 6]


class Cage:
    """`secrets`: canaries that must be nowhere, by name. Safe from several threads."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.control = f"control{word()}"
        self.needles = {
            form.encode(): f"{name} ({way})"
            for name, value in secrets.items()
            for way, form in forms(value).items()
        }
        self.found: list[str] = []  # what should not be: place, canary, form
        self.seen: set[str] = set()  # kinds of places in which the control was seen

    def look(self, kind: str, place: str, data: bytes | str) -> None:
        """Look in what was found at a place of this kind."""
        data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        if self.control.encode() in data:
            self.seen.add(kind)
        for needle, what in self.needles.items():
            if needle in data:
                self.found.append(f"{kind}: {place}: {what}")

    def look_at_files(self, kind: str, root: Path, but: Iterable[Path] = ()) -> None:
        """All files below a folder, whatever they are; links are texts."""
        spared = tuple(but)
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in spared]
            for name in names:
                path = here / name
                if path in spared:
                    continue
                with suppress(OSError):  # gone, or not ours to read
                    self.look(f"{kind}: names", str(path), str(path.relative_to(root)))
                    if path.is_symlink():
                        self.look(kind, str(path), str(path.readlink()))
                    elif path.is_file():
                        self.look(kind, str(path), path.read_bytes())

    @contextmanager
    def watching_processes(
        self, mine: Callable[[Mapping[bytes, bytes]], bool], every: float = 0.1
    ) -> Iterator[None]:
        """Look at the arguments of all processes of this machine, and of the containers on it, of each once;
        and at the environments of those that are not `mine`: which may have secrets."""
        ended = threading.Event()
        known: dict[str, bytes] = {}

        def watch() -> None:
            while not ended.wait(every):
                self._look_at_processes(mine, known)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look_at_processes(
        self, mine: Callable[[Mapping[bytes, bytes]], bool], known: dict[str, bytes]
    ) -> None:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            with suppress(OSError):
                place = Path("/proc", pid)
                arguments = (place / "cmdline").read_bytes()
                if known.get(pid) == arguments:
                    continue
                self.look("ps", f"{pid}: {arguments[:200]!r}", arguments)
                environment = (place / "environ").read_bytes()
                pairs = dict(entry.partition(b"=")[::2] for entry in environment.split(b"\0"))
                if not mine(pairs):
                    self.look("environments", f"{pid}: {arguments[:200]!r}", environment)
                known[pid] = arguments

    def empty(self) -> None:
        """Fail where a canary was found."""
        assert not self.found, "\n".join(sorted(set(self.found)))
