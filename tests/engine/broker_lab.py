"""A real RabbitMQ for tests, started as deployments start it, and a line to it that can be cut or frozen.

From the lab's image where Docker has it, else from Debian's package on this machine. Use `Broker.find()`,
which says why where neither is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ports import free_port

from sweepfw.core import broker

START = Path(__file__).parents[2] / "docker" / "rabbitmq" / "start"
NATIVE = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
IMAGE = "sweepfw-lab/rabbitmq"
UID = "0123456789abcdef"
ACCOUNT = 10_777  # some user of no name: any must do
WORKERS = ("a", "b")


class MissingError(Exception):
    """Why no broker can be started here."""


class Line:
    """A TCP line to an address that may change: `cut` breaks what is open, `freeze` lets nothing through
    and tells nobody, as a link does that lost its far side."""

    def __init__(self, target: tuple[str, int], address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.target = target
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: set[socket.socket] = set()
        self._server = socket.create_server(address)
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A link that is half open, and then given up by both sides."""
        self.freeze()
        try:
            yield
        finally:
            self.cut()
            self.thaw()

    def close(self) -> None:
        self._server.close()
        self.thaw()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(self.target, timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(sock)
        threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
        self._pump(far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(sock)


class Broker:
    """RabbitMQ with the accounts of a deployment; its address stays the same over every restart."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sweepfw-broker-"))
        self.folder.chmod(0o755)
        self.passwords = {
            user: f"{user}-secret" for user in (broker.HEAD, broker.FLOWER, *map(broker.worker_user, WORKERS))
        }
        (self.folder / "definitions.json").write_text(broker.definitions(UID, self.passwords, WORKERS))
        shutil.copy(START, self.folder / "start")
        (self.folder / "start").chmod(0o755)
        self.line = Line(("127.0.0.1", 1))

    @staticmethod
    def find() -> Broker:
        """A broker that is not started yet. MissingError where there is none."""
        if image := _image():
            return ContainedBroker(image)
        if NATIVE.exists():
            return NativeBroker()
        raise MissingError("no RabbitMQ: neither the lab's image nor Debian's package rabbitmq-server")

    def address(self, user: str) -> str:
        return broker.address(user, self.passwords[user], "127.0.0.1", self.line.port)

    @contextmanager
    def running(self) -> Iterator[Broker]:
        try:
            self.start()
            yield self
        finally:
            self.remove()

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def wipe(self) -> None:
        """Lose everything it knows. It must be stopped."""
        raise NotImplementedError

    def ctl(self, *arguments: str) -> str:
        raise NotImplementedError

    def remove(self) -> None:
        self.line.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, *, wiped: bool = False) -> None:
        self.stop()
        if wiped:
            self.wipe()
        self.start()

    def close_connections(self) -> None:
        """Close them all by force, as an administrator would."""
        self.ctl("close_all_connections", "a test")

    def queues(self) -> dict[str, tuple[int, int]]:
        """Messages and consumers by queue."""
        out = self.ctl(
            "list_queues", "-q", "--no-table-headers", "-p", broker.VHOST, "name", "messages", "consumers"
        )
        rows = [line.split("\t") for line in out.splitlines() if line.count("\t") == 2]
        return {name: (int(messages), int(consumers)) for name, messages, consumers in rows}


class NativeBroker(Broker):
    """Debian's package, on this machine, with ports and a node name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._epmd = free_port()
        self._data = self.folder / "data"
        self._data.mkdir()
        if os.geteuid() == 0:
            os.chown(self._data, ACCOUNT, ACCOUNT)
        self._env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {
            "SWEEPFW_RABBITMQ_DATA": str(self._data),
            "SWEEPFW_RABBITMQ_PORT": str(self.port),
            "SWEEPFW_RABBITMQ_ADDRESS": "127.0.0.1",
            "SWEEPFW_RABBITMQ_NODE": f"{self.folder.name}@localhost",
            "SWEEPFW_RABBITMQ_DIST_PORT": str(free_port()),
            "SWEEPFW_RABBITMQ_DISK": "1MB",
            "ERL_EPMD_PORT": str(self._epmd),
        }

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", str(self.folder / "start")],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_as_account(),
            )
        self.line.target = ("127.0.0.1", self.port)
        _wait(self._healthy, 150, self.folder / "broker.log")

    def _healthy(self) -> bool:
        return not subprocess.run(["/bin/sh", str(self.folder / "start"), "health"], env=self._env).returncode

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        with suppress(ProcessLookupError):  # what is left of its group
            while self._process is not None:
                os.killpg(self._process.pid, signal.SIGKILL if number == signal.SIGKILL else 0)
                time.sleep(0.05)
        self._process = None

    def wipe(self) -> None:
        shutil.rmtree(self._data / "mnesia")

    def ctl(self, *arguments: str) -> str:
        env = self._env | {
            "HOME": str(self._data / "home"),
            "RABBITMQ_NODENAME": self._env["SWEEPFW_RABBITMQ_NODE"],
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        command = [str(NATIVE.with_name("rabbitmqctl")), *arguments]
        return subprocess.run(
            command, env=env, check=True, capture_output=True, text=True, timeout=120, **_as_account()
        ).stdout

    def remove(self) -> None:
        self.kill()
        subprocess.run(["epmd", "-kill"], env=self._env, capture_output=True)
        super().remove()


class ContainedBroker(Broker):
    """The lab's image (RabbitMQ 4), in a container."""

    def __init__(self, image: str) -> None:
        super().__init__()
        self._image = image
        self._name = self.folder.name

    def start(self) -> None:
        if _docker("start", self._name, check=False).returncode:
            _docker(
                *("run", "-d", "--name", self._name, "--init", "--user", f"{ACCOUNT}:{ACCOUNT}"),
                *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
                *("-e", "SWEEPFW_RABBITMQ_DATA=/tmp/rabbitmq", "-e", "SWEEPFW_RABBITMQ_DISK=1MB"),
                *("-v", f"{self.folder}:/etc/sweepfw/rabbitmq:ro", "--entrypoint", "/bin/sh"),
                *(self._image, "/etc/sweepfw/rabbitmq/start"),
            )
        _wait(self._healthy, 150, None)
        where = _docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", self._name).stdout.strip()
        self.line.target = (where, 5672)

    def _healthy(self) -> bool:
        command = ("exec", self._name, "/bin/sh", "/etc/sweepfw/rabbitmq/start", "health")
        return not _docker(*command, check=False).returncode

    def stop(self) -> None:
        _docker("stop", "-t", "60", self._name)

    def kill(self) -> None:
        _docker("kill", self._name, check=False)

    def wipe(self) -> None:
        _docker("rm", "-f", "-v", self._name)

    def ctl(self, *arguments: str) -> str:
        home = ("-e", "HOME=/tmp/rabbitmq/home", "-e", "RABBITMQ_NODENAME=rabbit@localhost")
        program = 'PATH=/usr/lib/rabbitmq/bin:$PATH exec rabbitmqctl "$@"'
        return _docker("exec", *home, self._name, "/bin/sh", "-c", program, "sh", *arguments).stdout

    def remove(self) -> None:
        self.wipe()
        super().remove()


def _docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done


def _image() -> str | None:
    if shutil.which("docker") is None:
        return None
    found = _docker("images", "-q", IMAGE, check=False).stdout.split()
    return found[0] if found else None


def _as_account() -> dict[str, Any]:
    return {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else {}


def _wait(healthy: Callable[[], bool], seconds: float, log: Path | None) -> None:
    deadline = time.monotonic() + seconds
    while not healthy():
        if time.monotonic() > deadline:
            raise RuntimeError(f"RabbitMQ did not start: {log.read_text()[-2000:] if log else ''}")
        time.sleep(0.2)
