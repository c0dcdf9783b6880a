"""A trial that bears witness outside of sweepfw, and the reader of what it wrote.

Copied as a single file into the project that chaos runs; the standard library only. It appends a line for its
start and one for its end to `$CHAOS_WITNESS/witness.jsonl`, and holds a lock by its trial's id for as long as
any of its processes lives, so that two live copies of a trial show whatever sweepfw's own books say.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

# How a trial of each kind behaves, and how it ends where nothing strikes it.
KINDS = {
    "calm": "sleeps, with a checkpoint at every step, and succeeds",
    "fail": "exits with 3",
    "signal": "kills itself with SIGKILL",
    "daemon": "leaves daemons of its own session behind, and succeeds",
    "deaf": "ignores SIGTERM, and succeeds",
    "memory": "takes memory until the kernel or its own limit ends it",
    "disk": "writes until the disk is full or it is enough, takes most of it away, and succeeds",
    "poison": "kills its keeper, or with CHAOS_POISON=worker its worker, every time",
}
ENDS = {
    "fail": "failed",
    "signal": "failed",
    "memory": "failed",
    "poison": "failed",
}  # all others: succeeded
STEPS = 5
BEAT = 0.1  # seconds between two signs of a daemon
DAEMON_LIFE = 120.0  # seconds after which a daemon that nobody killed ends by itself
MEMORY = 400_000_000  # bytes that a `memory` trial takes at most
DISK = 64_000_000  # bytes that a `disk` trial writes at most
SECRET = "chaos.token"  # the name of the secret file that some projects give to their trials
BIG, LITTLE = "big.bin", 1000  # its file, and the bytes of it that it keeps


def case(kind: str, seconds: float, number: int) -> str:
    """The value of the trials' one parameter; `number` makes it its own."""
    return f"{kind} {seconds:g} {number}"


class Life(NamedTuple):
    """One attempt, as it told by itself. Times are seconds of CLOCK_MONOTONIC, `wall` of its host's clock.

    `ended` None: it was killed before it could tell. `overlaps`: who held the trial's lock when it began.
    """

    sweep: str
    trial: int
    attempt: int
    host: str
    pid: int
    case: str
    nonce: str
    started: float
    wall: float
    resumed_from: int  # the step that it found in its checkpoint
    ended: float | None = None
    exit: int | None = None  # negative: a signal
    log: str = ""  # SHA-256 of all that it printed
    files: dict[str, str] = {}  # noqa: RUF012  # of a NamedTuple; nobody changes it
    proof: float | None = None  # the metric that it reported
    reached: int = 0  # the step that it came to
    overlaps: tuple[str, ...] = ()
    beats: tuple[float, ...] = ()  # signs of its daemons: the first and the last
    killed: float | None = None  # when it set out to kill its keeper or worker

    @property
    def kind(self) -> str:
        return self.case.split(" ")[0]

    @property
    def key(self) -> tuple[str, int, int]:
        return self.sweep, self.trial, self.attempt


# -- reading -------------------------------------------------------------------------------------------


def read(folder: Path) -> list[Life]:
    """All lives in the order of their starts. A torn last line (its writer was killed) is left out."""
    found: dict[tuple[str, int, int, str], dict[str, Any]] = {}
    for line in lines(folder):
        key = (line["sweep"], line["trial"], line["attempt"], line["nonce"])
        life = found.setdefault(key, {"overlaps": (), "beats": ()})
        what = line.pop("what")
        if what == "overlap":
            life["overlaps"] += (line["holder"],)
        elif what == "beat":
            life["beats"] = (*life["beats"][:1], line["at"])
        else:
            life |= line
    lives = [Life(**life) for life in found.values() if "started" in life]
    return sorted(lives, key=lambda life: life.started)


