"""Who tries every port, and who sits on them."""

from __future__ import annotations

import socket

# Take these ports of loopback, and tell of every connection, until the input ends. Run on a host.
LISTEN = """
import selectors, socket, sys
taken, found = [], selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        line = socket.socket(family)
        try:
            line.bind((address, port))
            line.listen()
        except OSError:
            line.close()
            continue
        taken.append(line)
        found.register(line, selectors.EVENT_READ)
found.register(sys.stdin, selectors.EVENT_READ)
print(len(taken), flush=True)
while True:
    for key, _ in found.select():
        if key.fileobj is sys.stdin:
            sys.exit()
        line, peer = key.fileobj.accept()
        print("came", line.getsockname(), peer, flush=True)
"""

# Run a forward of ssh's at 7001, and print what its far end says to a question.
ASK = """
import socket, subprocess, sys, time
away = subprocess.DEVNULL
forward = subprocess.Popen(sys.argv[1:], stdin=away, stdout=away, stderr=away)
heard = b""
deadline = time.monotonic() + 5
while time.monotonic() < deadline and not heard:
    try:
        with socket.create_connection(("127.0.0.1", 7001), 2) as line:
            line.settimeout(2)
            line.sendall(b"GET /version HTTP/1.0\\r\\n\\r\\n")
            heard = line.recv(100)
    except OSError:
        time.sleep(0.2)
forward.kill()
print(heard)
"""


def open_ports(address: str) -> list[int]:
    """All that answers at an address, by trying each port."""

    def answers(port: int) -> bool:
        with socket.socket() as line:
            line.settimeout(5)
            return line.connect_ex((address, port)) == 0

    return [port for port in range(1, 65536) if answers(port)]
