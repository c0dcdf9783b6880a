"""A deployment's secrets: made once on the user's machine, kept there for their owner only."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from sweepfw.config.private import read_private, write_private
from sweepfw.core.command import Secret
from sweepfw.errors import SweepError

FLOWER_USER = "sweepfw"
_YEARS = 10
_CLOCKS_APART = 2  # days that a host's clock may be behind


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An SSH key in OpenSSH's own forms. `public` is `ssh-ed25519 AAAA…`, without a comment."""

    private: Secret
    public: str


@dataclass(frozen=True, slots=True)
class WorkerCredentials:
    """One worker host's: its token at the service, and the host key of the sshd in its container."""

    token: Secret
    host_key: KeyPair


@dataclass(frozen=True, slots=True)
class Credentials:
    """All of a deployment's. `outer` opens the forced command on worker hosts, `inner` the sshd behind it.

    `broker_salt` (8 hex digits) keeps the hashes of its passwords the same from one `up` to the next.
    """

    people: Secret  # the command line's token at the service
    broker_head: Secret
    broker_worker: Secret
    broker_flower: Secret
    broker_salt: str
    flower_password: Secret
    certificate: str  # the service's, PEM
    certificate_key: Secret  # PEM
    outer: KeyPair
    inner: KeyPair
    workers: Mapping[str, WorkerCredentials]  # by host


def ensure_credentials(path: Path, workers: Collection[str]) -> Credentials:
    """Those in the file; made and saved where they are missing. A new host adds only its own; a host that
    is no longer named keeps its own in the file, and is left out of what is returned."""
    data = _read(path) if path.exists() else _made()
    missing = [host for host in workers if host not in data["workers"]]
    if missing or not path.exists():
        data["workers"] |= {host: {"token": _token(), "host_key": _key_pair()} for host in missing}
        write_private(path, (json.dumps(data, indent=1) + "\n").encode())
    return _credentials(data, workers)


def load_credentials(path: Path) -> Credentials:
    """Those in the file. SweepError where there are none, or where others can read them."""
    data = _read(path)
    return _credentials(data, data["workers"])


def head_reader(path: Path) -> tuple[str, Secret]:
    """The service's certificate and the command line's token alone: all that `reach` needs."""
    data = _read(path)
    return data["certificate"], Secret(data["people"])


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(read_private(path))
        if set(data) != _KEYS:
            raise ValueError("keys are missing")
    except ValueError:  # whose text could hold a part of the file
        raise SweepError(
            f"{path}: is not as sweepfw wrote it; restore it, or bring the deployment down and up anew"
        ) from None
    return data


_KEYS = {*Credentials.__annotations__}


def _credentials(data: Mapping[str, Any], workers: Collection[str]) -> Credentials:
    plain = {"broker_salt", "certificate", "outer", "inner", "workers"}
    secrets: dict[str, Any] = {key: Secret(text) for key, text in data.items() if key not in plain}
    own = {host: data["workers"][host] for host in workers}
    return Credentials(
        broker_salt=data["broker_salt"],
        certificate=data["certificate"],
        outer=_pair(data["outer"]),
        inner=_pair(data["inner"]),
        workers={
            host: WorkerCredentials(Secret(w["token"]), _pair(w["host_key"])) for host, w in own.items()
        },
        **secrets,
    )


def _pair(data: Mapping[str, str]) -> KeyPair:
    return KeyPair(Secret(data["private"]), data["public"])


# -- making --------------------------------------------------------------------------------------------


def _made() -> dict[str, Any]:
    from secrets import token_hex

    certificate, key = _self_signed()
    return {
        "people": _token(),
        "broker_head": _token(),
        "broker_worker": _token(),
        "broker_flower": _token(),
        "broker_salt": token_hex(4),
        "flower_password": _token(12),
        "certificate": certificate,
        "certificate_key": key,
        "outer": _key_pair(),
        "inner": _key_pair(),
        "workers": {},
    }


def _token(size: int = 32) -> str:
    """Hex digits only: fit for headers, addresses, arguments and files as it is."""
    from secrets import token_hex

    return token_hex(size)


def _key_pair() -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return {"private": private.decode(), "public": public.decode()}


def _self_signed() -> tuple[str, str]:
    """The service's certificate and its key. Who pins it asks for no name in it, nor for an authority."""
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sweepfw head")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=_CLOCKS_APART))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("head")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_uses(), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _uses() -> Any:
    """What the certificate is for, without which strict clients refuse it."""
    from cryptography import x509

    fields = (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, **dict.fromkeys(fields, False))
