"""A trial that does all it can to leave something behind. `herd.py MARK exit|hang`

Every process that it starts has MARK in its command line. When all of them live it prints "ready"; then it
exits with 0, or hangs and ignores SIGTERM. Nothing of it lives longer than LIFE, whatever a test does.
"""

import ctypes
import itertools
import os
import signal
import sys
import time

MEMBERS = 6
LIFE = 200  # seconds: longer than a test waits for its death
END = time.monotonic() + LIFE
told, tell = os.pipe()


def live():
    os.write(tell, b".")
    time.sleep(LIFE)
    os._exit(1)


def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    live()


def session():
    os.setsid()
    if os.fork() == 0:
        deaf()
    live()


def daemon():
    """Double fork, own session, no environment, no descriptor of the trial's."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(tell, b".")
    os.closerange(0, 100)
    os.execve(sys.executable, [sys.executable, "-c", f"import time; time.sleep({LIFE})", sys.argv[1]], {})


def reaper():
    """A child subreaper of its own, with an orphan."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            deaf()
        os._exit(0)
    deaf()


def hopper():
    """Forks and exits again and again, in a session of its own each time. In the end at its leisure: where
    nobody reaps, what it leaves takes process numbers, of which a machine may have 32,768."""
    os.write(tell, b".")
    for hops in itertools.count():
        if time.monotonic() > END:
            break
        if hops > 4000:
            time.sleep(0.05)
        os.setsid() if os.getpid() != os.getsid(0) else None
        if os.fork():
            os._exit(0)


for member in (deaf, session, daemon, reaper, hopper):
    if os.fork() == 0:
        try:
            member()
        finally:
            os._exit(1)
seen = 0
while seen < MEMBERS + 1:  # session and reaper count twice, daemon and hopper once
    seen += len(os.read(told, 100))
print("ready", flush=True)
if sys.argv[2] == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(LIFE)
