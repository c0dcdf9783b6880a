"""An image from one host to another without the layers that are there: after an upgrade, nearly all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sweepfw.core.command import Cmd, cmd
from sweepfw.fleet.facts import Docker

_LISTING = '"$0" images -q | sort -u | xargs -r "$0" image inspect --format "{{json .RootFS.Layers}}"'
# An engine takes a layer that it has by its name, and does not look for its content.
_SAVE = '"$0" save "$1" | gzip -1'
_SAVE_PART = 'docker=$0 image=$1; shift; "$docker" save "$image" | tar --delete -f - "$@" | gzip -1'
_LAYER = re.compile(r"sha256:[0-9a-f]{64}")
_FIRST = 25  # the first major version that names layers in what it saves by their content


def may_skip(source: Docker, target: Docker) -> bool:
    """Whether both engines deal with images that lack layers. containerd's store does not."""
    majors = [engine.version.partition(".")[0] for engine in (source, target)]
    named = all(major.isdecimal() and int(major) >= _FIRST for major in majors)
    return named and not source.containerd and not target.containerd


def of(docker: str, image: str) -> Cmd:
    return cmd(docker, "image", "inspect", "--format", "{{json .RootFS.Layers}}", image)


def listing(docker: str) -> Cmd:
    """Asks for the layers of every image, one image a line."""
    return cmd("sh", "-c", _LISTING, docker)


def read(text: str) -> list[list[str]]:
    """The layers of each image, from the lowest up."""
    found = []
    for line in text.splitlines():
        try:
            layers = json.loads(line)
        except ValueError:
            continue
        if isinstance(layers, list) and all(_LAYER.fullmatch(str(each)) for each in layers):
            found.append([str(each) for each in layers])
    return found


def shared(wanted: Sequence[str], there: Sequence[Sequence[str]]) -> list[str]:
    """The layers that need not be sent: the lowest ones that an image there has in the same order. One that
    comes again further up is sent: there it stands on others."""
    most = max((_common(wanted, layers) for layers in there), default=0)
    return [layer for layer in dict.fromkeys(wanted[:most]) if layer not in wanted[most:]]


def _common(wanted: Sequence[str], layers: Sequence[str]) -> int:
    for count, (ours, theirs) in enumerate(zip(wanted, layers, strict=False)):
        if ours != theirs:
            return count
    return min(len(wanted), len(layers))


def save(docker: str, image: str, without: Sequence[str] = ()) -> Cmd:
    """Prints the image, compressed, without the content of these layers."""
    if not without:
        return cmd("sh", "-c", _SAVE, docker, image)
    blobs = [f"blobs/{layer.replace(':', '/')}" for layer in without]
    return cmd("sh", "-c", _SAVE_PART, docker, image, *blobs)
