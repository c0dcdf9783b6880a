"""What scripts/lab does: a lab that stays, for work by hand."""

from __future__ import annotations

import argparse
import json
import sys

import lab_images
from lab import Kind, Lab, labs, remove
from lab_docker import LabError, docker
from lab_images import CACHE
from lab_machine import make_seed


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start hosts")
    up.add_argument("name", nargs="?", default="lab")
    up.add_argument("--hosts", type=int, default=2)
    up.add_argument("--gpus", action="append", default=[], metavar="host2=4", help="a host with pretend GPUs")
    up.add_argument("--bare", action="append", default=[], metavar="host2", help="a host without Docker")
    down = verbs.add_parser("down", help="remove the hosts")
    down.add_argument("name", nargs="?", default="lab")
    verbs.add_parser("status", help="which labs are up")
    verbs.add_parser("images", help="make the images, and no host")
    options = parser.parse_args()
    try:
        globals()[options.verb](options)
    except LabError as error:
        sys.exit(f"scripts/lab: {error}")


def up(options: argparse.Namespace) -> None:
    gpus = {host: int(count) for host, _, count in (entry.partition("=") for entry in options.gpus)}
    kinds = {host: Kind(engine=False) for host in options.bare}
    lab = Lab.start(options.hosts, gpus=gpus, kinds=kinds, name=options.name, forever=True, say=say)
    for host in lab.hosts:
        say(f"{host.name}  {host.user}@{host.address}")
    say(f"ssh -F {lab.ssh_config} host1    key: {lab.key}    known hosts: {lab.known_hosts}")
    say(f"build.base: {Lab.base}    build.rabbitmq: {Lab.rabbitmq}")
    say(f"`scripts/lab down {lab.name}` removes it.")


def down(options: argparse.Namespace) -> None:
    remove(options.name)


def status(options: argparse.Namespace) -> None:
    for name, owner in sorted(labs().items()):
        file = CACHE / "labs" / name / "hosts.json"
        hosts = json.loads(file.read_text()) if file.exists() else {}
        shown = " ".join(f"{host}={address}" for host, address in hosts.items())
        say(f"{name}  {_whose(owner)}  {shown}")
    if not lab_images.ready(lab_images.names()):
        say("The images are not made yet.")
    say(f"engine {docker('version', '--format', '{{.Server.Version}}').strip()}")


def _whose(owner: str) -> str:
    return "by hand" if owner == "-" else f"of process {owner.partition('/')[0]}"


def images(options: argparse.Namespace) -> None:
    lab_images.make(say, make_seed)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
