"""A deployment from the options of `infra up`, over what there was; and what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sweepfw.config.hosts import parse_hosts
from sweepfw.core.deployment import LOCAL, Deployment, Host
from sweepfw.errors import SweepError

NAME = "main"  # the deployment's name where none is given


def from_options(
    hosts: str | None,
    *,
    identity: str | None = None,
    remote_dir: str | None = None,
    head: str | None = None,
    workers: str | None = None,
    name: str | None = None,
    base: Deployment | None = None,
) -> Deployment:
    """The deployment that `-a [user@]host[:port],… -i KEY -r DIR -m local|N -w local,1,2 --name D` describe.

    `base` is the configuration that there was: what no option speaks of stays as it is there (build, lease,
    a host's mounts, gpus, slots, labels). With `hosts` its list of hosts is replaced by those.
    """
    listed = _hosts(hosts, base)
    head_name = _pick(head, "-m", listed) if head is not None else _kept_head(listed, base)
    names = _workers(workers, listed, base if hosts is None or base is None else _known(base, listed))
    every = listed
    if LOCAL in {head_name, *names} and all(host.name != LOCAL for host in listed):
        every = (*listed, Host(LOCAL, LOCAL))
    if base is None:
        base = Deployment(NAME, every, head_name, names)
    return replace(
        base,
        name=base.name if name is None else _checked("name", name),
        hosts=every,
        head=head_name,
        workers=names,
        identity=base.identity if identity is None else str(Path(identity).expanduser().absolute()),
        remote_dir=base.remote_dir if remote_dir is None else _checked("remote_dir", remote_dir),
    )


def local_deployment(name: str | None = None, base: Deployment | None = None) -> Deployment:
    """`infra up --local`: head and worker on this machine."""
    host = next((each for each in base.hosts if each.local), None) if base else None
    host = host or Host(LOCAL, LOCAL)
    deployment = Deployment(NAME, (host,), host.name, (host.name,))
    if base is not None:
        deployment = replace(base, hosts=(host,), head=host.name, workers=(host.name,))
    return deployment if name is None else replace(deployment, name=_checked("name", name))


def _checked(key: str, value: str) -> str:
    """An option's value by the rules of the file."""
    from sweepfw.config.deployment_keys import READERS
    from sweepfw.config.node import Node

    read: str = READERS[key](Node(value, {"name": "--name", "remote_dir": "-r"}[key]))
    return read


def _hosts(text: str | None, base: Deployment | None) -> tuple[Host, ...]:
    if text is not None:
        before = {host.name: host for host in base.hosts} if base else {}
        return tuple(_merged(before.get(host.name), host) for host in parse_hosts(text))
    if base is not None:
        return base.hosts
    raise SweepError("no hosts are named; name them with -a host1,host2, or use this machine with --local")


def _merged(before: Host | None, host: Host) -> Host:
    """A host as it was, with what `-a` says of it now."""
    if before is None:
        return host
    return replace(before, user=host.user or before.user, port=host.port or before.port)


def _kept_head(hosts: Sequence[Host], base: Deployment | None) -> str:
    names = [host.name for host in hosts]
    return base.head if base is not None and base.head in {*names, LOCAL} else names[0]


def _known(base: Deployment, hosts: Sequence[Host]) -> Deployment | None:
    """The configuration there was, where it says of any of these hosts whether it is a worker."""
    before = {host.name for host in base.hosts}
    now = [host.name for host in hosts]
    stay = tuple(name for name in now if name in base.workers or name not in before)
    return replace(base, workers=stay) if stay else None


def _workers(text: str | None, hosts: Sequence[Host], base: Deployment | None) -> tuple[str, ...]:
    if text is None:
        return tuple(host.name for host in hosts) if base is None else base.workers
    names = [_pick(each, "-w", hosts) for each in text.split(",")]
    if len(set(names)) < len(names):
        raise SweepError(f"-w {text[:60]}: names a host twice")
    return tuple(names)


def _pick(text: str, option: str, hosts: Sequence[Host]) -> str:
    """`local`, the number of a host in `-a`, or its name."""
    text = text.strip()
    names = [host.name for host in hosts]
    if text == LOCAL or text in names:
        return text
    listed = [name for name in names if name != LOCAL] or names
    if text.isascii() and text.isdigit() and 1 <= int(text) <= len(listed):
        return listed[int(text) - 1]
    raise SweepError(
        f"{option} {text[:60]}: is no host; write local, or a number from 1 to {len(listed)} "
        f"({', '.join(listed[:20])})"
    )


def differences(old: Deployment, new: Deployment) -> list[str]:
    """What a change would drop or move, a line each, for a question: "drops the host gpu2"."""
    names = {host.name for host in new.hosts}
    lines = [f"drops the host {host.name}" for host in old.hosts if host.name not in names]
    if old.head != new.head:
        lines.append(f"moves the head from {old.head} to {new.head}, without its sweeps")
    lines += [
        f"takes the worker from {name}" for name in old.workers if name in names and name not in new.workers
    ]
    for host in old.hosts:
        if host.name in names and _way(new.host(host.name)) != _way(host):
            lines.append(f"reaches {host.name} at {_way(new.host(host.name))}, not at {_way(host)}")
    if old.remote_dir != new.remote_dir:
        lines.append(f"moves its files on the hosts from {old.remote_dir} to {new.remote_dir}")
    return lines


def _way(host: Host) -> str:
    user = f"{host.user}@" if host.user else ""
    return f"{user}{host.target}{f':{host.port}' if host.port else ''}"
