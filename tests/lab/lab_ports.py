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


def open_ports(address: str) -> list[int]:
    """All that answers at an address, by trying each port."""

    def answers(port: int) -> bool:
        with socket.socket() as line:
            line.settimeout(60)
            return line.connect_ex((address, port)) == 0

    return [port for port in range(1, 65536) if answers(port)]
