"""The workspace's own ledger: where it may lie, and opening it."""

from __future__ import annotations

import os
from pathlib import Path

from sweepfw.config.workspace import Workspace
from sweepfw.errors import LedgerError
from sweepfw.ledger.store import SqliteLedger

# SQLite's locks and shared memory don't work across machines: two of them would tear the file.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "beegfs", "ceph", "glusterfs", "gpfs", "lustre"}
    | {"ncpfs", "orangefs", "panfs", "pvfs2", "wekafs"}
)
_NETWORK_FUSE = ("sshfs", "ceph", "glusterfs", "rclone", "s3fs", "gcsfuse", "juicefs", "goofys", "davfs")
_MOUNTS = Path("/proc/self/mountinfo")


def open_ledger(workspace: Workspace, *, create: bool) -> SqliteLedger:
    """The workspace's ledger. Without one: `create` makes it and the workspace, else LedgerError.

    LedgerError too where it lies on a network file system, is torn, foreign or newer, or can't be written.
    """
    if not create and not workspace.ledger.exists():
        raise LedgerError(f"{workspace.root}: no sweeps here yet; start one with: sweepfw run PROJECT")
    if kind := network_file_system(workspace.state):
        raise LedgerError(
            f"{workspace.state}: lies on a network file system ({kind}), where the ledger would tear; "
            "run sweepfw in a folder on a local disk"
        )
    if create:
        workspace.prepare()
    return SqliteLedger(workspace.ledger, workspace.runs)


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that the path lies on (or would), None where it is a local one."""
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None  # no Linux: nobody tells
    return network_mount(os.path.realpath(path), mounts)


def network_mount(path: str, mounts: str) -> str | None:
    """The same, from the text of /proc/self/mountinfo; `path` is absolute and without symbolic links."""
    deepest, kind = "", ""
    for line in mounts.splitlines():
        place, _, source = line.partition(" - ")
        point = _unescape(place.split(" ")[4])
        if len(point) >= len(deepest) and _holds(point, path):  # a later mount hides an earlier one
            deepest, kind = point, source.split(" ")[0]
    if kind == "9p" and deepest == "/":
        return None  # a sandbox's own disk
    return kind if kind in _NETWORK or _is_network_fuse(kind) else None


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _is_network_fuse(kind: str) -> bool:
    return kind.startswith("fuse.") and any(name in kind for name in _NETWORK_FUSE)


def _unescape(text: str) -> str:
    # The kernel writes space, tab, newline and backslash in octal.
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
