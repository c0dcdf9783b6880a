"""Containers that are machines: with an engine within, whose images were loaded once for all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab_docker import LabError, docker
from lab_host import Host
from lab_images import Images, lower_layers

from sweepfw.fleet.images import archive

BASE, RABBITMQ = "sweepfw-lab/base:latest", "sweepfw-lab/rabbitmq:latest"  # their names in each engine
LOWER = "sweepfw-lab/lower:latest"  # what an earlier version of ours has in common with this one

# `--privileged` fails where the kernel denies SYS_RESOURCE; this is all of it that an engine needs.
_RIGHTS = (
    *("--cap-add", "ALL", "--cgroupns", "private"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm"),
)
# Layers of images are never written to: engines share them. What else an engine has, each has its own, and a
# name, which its builder's cache bears too: of another engine's it would use nothing.
_COPY_SEED = r"""
seed=$1; shift
for volume; do
  from=/volumes/$seed/_data to=/volumes/$volume/_data
  for entry in "$from"/*; do
    if [ "${entry##*/}" != overlay2 ]; then cp -a "$entry" "$to/"; fi
  done
  cp -al "$from/overlay2" "$to/" 2>/dev/null || { rm -rf "$to/overlay2"; cp -a "$from/overlay2" "$to/"; }
  name=$(cat /proc/sys/kernel/random/uuid)
  LC_ALL=C sed -i "s/$(cat "$from/engine-id")/$name/g" "$to/engine-id" "$to/buildkit/cache.db"
  chmod --reference="$from" "$to"
done
"""


def run_machine(*arguments: str) -> str:
    """`docker run -d` with all that an engine within needs; the container's id."""
    run = ["run", "-d", *_RIGHTS]
    try:
        return docker(*run, "--cap-drop", "SYS_RESOURCE", *arguments).strip()
    except LabError as error:
        if "invalid CapDrop" not in str(error):
            raise
    return docker(*run, *arguments).strip()  # newer engines leave out of ALL what the kernel denies


def make_seed(images: Images) -> None:
    """A volume for /var/lib/docker: an engine with the images that a user would have pulled, which once built
    an earlier version of ours."""
    if images.seed in docker("volume", "ls", "-q").split():  # half made: its maker was killed
        for container in docker("ps", "-aq", "--filter", f"volume={images.seed}").split():
            docker("rm", "-f", container)
        docker("volume", "rm", images.seed)
    docker("volume", "create", "--label", f"sweepfw.lab.seed={images.seed}", images.seed)
    mount = ["--mount", f"type=volume,src={images.seed},dst=/var/lib/docker"]
    container = run_machine(*mount, "-e", "LAB_KEY=", "-e", "LAB_USERS=", images.host)
    try:
        Host("seed", "", Path(), container).wait_until_up()
        save = subprocess.Popen(["docker", "save", images.base, images.rabbitmq], stdout=subprocess.PIPE)
        load = ["docker", "exec", "-i", container, "docker", "load", "-q"]
        subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
        if save.wait() != 0:
            raise LabError("docker save failed")
        for image, name in ((images.base, BASE), (images.rabbitmq, RABBITMQ)):
            docker("exec", container, "docker", "tag", image, name)
            docker("exec", container, "docker", "rmi", image)
        build_lower(container)
        # What a builder would write to again; the layers stay in its cache.
        for kind in ("source.local", "exec.cachemount"):
            docker("exec", container, "docker", "builder", "prune", "-f", "--filter", f"type={kind}")
        docker("exec", container, "service", "docker", "stop")
    finally:
        docker("rm", "-f", container, check=False)


def build_lower(container: str) -> None:
    """In the machine's engine: LOWER."""
    build = ["docker", "build", "-q", "--build-arg", f"BASE={BASE}", "-t", LOWER, "-"]
    call = ["docker", "exec", "-i", "-e", "DOCKER_BUILDKIT=1", container, *build]
    done = subprocess.run(call, input=archive(lower_layers()), capture_output=True)
    if done.returncode != 0:
        raise LabError(f"the seed's build: {done.stderr.decode(errors='replace')[-1000:]}")


def forget_builds(host: Host) -> None:
    """Its engine never built anything of ours, as before the first `infra up` of all."""
    host.run(["docker", "rmi", LOWER])
    host.run(["docker", "builder", "prune", "-af"])


def copy_seed(images: Images, volumes: Sequence[str]) -> None:
    if not volumes:
        return
    root = docker("info", "--format", "{{.DockerRootDir}}").strip()
    mount = ["--mount", f"type=bind,src={root}/volumes,dst=/volumes"]
    mount += [
        "--mount",
        f"type=volume,src={images.seed},dst=/held,readonly",
    ]  # so nobody removes it meanwhile
    docker(
        *("run", "--rm", "--network", "none", *mount, images.base, "sh", "-euc", _COPY_SEED),
        *("sh", images.seed, *volumes),
    )