def lines(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (Path(folder) / "witness.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in text.split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


# -- the trial -----------------------------------------------------------------------------------------


class Trial:
    def __init__(self, folder: Path, told: str) -> None:
        self.folder = folder
        env = os.environ
        self.who = {
            "sweep": env["SWEEPFW_SWEEP"],
            "trial": int(env["SWEEPFW_TRIAL"]),
            "attempt": int(env["SWEEPFW_ATTEMPT"]),
            "nonce": os.urandom(8).hex(),
        }
        self.case = told
        self.kind, seconds, _ = told.split(" ")
        self.seconds = float(seconds)
        self.proof = int.from_bytes(os.urandom(5), "big")
        self.printed = hashlib.sha256()
        self.checkpoint = Path(env["SWEEPFW_CHECKPOINT"], "step")
        self.step = self._saved()

    def tell(self, what: str, **more: object) -> None:
        """Add a line, whole and on disk before this returns."""
        line = json.dumps({"what": what, **self.who, **more}).encode() + b"\n"
        file = os.open(self.folder / "witness.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line)
            if what != "beat":
                os.fsync(file)
        finally:
            os.close(file)

    def lock(self) -> None:
        """Hold the trial's lock until all our processes are gone; where somebody else does, say so."""
        folder = self.folder / "locks"
        folder.mkdir(exist_ok=True)
        file = os.open(folder / f"{self.who['sweep']}.{self.who['trial']}", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.tell("overlap", holder=os.pread(file, 200, 0).decode(errors="replace"))
            return
        os.ftruncate(file, 0)
        os.pwrite(file, f"attempt {self.who['attempt']} on {os.uname().nodename}".encode(), 0)

    def say(self, text: str) -> None:
        data = text.encode() + b"\n"
        self.printed.update(data)
        while data:
            data = data[os.write(1, data) :]

    def begin(self) -> None:
        self.tell(
            "start",
            host=os.uname().nodename,
            pid=os.getpid(),
            case=self.case,
            started=time.clock_gettime(time.CLOCK_MONOTONIC),
            wall=time.time(),
            resumed_from=self.step,
        )
        self.lock()
        self.say(f"{self.who['nonce']} begins {self.case} from {self.step}")

    def work(self) -> None:
        while self.step < STEPS:
            time.sleep(self.seconds / STEPS)
            self.step += 1
            self._save()
            self.say(f"{self.who['nonce']} step {self.step}")
            self._report()

    def end(self, code: int, files: dict[str, str]) -> None:
        self.tell(
            "end",
            ended=time.clock_gettime(time.CLOCK_MONOTONIC),
            exit=code,
            log=self.printed.hexdigest(),
            files=files,
            proof=self.proof,
            reached=self.step,
        )

    def leave_file(self) -> dict[str, str]:
        data = f"{self.who['nonce']} {self.proof}\n".encode() * 10
        Path(os.environ["SWEEPFW_OUTPUT"], "proof.txt").write_bytes(data)
        return {"proof.txt": hashlib.sha256(data).hexdigest()}

    def _saved(self) -> int:
        try:
            return min(int(self.checkpoint.read_text()), STEPS)
        except (FileNotFoundError, ValueError):
            return 0

    def _save(self) -> None:
        part = self.checkpoint.with_suffix(".part")
        part.write_text(str(self.step))
        part.replace(self.checkpoint)

    def _report(self) -> None:
        with open(os.environ["SWEEPFW_METRICS"], "a") as file:
            file.write(json.dumps({"step": self.step, "proof": self.proof}) + "\n")


def daemons(trial: Trial) -> None:
    """Two processes in sessions of their own, without environment or output; they hold the trial's lock."""
    for _ in range(2):
        if os.fork():
            continue
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        until = time.monotonic() + DAEMON_LIFE
        while time.monotonic() < until:
            trial.tell("beat", at=time.clock_gettime(time.CLOCK_MONOTONIC))
            time.sleep(BEAT)
        os._exit(0)


def take_memory() -> None:
    """Take more than its share: its control group's where it may set one, else its address space's."""
    import resource

    if not _limit_group(MEMORY // 2):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY // 2, MEMORY // 2))
    taken: list[bytearray] = []
    try:
        while len(taken) < MEMORY // 10_000_000:
            taken += [bytearray(b"x") * 10_000_000]
    except MemoryError:
        os._exit(9)


def _limit_group(limit: int) -> bool:
    """Only a group that sweepfw made for this slot alone is ours to limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = path.rpartition("/")[2]
        if "memory" in controllers.split(",") and name.startswith("sweepfw-"):
            try:
                Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").write_text(str(limit))
            except OSError:
                return False
            return True
    return False


def fill_disk() -> dict[str, str]:
    """Write until there is no room or it is enough; a little of it is kept, like any output."""
    path, block = Path(os.environ["SWEEPFW_OUTPUT"], BIG), b"0123456789abcdef" * 4096
    with open(path, "wb", buffering=0) as file:
        try:
            for _ in range(DISK // len(block)):
                file.write(block)
        except OSError:
            pass
        os.ftruncate(file.fileno(), LITTLE)
    return {BIG: hashlib.sha256(path.read_bytes()).hexdigest()}


def kill_worker() -> None:
    """Kill the keeper above us, or the worker above its guardian; nothing else, whoever our ancestors are."""
    keeper = os.getppid()
    if _comm(keeper) != "sweepfw-keeper":
        return
    victim = keeper
    if os.environ.get("CHAOS_POISON") == "worker":
        guard = _parent(keeper)
        if _comm(guard) != "sweepfw-guard":
            return
        victim = _parent(guard)
    if victim > 1:
        os.kill(victim, signal.SIGKILL)
    time.sleep(60)


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_secret() -> bool:
    """Whether a file of ours holds what $CHAOS_SECRET is the SHA-256 of; also where it asks for nothing."""
    wanted = os.environ.get("CHAOS_SECRET")
    if not wanted:
        return True
    found = Path(os.environ["SWEEPFW_SECRETS"], SECRET).read_bytes()
    return hashlib.sha256(found).hexdigest() == wanted


def main() -> None:
    trial = Trial(Path(os.environ["CHAOS_WITNESS"]), sys.argv[1])
    trial.begin()
    if not has_secret():
        trial.say("this is not our secret")
        os._exit(5)
    if trial.kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if trial.kind == "daemon":
        daemons(trial)
    trial.work()
    files = trial.leave_file()
    if trial.kind == "disk":
        files |= fill_disk()
    if trial.kind == "memory":
        take_memory()
    if trial.kind == "poison":
        trial.tell("kill", killed=time.clock_gettime(time.CLOCK_MONOTONIC))
        kill_worker()
    code = {"fail": 3, "signal": -9}.get(trial.kind, 0)
    trial.end(code, files)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
