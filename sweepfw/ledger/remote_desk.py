"""The desk's second door, from outside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import IO

from sweepfw.core.deployment import Advert, HeadStatus, LogPart, Orders
from sweepfw.core.model import Outcome, Receipt, Worker
from sweepfw.core.secrets import Secrets
from sweepfw.ledger.wire.caller import Client


class HttpDesk:
    """`desk.Desk` over a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._call = client.call

    def announce(self, worker: Worker, advert: Advert) -> None:
        self._call("desk/announce", worker=worker, advert=advert)

    def orders(self, worker: Worker, seen: int, wait: float, *, connected: bool = True) -> Orders:
        orders: Orders = self._call("desk/orders", worker=worker, seen=seen, wait=wait, connected=connected)
        return orders

    def environment_lock(self, uid: str, snapshot: str, text: str | None) -> str | None:
        lock: str | None = self._call("desk/environment_lock", uid=uid, snapshot=snapshot, text=text)
        return lock

    def lacks(self, digests: Collection[str]) -> set[str]:
        lacking: set[str] = self._call("desk/lacks", digests=digests)
        return lacking

    def put_contents(self, pack: IO[bytes]) -> None:
        self._call("desk/put_contents", body=pack)

    def put_manifest(self, id: str, text: bytes) -> None:
        self._call("desk/put_manifest", body=text, id=id)

    def manifest(self, id: str) -> bytes:
        text: bytes = self._call("desk/manifest", id=id)
        return text

    def contents(self, digests: Collection[str]) -> Iterator[bytes]:
        return self._client.stream("desk/contents", digests=digests) or iter(())

    def keep(self, token: str, pack: IO[bytes]) -> None:
        self._call("desk/keep", body=pack, token=token)

    def conclude(
        self, token: str, offset: int, log: bytes, files: Mapping[str, bytes], outcome: Outcome
    ) -> Receipt:
        receipt: Receipt = self._call(
            "desk/conclude", token=token, offset=offset, log=log, files=files, outcome=outcome
        )
        return receipt

    def put_checkpoint(self, token: str, pack: IO[bytes]) -> bool:
        stored: bool = self._call("desk/put_checkpoint", body=pack, token=token)
        return stored

    def checkpoint(self, token: str) -> Iterator[bytes] | None:
        return self._client.stream("desk/checkpoint", token=token)

    def put_secrets(self, uid: str, values: Mapping[str, bytes]) -> None:
        self._call("desk/put_secrets", uid=uid, values=values)

    def secrets(self, token: str) -> Secrets:
        values: Secrets = self._call("desk/secrets", token=token)
        return values

    def read_log(self, uid: str, trial: int, attempt: int, offset: int, wait: float = 0) -> LogPart:
        part: LogPart = self._call(
            "desk/read_log", uid=uid, trial=trial, attempt=attempt, offset=offset, wait=wait
        )
        return part

    def files(self, uid: str, trial: int, attempt: int) -> dict[str, int]:
        files: dict[str, int] = self._call("desk/files", uid=uid, trial=trial, attempt=attempt)
        return files

    def file(self, uid: str, trial: int, attempt: int, path: str) -> Iterator[bytes]:
        found = self._client.stream("desk/file", uid=uid, trial=trial, attempt=attempt, path=path)
        return found or iter(())

    def forget(self, uid: str) -> None:
        self._call("desk/forget", uid=uid)

    def drain(self, host: str, *, off: bool = False) -> None:
        self._call("desk/drain", host=host, off=off)

    def status(self) -> HeadStatus:
        status: HeadStatus = self._call("desk/status")
        return status
