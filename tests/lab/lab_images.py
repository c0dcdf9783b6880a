"""The lab's images: made on the spot from Debian's packages, once, and named by what they are made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab_docker import LabError, docker

RELEASE = "trixie"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,git"
HERE = Path(__file__).parent / "images"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweepfw-lab"

_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# Of apt's configuration, what says how to reach the network; the rest is this machine's own business.
_APT = ("Proxy", "Verify-Peer", "Check-Valid-Until", "Check-Date")


@dataclass(frozen=True)
class Images:
    """Their names. base: a user's; rabbitmq: as the official one; bare: a host without Docker; host: with."""

    base: str
    rabbitmq: str
    bare: str
    host: str
    seed: str  # a volume: /var/lib/docker of an engine that has base, rabbitmq and `lower_layers`


def names() -> Images:
    """What the images are called, whether they are there or not."""
    base = _hash(RELEASE, PACKAGES, _text("base.Dockerfile"), *(f"{k}={v}" for k, v in trust().items()))
    rabbitmq = _hash(base, _text("rabbitmq.Dockerfile"))
    bare = _hash(base, *map(_text, ("bare.Dockerfile", "lab-host", "init-functions", "sshd.conf")))
    host = _hash(
        bare, *map(_text, ("host.Dockerfile", "make-gpus", "nvidia-smi", "nvidia-runtime", "nvidia-hook"))
    )
    return Images(
        f"sweepfw-lab/base:{base}",
        f"sweepfw-lab/rabbitmq:{rabbitmq}",
        f"sweepfw-lab/bare:{bare}",
        f"sweepfw-lab/host:{host}",
        f"sweepfw-lab-seed-{_hash(base, rabbitmq, host, *map(bytes.decode, lower_layers().values()))}",
    )


def lower_layers() -> dict[str, bytes]:
    """What an image of ours is built from, without our own code, which is its last layer."""
    from sweepfw.fleet import images

    files = images.context()
    dockerfile, code, _ = files["Dockerfile"].partition(b"\nCOPY sweepfw")
    assert code
    return {**{name: files[name] for name in ("build-steps", "requirements.txt")}, "Dockerfile": dockerfile}


def why_not() -> str:
    """Why no lab can run here, or nothing."""
    try:
        docker("version")
        return "" if ready(names()) else "no images; `scripts/lab images` makes them"
    except LabError as error:
        return str(error).splitlines()[-1]


def trust() -> dict[str, bytes]:
    """Files that a stock Debian needs to reach apt's and pip's servers from here. By their place in it."""
    files: dict[str, bytes] = {}
    for file in sorted(_CERTIFICATES.glob("*.crt")) if _CERTIFICATES.is_dir() else []:
        files[str(file)] = file.read_bytes()
    apt = sorted(Path("/etc/apt/apt.conf.d").glob("*")) if Path("/etc/apt").is_dir() else []
    for file in apt:
        lines = [
            line for line in file.read_text(errors="replace").splitlines() if any(key in line for key in _APT)
        ]
        if lines:
            files[f"/etc/apt/apt.conf.d/{file.name}"] = "\n".join([*lines, ""]).encode()
    pip = [f"{key} = {value}" for key, value in _pip_settings().items()]
    if files.keys() & {str(file) for file in _CERTIFICATES.glob("*.crt")}:
        pip.append(f"cert = {_BUNDLE}")
    if pip:
        files["/etc/pip.conf"] = "\n".join(["[global]", *pip, ""]).encode()
    return files


def _pip_settings() -> dict[str, str]:
    """Where this machine's pip looks for packages, as far as another machine could look there too."""
    done = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True)
    found: dict[str, str] = {}
    for row in done.stdout.splitlines():
        key, _, value = row.partition("=")
        name, value = key.split(".")[-1], value.strip("'\"")
        if name in ("index-url", "proxy", "trusted-host") and "file:" not in value:
            found[name] = value
    return found


def ready(images: Images) -> bool:
    """Whether all of them are there."""
    there = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "sweepfw-lab/*").split()
    volumes = docker("volume", "ls", "-q", "--filter", "label=sweepfw.lab.seed").split()
    seeded = images.seed in volumes and (CACHE / images.seed).exists()
    return seeded and {images.base, images.rabbitmq, images.bare, images.host} <= set(there)


