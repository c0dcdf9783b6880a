"""known_hosts files mean to us what they mean to OpenSSH."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sshd import make_key, public

from sweepfw.errors import SweepError, UnreachableError
from sweepfw.shell.host_keys import (
    ChangedKeyError,
    Entry,
    HostKey,
    UnknownKeyError,
    add_key,
    changed,
    judge,
    known_types,
    lookup_name,
    parse,
    read_keys,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {
        name: make_key(folder / name, name.rstrip("2")) for name in ("ed25519", "ed255192", "ecdsa", "rsa")
    }


def line(path: Path) -> str:
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


NAMES = ["gpu1", "gpu1.lab", "[gpu1]:2222", "10.0.0.7", "[10.0.0.7]:2222", "other", "GPU1", "gpux1", "::1"]
FIELDS = [
    "gpu1",
    "GPU1",
    "gpu1,10.0.0.7",
    "[gpu1]:2222",
    "*.lab",
    "gpu?",
    "gpu*,!gpu1",
    "!gpu1,gpu*",
    "[*]:2222",
    "10.0.0.*",
    "*",
    "::1",
    "",
    "g[pu]1",
]


def test_the_same_lines_count_as_for_openssh(keys: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(
        "# a comment\n\n" + "".join(f"{field} {line(keys['ed25519'])} note\n" for field in FIELDS if field)
    )
    for name in NAMES:
        said = subprocess.run(
            ["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True, check=False
        ).stdout
        theirs = [int(each.rpartition("line ")[2]) for each in said.splitlines() if each.startswith("# Host")]
        ours = [int(entry.where.rpartition(":")[2]) for entry in read_keys([file], name)]
        assert ours == theirs, name


def test_hashed_names(keys: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"gpu1 {line(keys['rsa'])}\n[gpu1]:2222 {line(keys['ecdsa'])}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    assert "gpu1" not in file.read_text()
    assert [entry.key for entry in read_keys([file], "gpu1")] == [public(keys["rsa"])]
    assert [entry.key.type for entry in read_keys([file], "[gpu1]:2222")] == ["ecdsa-sha2-nistp256"]
    assert read_keys([file], "gpu2") == []


def test_markers_and_what_is_no_key(keys: dict[str, Path]) -> None:
    good = line(keys["ed25519"])
    text = "\n".join(
        [
            f"@revoked * {good}",
            f"@cert-authority * {good}",
            f"@other gpu1 {good}",
            "gpu1 ssh-ed25519 %%%",
            f"gpu1 ssh-rsa {good.split()[1]}",
            "gpu1 ssh-ed25519",
            "|1|x|y ssh-ed25519 AAAA",
        ]
    )
    assert parse(text, "gpu1") == [Entry(public(keys["ed25519"]), True, "known_hosts:1")]


def test_fingerprints_are_those_of_ssh_keygen(keys: dict[str, Path]) -> None:
    for path in keys.values():
        said = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
        assert public(path).fingerprint == said.split()[1]


def entries(*keys: HostKey, revoked: bool = False) -> list[Entry]:
    return [Entry(key, revoked, "f:1") for key in keys]


def test_verdicts(keys: dict[str, Path]) -> None:
    one, two, rsa = (public(keys[name]) for name in ("ed25519", "ed255192", "rsa"))
    assert judge([], one) == "unknown"
    assert (
        judge(entries(one), one) == judge(entries(two, one), one) == judge(entries(one, two), one) == "known"
    )
    assert judge(entries(two), one) == "changed"
    assert (
        judge(entries(rsa), one) == "changed"
    )  # another type than the known one: as OpenSSH's, but stricter
    assert judge([*entries(one), *entries(one, revoked=True)], one) == "revoked"
    assert judge(entries(one, revoked=True), two) == "unknown"
    assert known_types([*entries(rsa, one, rsa), *entries(two, revoked=True)]) == ["ssh-rsa", "ssh-ed25519"]


def test_accepted_once_and_for_its_name_only(keys: dict[str, Path], tmp_path: Path) -> None:
    file, key = tmp_path / "known_hosts", public(keys["ed25519"])
    error = UnknownKeyError("gpu1", "[10.0.0.7]:2222", key)
    assert key.fingerprint in str(error) and "gpu1" in str(error) and error.exit_code == 4
    error.accept(file)
    add_key(file, "[10.0.0.7]:2222", key)
    assert len(file.read_text().splitlines()) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.key for entry in read_keys([file], "[10.0.0.7]:2222")] == [key]
    assert read_keys([file], "10.0.0.7") == []


def test_a_changed_key_says_where_the_known_one_stands(keys: dict[str, Path]) -> None:
    one, two = public(keys["ed25519"]), public(keys["ed255192"])
    error = changed("gpu1", [Entry(one, False, "/k:3")], two, "changed")
    assert isinstance(error, ChangedKeyError) and isinstance(error, UnreachableError)
    assert "/k:3" in str(error) and "\n" not in str(error) and two.fingerprint in str(error)
    assert "revoked" in str(changed("gpu1", entries(two, revoked=True), two, "revoked"))


def test_files_that_are_missing_or_unreadable(tmp_path: Path) -> None:
    assert read_keys([tmp_path / "nothing"], "x") == []
    with pytest.raises(SweepError, match="can't be read"):
        read_keys([tmp_path], "x")


def test_names_as_openssh_looks_them_up() -> None:
    assert lookup_name("a", 22) == "a"
    assert lookup_name("a", 2222) == "[a]:2222"
    assert lookup_name("a", 2222, "alias") == "alias"
