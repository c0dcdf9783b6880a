"""Python packages that tests make, and an index that asks for a password."""

from __future__ import annotations

import hashlib
import io
import zipfile
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


def wheel_name(name: str, version: str) -> str:
    return f"{name}-{version}-py3-none-any.whl"


def wheel(
    files: Mapping[str, str] = {"tiny.py": ""},  # nobody changes a Mapping
    name: str = "tiny",
    version: str = "1.0",
    requires: str = "",
) -> bytes:
    """The smallest package there can be, as pip and uv take it."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record, packed = "", io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return packed.getvalue()


class _Index(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: object, login: str, asked: list[str], directory: str) -> None:
        self._login, self._asked = "Basic " + b64encode(login.encode()).decode(), asked
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]  # passed on as they are

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == self._login:
            self._asked.append(self.path)
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="wheels"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def log_message(self, *arguments: object) -> None: ...


@contextmanager
def private_index(folder: Path, login: str) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder's files to who logs in as `user:password`: host:port, and what those asked for."""
    asked: list[str] = []
    index = partial(_Index, login=login, asked=asked, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), index)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
