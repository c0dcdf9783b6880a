"""A client to be killed: `herd_client.py ROOT MARK HERD`. Two herds hang on its keepers; then it prints the
guardian's pid and waits, for some minutes. When its guardian dies it kills what it inherited and ends, as a
run does."""

import fcntl
import os
import sys
import time
from pathlib import Path

from guard_lab import Lab

from sweepfw.trial.guard.client import abandon

root, word, herd = sys.argv[1:]
lock = open(Path(root) / "lock", "w")  # noqa: SIM115  # held to the end
fcntl.flock(lock, fcntl.LOCK_EX)
sys.argv[1:] = []
lab = Lab(Path(root), slots=2, hold=(lock.fileno(),))


def give_up() -> None:
    abandon()
    os._exit(70)


lab.guardian.watch(give_up)
folders = [lab.start(sys.executable, herd, word, "hang", keeper=keeper) for keeper in lab.keepers]
for folder in folders:
    lab.wait_for(b"ready", folder)
print(lab.guardian.pid, flush=True)
time.sleep(250)
