"""A service over a real ledger and a small real desk, and clients of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from sweepfw.core.deployment import Advert, HeadStatus, LogPart, Orders
from sweepfw.core.model import Outcome, Receipt, Worker
from sweepfw.core.secrets import Secrets
from sweepfw.errors import SweepError
from sweepfw.ledger.client import Client, HttpDesk, HttpLedger
from sweepfw.ledger.service import Service
from sweepfw.ledger.store import SqliteLedger
from sweepfw.ledger.wire.methods import METHODS

PEOPLE = "people's token"
HOSTS = ("here", "elsewhere", "a", "b", "gpu1", "there", "other")


def token(host: str) -> str:
    return f"token of {host}"


@cache
def certificate(name: str = "head") -> tuple[str, str]:
    """A self-signed certificate and its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), private.decode()


class FolderDesk:
    """A desk on a folder, as simple as it can be; packs are kept as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.calls: list[tuple[Any, ...]] = []

    def announce(self, worker: Worker, advert: Advert) -> None:
        self.calls.append(("announce", worker, advert))

    def orders(self, worker: Worker, seen: int, wait: float, *, connected: bool = True) -> Orders:
        self.calls.append(("orders", worker, seen, wait, connected))
        return Orders(seen + 1, {"t": "stop now"}, True, ("digits-1",))

    def environment_lock(self, uid: str, snapshot: str, text: str | None) -> str | None:
        file = self.folder / f"lock-{uid}"
        if text is not None and not file.exists():
            file.write_text(text)
        return file.read_text() if file.exists() else None

    def lacks(self, digests: Collection[str]) -> set[str]:
        return {digest for digest in digests if not (self.folder / digest).exists()}

    def put_contents(self, pack: IO[bytes]) -> None:
        self._store("contents", pack)

    def put_manifest(self, id: str, text: bytes) -> None:
        (self.folder / f"manifest-{sha256(id.encode()).hexdigest()}").write_bytes(text)

    def manifest(self, id: str) -> bytes:
        file = self.folder / f"manifest-{sha256(id.encode()).hexdigest()}"
        if not file.exists():
            raise SweepError("no such snapshot")
        return file.read_bytes()

    def contents(self, digests: Collection[str]) -> Iterator[bytes]:
        if "nosuch" in digests or not (self.folder / "contents").exists():
            raise SweepError("no content nosuch")
        return _pieces(self.folder / "contents")

    def keep(self, token: str, pack: IO[bytes]) -> None:
        self._store(f"kept-{token}", pack)

    def conclude(
        self, token: str, offset: int, log: bytes, files: Mapping[str, bytes], outcome: Outcome
    ) -> Receipt:
        self.calls.append(("conclude", token, offset, log, files, outcome))
        return Receipt(True, False, "cancelled")

    def put_checkpoint(self, token: str, pack: IO[bytes]) -> bool:
        self._store(f"checkpoint-{token}", pack)
        return True

    def checkpoint(self, token: str) -> Iterator[bytes] | None:
        file = self.folder / f"checkpoint-{token}"
        return _pieces(file) if file.exists() else None

    def put_secrets(self, uid: str, values: Mapping[str, bytes]) -> None:
        self.given = Secrets(values)

    def secrets(self, token: str) -> Secrets:
        return self.given

    def read_log(self, uid: str, trial: int, attempt: int, offset: int, wait: float = 0) -> LogPart:
        return LogPart(bytes(range(256))[offset:], ended=True)

    def files(self, uid: str, trial: int, attempt: int) -> dict[str, int]:
        return {"a b/\u00e9": 3}

    def file(self, uid: str, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        if path != "a b/\u00e9":
            raise SweepError(f"no file {path}")
        return iter([b"one", b"", b"two"])

    def forget(self, uid: str) -> None:
        self.calls.append(("forget", uid))

    def drain(self, host: str, *, off: bool = False) -> None:
        self.calls.append(("drain", host, off))

    def status(self) -> HeadStatus:
        return HeadStatus("lab", "u", "1", 1.5, True, 0, 0)

    def _store(self, name: str, pack: IO[bytes]) -> None:
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            while piece := pack.read(65_536):
                file.write(piece)
        part.rename(self.folder / name)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(100_000):
            yield piece


class Head:
    """A service that runs, on a port of its own."""

    def __init__(self, folder: Path, *, port: int = 0, desk: Any = None, ledger: Any = None) -> None:
        self.ledger = ledger or SqliteLedger(folder / "ledger.db", folder / "runs")
        self.desk: Any = desk or FolderDesk(folder / "desk")
        self.reports: list[str] = []
        pem, key = certificate()
        (folder / "cert.pem").write_text(pem)
        (folder / "key.pem").write_text(key)
        self.service = Service(
            self.ledger,
            self.desk,
            address=("127.0.0.1", port),
            certificate=folder / "cert.pem",
            key=folder / "key.pem",
            people=PEOPLE,
            workers={host: token(host) for host in HOSTS},
            report=self.reports.append,
        )
        self.service.start()
        self.address = self.service.address

    def connect(self, seconds: float = 60) -> socket.socket:
        return socket.create_connection(self.address, timeout=seconds)

    def client(self, host: str | None = None, **options: Any) -> Client:
        """Of a host's worker, or of people."""
        shown = PEOPLE if host is None else token(host)
        given = {"connect": self.connect, "patience": 60, **options}
        return Client(certificate=certificate()[0], token=shown, **given)

    def stop(self) -> None:
        self.service.stop()
        self.ledger.disconnect()


class Door:
    """All of a ledger's methods over HTTP, each asked by one who may: people, or the worker it is about."""

    def __init__(self, folder: Path) -> None:
        self._head = Head(folder)
        self._people = HttpLedger(self._head.client())
        self._clients = [self._people]
        self._workers: dict[str, HttpLedger] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = METHODS.get(f"ledger/{name}")
        if method is not None and method.who == "worker":
            return partial(self._as_worker, name)
        found: Callable[..., Any] = getattr(self._people, name)
        return found

    def _as_worker(self, name: str, *given: Any, **named: Any) -> Any:
        workers = [part.host for part in (*given, *named.values()) if isinstance(part, Worker)]
        host = workers[0] if workers else self._head.ledger.host_of(given[0]) or HOSTS[0]
        if host not in self._workers:
            self._workers[host] = HttpLedger(self._head.client(host))
        return getattr(self._workers[host], name)(*given, **named)

    def disconnect(self) -> None:
        for ledger in (self._people, *self._workers.values()):
            ledger.disconnect()
        self._head.stop()


def desk_of(client: Client) -> HttpDesk:
    return HttpDesk(client)