def make(say: Callable[[str], None], seed: Callable[[Images], None]) -> Images:
    """All images, made where they are missing. `seed` makes the volume, once the images are there."""
    images = names()
    if ready(images):
        return images
    with _alone():
        if ready(images):
            return images
        _make_base(images.base, say)
        say("Making the lab's images: hosts, RabbitMQ ...")
        with ThreadPoolExecutor() as pool:
            rabbitmq = pool.submit(_build, images.rabbitmq, "rabbitmq.Dockerfile", f"BASE={images.base}")
            _build(images.bare, "bare.Dockerfile", f"BASE={images.base}")
            _build(images.host, "host.Dockerfile", f"BARE={images.bare}")
            rabbitmq.result()
        say("Loading them into an engine ...")
        (CACHE / images.seed).unlink(missing_ok=True)
        seed(images)
        (CACHE / images.seed).touch()  # it is whole
        remove_old(images)
    return images


def _make_base(tag: str, say: Callable[[str], None]) -> None:
    if docker("images", "-q", tag):
        return
    debian = f"sweepfw-lab/debian:{_hash(RELEASE, PACKAGES)}"
    if not docker("images", "-q", debian):
        say(f"Making a Debian {RELEASE} with debootstrap (about a minute, once) ...")
        _debootstrap(debian)
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "trust").mkdir()
        for name, data in trust().items():
            file = context / "trust" / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        _build(tag, "base.Dockerfile", f"DEBIAN={debian}", context)


def _debootstrap(tag: str) -> None:
    if not shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin"):
        raise LabError("debootstrap is not installed: scripts/test --lab installs it")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    folder = Path(tempfile.mkdtemp(prefix="sweepfw-lab-", dir="/var/tmp"))
    mirror = [url] if (url := os.environ.get("SWEEPFW_LAB_MIRROR")) else []
    try:
        what = ["--variant=minbase", f"--include={PACKAGES}", RELEASE, str(folder / "root"), *mirror]
        made = subprocess.run(
            [*root, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "debootstrap", *what],
            capture_output=True,
            text=True,
            timeout=900,
        )
        if made.returncode != 0:
            raise LabError(f"debootstrap: {made.stdout.strip()[-1000:]} {made.stderr.strip()[-500:]}")
        without = [
            f"--exclude=./{place}/*" for place in ("var/cache/apt", "var/lib/apt/lists", "proc", "sys")
        ]
        tar = subprocess.Popen(
            [*root, "tar", "-C", folder / "root", *without, "-c", "."], stdout=subprocess.PIPE
        )
        subprocess.run(["docker", "import", "-", tag], stdin=tar.stdout, check=True, capture_output=True)
        if tar.wait() != 0:
            raise LabError("tar could not read what debootstrap made")
    finally:
        subprocess.run([*root, "rm", "-rf", "--one-file-system", folder], check=False)


def _build(tag: str, dockerfile: str, argument: str, context: Path = HERE) -> None:
    if docker("images", "-q", tag):
        return
    proxies = [
        f"--build-arg={name}" for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ
    ]
    file = str(HERE / dockerfile)
    docker("build", "-q", "-t", tag, "-f", file, "--build-arg", argument, *proxies, str(context), seconds=900)


def remove_old(keep: Images) -> None:
    """Images and volumes of earlier contents that nobody uses: each is half a gigabyte."""
    wanted = set(keep.__dict__.values())
    for tag in docker("images", "--format", "{{.Repository}}:{{.Tag}}", "sweepfw-lab/*").split():
        if tag not in wanted and not tag.startswith("sweepfw-lab/debian:"):
            docker("rmi", tag, check=False)
    for volume in docker("volume", "ls", "-q", "--filter", "label=sweepfw.lab.seed").split():
        if volume not in wanted:
            docker("volume", "rm", volume, check=False)


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time makes images, whoever starts how many labs."""
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (CACHE / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _text(name: str) -> str:
    return (HERE / name).read_text()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
