"""Which keys hosts are known by: known_hosts files as OpenSSH reads them, and what a shown key means."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from fnmatch import fnmatchcase
from hashlib import sha1, sha256
from hmac import compare_digest
from hmac import digest as hmac
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from sweepfw.errors import SweepError, UnreachableError

Verdict: TypeAlias = Literal["known", "unknown", "changed", "revoked"]


class HostKey(NamedTuple):
    """A public key: `type` as in `ssh-ed25519`, `blob` its bytes."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it: `SHA256:…`."""
        return "SHA256:" + b64encode(sha256(self.blob).digest()).decode().rstrip("=")


class Entry(NamedTuple):
    """A line of a known_hosts file that concerns a host. `where`: file and line, for people."""

    key: HostKey
    revoked: bool
    where: str


class UnknownKeyError(UnreachableError):
    """A host showed a key that nobody vouched for. Nothing was sent. `accept` makes it known.

    `host` is the host (or jump host) as the user named it; `name` what known_hosts calls it.
    """

    def __init__(self, host: str, name: str, key: HostKey) -> None:
        self.host, self.name, self.key = host, name, key
        super().__init__(
            f"{host}: its key is not known, {key.type} {key.fingerprint}; compare it with what "
            f"`ssh-keygen -lf` says there, then --trust {host}={key.fingerprint}"
        )

    def accept(self, known_hosts: Path) -> None:
        """Add the key to the deployment's file: the person said yes."""
        add_key(known_hosts, self.name, self.key)


class ChangedKeyError(UnreachableError):
    """A host showed another key than the known one. Nothing was sent, and nobody is asked."""


def lookup_name(host: str, port: int, alias: str | None = None) -> str:
    """What known_hosts calls a host."""
    if alias:
        return alias
    return host if port == 22 else f"[{host}]:{port}"


def read_keys(files: Iterable[Path], name: str) -> list[Entry]:
    """What the files say of a host. A file that is not there says nothing; one that can't be read may hold
    a key that must not be taken, so that is an error."""
    found = []
    for file in files:
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SweepError(f"{file}: the known host keys can't be read ({error.strerror})") from None
        found += parse(text.decode(errors="replace"), name, str(file))
    return found


def parse(text: str, name: str, file: str = "known_hosts") -> list[Entry]:
    """The lines of a known_hosts file that concern this host. Authorities' lines (`@cert-authority`) are
    passed over: certificates are not asked for."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker not in {"", "@revoked"}:
            continue
        if _matches(words[0], name.lower()) and (key := _key(words[1], words[2])) is not None:
            found.append(Entry(key, bool(marker), f"{file}:{number}"))
    return found


def _key(type: str, encoded: str) -> HostKey | None:
    try:
        blob = b64decode(encoded, validate=True)
    except ValueError:
        return None
    inner = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    return HostKey(type, blob) if inner == type.encode(errors="replace") else None


def _matches(field: str, name: str) -> bool:
    """Whether a line's first field names the host: hashed, or patterns of which none with `!` matches."""
    if field.startswith("|"):
        return _hash_matches(field, name)
    matched = False
    for pattern in field.lower().split(","):
        # Only * and ? are special to OpenSSH; brackets stand around a name that has a port.
        wanted = pattern.lstrip("!").replace("[", "[[]")
        if fnmatchcase(name, wanted):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _hash_matches(field: str, name: str) -> bool:
    parts = field.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, wanted = b64decode(parts[2], validate=True), b64decode(parts[3], validate=True)
    except ValueError:
        return False
    return compare_digest(hmac(salt, name.encode(), sha1), wanted)


def judge(entries: Iterable[Entry], key: HostKey) -> Verdict:
    """What the key that a host shows means, by what is known of that host.

    A key of a type that is not known, of a host that other keys are known of, counts as changed: who sits
    between can always show another type.
    """
    verdict: Verdict = "unknown"
    for entry in entries:
        if entry.revoked:
            if entry.key == key:
                return "revoked"
        elif entry.key == key:
            verdict = "known"
        elif verdict == "unknown":
            verdict = "changed"
    return verdict


def known_types(entries: Iterable[Entry]) -> list[str]:
    """The types of key to ask the host for first."""
    return list(dict.fromkeys(entry.key.type for entry in entries if not entry.revoked))


def changed(host: str, entries: Iterable[Entry], key: HostKey, verdict: Verdict) -> ChangedKeyError:
    """The one line about a key that is not the known one."""
    if verdict == "revoked":
        return ChangedKeyError(
            f"{host}: its key {key.fingerprint} is marked as revoked; nothing was sent to it"
        )
    places = ", ".join(dict.fromkeys(entry.where for entry in entries if not entry.revoked))
    return ChangedKeyError(
        f"{host}: ITS KEY HAS CHANGED: it shows {key.type} {key.fingerprint}, not the one in {places}; "
        "somebody may sit between, so nothing was sent; if the machine was set up anew, delete that line"
    )


def add_key(known_hosts: Path, name: str, key: HostKey) -> None:
    """Add a line to the deployment's file, unless it stands there."""
    if judge(read_keys([known_hosts], name), key) == "known":
        return
    line = f"{name} {key.type} {b64encode(key.blob).decode()}\n"
    try:
        fd = os.open(known_hosts, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line.encode())  # one write: lines of several threads don't mix
        finally:
            os.close(fd)
    except OSError as error:
        raise SweepError(f"{known_hosts}: can't be written ({error.strerror})") from None
