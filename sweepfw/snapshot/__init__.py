"""Snapshots: the project's files at the time of `run`, content-addressed, never changed.

objects/ab/cdef...   a file's content, under its SHA-256; the same content is stored once
<id>.json            a snapshot: {"files": [[path, "file"|"link"|"dir", mode, SHA-256 or target, size]]}
cache/               what unchanged files hashed to, so that they are not read again
"""

from sweepfw.snapshot.listing import Entry, Listing
from sweepfw.snapshot.store import (
    Differences,
    Freed,
    Snapshot,
    checkout,
    collect,
    differences,
    freeze,
    manifest,
    objects,
    read,
    scan,
    settle,
    survey,
)

__all__ = [
    "Differences",
    "Entry",
    "Freed",
    "Listing",
    "Snapshot",
    "checkout",
    "collect",
    "differences",
    "freeze",
    "manifest",
    "objects",
    "read",
    "scan",
    "settle",
    "survey",
]
