"""The one image of ours: what it is built from, and the hash of that, which is its tag."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sweepfw.core.command import Cmd, cmd
from sweepfw.core.deployment import Build
from sweepfw.errors import SweepError

REPOSITORY = "sweepfw"
LABEL = "sweepfw.image"  # its hash, so that our images are found by what they are
FILES = Path(__file__).parent / "docker"  # the Dockerfile and what is mounted; ships with the package

# Services need neither the command line nor what reaches hosts: a change there leaves the image as it is.
_LEFT_OUT = {"cli", "fleet"}
_NOT_NEEDED = {"fabric", "paramiko", "invoke"}


def context() -> dict[str, bytes]:
    """Everything that the image is built from: path -> content, in order."""
    files = {name: _content(FILES / "sweepfw" / name) for name in ("Dockerfile", "build-steps")}
    return {**files, "requirements.txt": requirements().encode(), **dict(_package())}


def name(files: Mapping[str, bytes], build: Build, secrets: Mapping[str, bytes]) -> str:
    """`sweepfw:<hash>`. What was given as a secret counts by being there, not by its content: credentials of
    an index change, and what is built does not."""
    digest = hashlib.sha256()
    for path, data in files.items():
        digest.update(f"{path} {hashlib.sha256(data).hexdigest()}\n".encode())
    digest.update(f"base {build.base}\nsecrets {' '.join(sorted(secrets))}\n".encode())
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def archive(files: Mapping[str, bytes]) -> bytes:
    """The context as a tar that is the same for the same files."""
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


# Secrets come in front of the context, on stdin, and lie in memory (where the host has such a place) while
# the build runs: an argument would show in `ps`. What a killed build leaves goes with a later one.
_BUILD = r"""
set -eu
docker=$1 image=$2 base=$3 label=$4; shift 4
for place in /dev/shm "${XDG_RUNTIME_DIR:-}" "${TMPDIR:-/tmp}"; do
    if [ -n "$place" ] && [ -d "$place" ] && [ -w "$place" ]; then break; fi
done
umask 077
find "$place" -maxdepth 1 -name "sweepfw-build-$(id -u).*" -mmin +600 -exec rm -rf {} + 2>/dev/null || true
kept=$(mktemp -d "$place/sweepfw-build-$(id -u).XXXXXX")
trap 'rm -rf "$kept"' EXIT
trap 'exit 130' INT TERM HUP
secrets=
for word; do
    name=${word%%=*} size=${word#*=}
    head -c "$size" >"$kept/$name"
    secrets="$secrets --secret id=$name,src=$kept/$name"
done
# Buildx would keep notes in the user's home, also of builders that don't serve here.
# shellcheck disable=SC2086
BUILDX_CONFIG="$kept/buildx" DOCKER_BUILDKIT=1 "$docker" build --pull=false --progress=plain \
    --build-arg "BASE=$base" --label "$label" --tag "$image" $secrets -
"""


def build(image: str, base: str, secrets: Mapping[str, bytes], docker: str = "docker") -> Cmd:
    """The command that builds it from what `build_input` gives."""
    sizes = [f"{id}={len(data)}" for id, data in secrets.items()]
    return cmd("sh", "-c", _BUILD, "sh", docker, image, base, f"{LABEL}={image.partition(':')[2]}", *sizes)


def build_input(files: Mapping[str, bytes], secrets: Mapping[str, bytes]) -> bytes:
    return b"".join(secrets.values()) + archive(files)


def secrets(build: Build) -> dict[str, bytes]:
    """The files of this machine that builds are given: `ca`, `pip`. SweepError where one can't be read."""
    named = {"ca": ("ca_bundle", build.ca_bundle), "pip": ("pip_conf", build.pip_conf)}
    return {id: _secret(key, path) for id, (key, path) in named.items() if path}


def requirements() -> str:
    """What the services need: our own dependencies as this installation states them, without those that only
    the command line has."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("sweepfw") or []
    except PackageNotFoundError:
        raise SweepError("sweepfw is not installed as a package; `pip install` it, then try again") from None
    wanted = [line for line in lines if "extra ==" not in line and _distribution(line) not in _NOT_NEEDED]
    return "".join(f"{line}\n" for line in sorted(wanted))


def _distribution(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()


def _package() -> Iterator[tuple[str, bytes]]:
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root)
        if inner.parts[0] in _LEFT_OUT or "__pycache__" in inner.parts or not path.is_file():
            continue
        if path.suffix not in (".pyc", ".pyo", ".swp") and not path.name.startswith("."):
            yield f"sweepfw/{inner.as_posix()}", path.read_bytes()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise SweepError(f"{path}: this installation of sweepfw lacks it; install it again") from None


def _secret(key: str, path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise SweepError(f"build.{key}: {path} can't be read ({error.strerror})") from None
