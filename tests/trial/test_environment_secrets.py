"""Environments from a package index that asks for a password: pip is given it, and nothing shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import private_index
from test_environment import Lab, put_wheel

from sweepfw.core.secrets import Need, Secrets
from sweepfw.trial.builder import SetupFailed
from sweepfw.trial.secrets import hidden

PASSWORD = "hunter22-for-wheels"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """host:port of an index with one package."""
    put_wheel(tmp_path / "index/simple/private", "private", "2.0")
    with private_index(tmp_path / "index", f"me:{PASSWORD}") as (address, _):
        yield address


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "lab")
    for name in [name for name in lab.env if name.startswith("PIP_")]:
        del lab.env[name]  # this machine's own index would be asked, too
    lab.env["PIP_CACHE_DIR"] = str(tmp_path / "cache")
    return lab


def written(lab: Lab) -> bytes:
    """All that lies beside the environments and in them."""
    files = [path for path in lab.place.environments.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    return b"\0".join(path.read_bytes() for path in files)


def test_pip_conf_is_pip_s_own_configuration(lab: Lab, index: str, tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv").write_text("#!/bin/sh\nexit 9\n")  # it would not read that
    (tmp_path / "uv/uv").chmod(0o755)
    lab.env["PATH"] = f"{tmp_path}/uv:{lab.env['PATH']}"
    (lab.root / "requirements.txt").write_text("private\n")
    conf = f"[global]\nindex-url = http://me:{PASSWORD}@{index}/simple\n".encode()
    given = hidden([Need("pip.conf", "file")], Secrets({"pip.conf": conf}))
    said: list[str] = []
    found = lab.resolve(said, secrets=given)
    assert (found.lock, said[0].rpartition(" ")[2]) == ("private==2.0\n", "pip")
    assert not [name for name in os.listdir("/dev/shm") if f"-{os.getpid()}-" in name]
    assert PASSWORD.encode() not in written(lab)
    assert PASSWORD not in "".join(said)
    other = hidden([Need("pip.conf", "file")], Secrets({"pip.conf": conf + b"# another\n"}))
    assert lab.resolve(secrets=other).python == found.python  # values are no part of what it is


def test_variables_in_requirements_and_what_builders_print(lab: Lab, index: str) -> None:
    given = hidden([Need("TOKEN", "env")], Secrets({"TOKEN": PASSWORD.encode()}))
    address = f"--index-url http://me:${{TOKEN}}@{index}/simple\n"
    (lab.root / "requirements.txt").write_text(address + "private\n")
    assert lab.resolve(secrets=given).lock == "private==2.0\n"
    (lab.root / "broken").mkdir()
    (lab.root / "broken/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "back"\nbackend-path = ["."]\n'
    )
    (lab.root / "broken/back.py").write_text("import os, sys\nsys.exit('no: ' + os.environ['TOKEN'])\n")
    (lab.root / "requirements.txt").write_text("./broken\n")
    said: list[str] = []
    with pytest.raises(SetupFailed) as failed:
        lab.resolve(said, secrets=given)
    assert "no: ***" in failed.value.text
    assert PASSWORD.encode() not in written(lab)
    assert PASSWORD not in str(failed.value) + failed.value.text + "".join(said)
