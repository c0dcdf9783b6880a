"""The image of head, Flower, tunnel and worker, built on a lab's host: what it takes, what it leaves."""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab
from lab_host import Host

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ["celery>=5.7", "click>=8.1", "cryptography>=42", "flower>=2.2", "pyyaml>=6"]
# A user's base that would get in the way: another user, entrypoint, shell, folder, health.
ODD = f"""
FROM {Lab.base}
SHELL ["/bin/false"]
WORKDIR /nowhere
HEALTHCHECK CMD false
STOPSIGNAL SIGUSR1
USER nobody
ENTRYPOINT ["/bin/false"]
"""


def send(host: Host, folder: str, files: dict[str, str], *parts: Path) -> None:
    """Files by their text, and files and folders of ours, into a new folder on the host."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", dereference=True) as tar:
        for part in parts:
            tar.add(part, part.name, filter=lambda info: None if "__pycache__" in info.name else info)
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    call = ["docker", "exec", "-i", host.container, "sh", "-c", f"mkdir {folder} && tar -C {folder} -x"]
    subprocess.run(call, input=data.getvalue(), check=True)


def build(host: Host, folder: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["env", "DOCKER_BUILDKIT=1", "docker", "build", "--progress=plain", *options, folder]
    return host.run(command, check=check, seconds=600)


def context(host: Host, folder: str, requirements: list[str]) -> None:
    steps = ROOT / "docker/sweepfw"
    lines = "".join(f"{line}\n" for line in requirements)
    send(host, folder, {"requirements.txt": lines}, *steps.iterdir(), ROOT / "sweepfw")


@pytest.fixture(scope="module")
def host(_session_lab: Lab) -> Iterator[Host]:
    """A host with the image `sweepfw:test`, on a base that would get in the way."""
    host = _session_lab.hosts[0]
    send(host, "/root/odd", {"Dockerfile": ODD})
    build(host, "/root/odd", "-t", "odd")
    context(host, "/root/image", REQUIREMENTS)
    build(host, "/root/image", "--build-arg", "BASE=odd", "-t", "sweepfw:test")
    yield host
    host.run(["rm", "-rf", "/root/odd", "/root/image"])
    host.run(["docker", "rmi", "-f", "sweepfw:test", "odd"])


def in_image(host: Host, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    call = ["docker", "run", "--rm", *options, "sweepfw:test", "sh", "-c", script]
    return host.run(call, check=check)


AS_A_USER = ("--user", "4321:4321", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")


def test_ours_runs_as_any_user_and_is_not_the_trials(host: Host) -> None:
    assert (
        in_image(host, "command -v python3 celery flower sweepfw", check=False).stdout == "/usr/bin/python3\n"
    )
    code = "import sweepfw.engine, celery, flower; print(sweepfw.__file__)"
    ran = in_image(host, f"/opt/sweepfw/bin/python -c {shlex.quote(code)}", *AS_A_USER)
    assert ran.stdout == "/opt/sweepfw/src/sweepfw/__init__.py\n"
    theirs = in_image(host, "python3 -c 'import sweepfw'", "-w", "/", check=False)
    assert "No module named 'sweepfw'" in theirs.stderr


def test_trials_can_make_environments(host: Host) -> None:
    made = "python3 -m venv /tmp/v && /tmp/v/bin/python --version && git --version"
    assert "git version" in in_image(host, made, *AS_A_USER, "--tmpfs", "/tmp:exec,mode=1777").stdout


def test_a_fresh_volume_is_writable_for_any_user(host: Host) -> None:
    host.run(["docker", "volume", "create", "image-test"])
    mount = ("--mount", "type=volume,src=image-test,dst=/var/lib/sweepfw")
    in_image(host, "mkdir -p /var/lib/sweepfw/.sweepfw/snapshots", *AS_A_USER, *mount)
    host.run(["docker", "volume", "rm", "image-test"])


def test_nothing_of_the_base_starts(host: Host) -> None:
    shape = "{{json .Config.Entrypoint}} {{.Config.User}} {{.Config.WorkingDir}} {{.Config.StopSignal}}"
    seen = host.run(["docker", "inspect", "-f", shape, "sweepfw:test"]).stdout.split()
    assert seen[0] in ("[]", "null") and seen[1:] == ["root", "/", "SIGTERM"]
    assert (
        host.run(["docker", "inspect", "-f", "{{.Config.Healthcheck.Test}}", "sweepfw:test"]).stdout
        == "[NONE]\n"
    )
    assert in_image(host, "ls /etc/ssh/ssh_host_* /var/lib/apt/lists/*", check=False).stdout == ""


INNER = """
HostKey /tmp/k/host
AuthorizedKeysFile /tmp/k/authorized
StrictModes no
UsePAM no
PidFile none
AllowTcpForwarding remote
"""


def test_the_head_can_log_in_as_the_fixed_account_to_forward_and_for_nothing_else(host: Host) -> None:
    """The inner sshd of the tunnel, through the program that an authorized_keys line would start."""
    rights = 'restrict,port-forwarding,permitlisten="127.0.0.1:5672",command="/bin/false"'
    prepare = f"""set -e; mkdir /tmp/k; cd /tmp/k; cat >cfg
    ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f client
    echo '{rights}' "$(cat client.pub)" >authorized; cat client"""
    options = ["--user", "10022", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init"]
    host.run(["docker", "run", "-d", "--rm", "--name", "inner", *options, "sweepfw:test", "sleep", "600"])
    made = host.run(["docker", "exec", "-i", "inner", "sh", "-c", prepare], stdin=INNER)
    host.write("/root/inner-key", made.stdout)
    host.run(["chmod", "600", "/root/inner-key"])
    door = "docker exec -i -u tunnel inner /usr/sbin/sshd -i -f /tmp/k/cfg"
    ssh = ["ssh", "-i", "/root/inner-key", "-o", "StrictHostKeyChecking=no", "-o", f"ProxyCommand={door}"]
    ssh += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"]

    forward = shlex.join([*ssh, "-f", "-N", "-R", "127.0.0.1:5672:127.0.0.1:22", "tunnel@inner"])
    host.run(["sh", "-c", f"{forward} >/dev/null 2>&1 </dev/null"])
    hello = "exec 3<>/dev/tcp/127.0.0.1/5672; read -r line <&3; echo $line"
    assert host.run(["docker", "exec", "inner", "bash", "-c", hello]).stdout.startswith("SSH-2.0-")

    other = host.run([*ssh, "-N", "-R", "127.0.0.1:5673:127.0.0.1:22", "tunnel@inner"], check=False)
    assert "forwarding failed" in other.stderr
    assert "uid=" not in host.run([*ssh, "tunnel@inner", "id"], check=False).stdout
    host.run(["docker", "rm", "-f", "inner"])


INDEX = """
import base64, http.server, ssl
class Index(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"someone:s3cretword").decode():
            self.send_response(401); self.end_headers(); return
        super().do_GET()
server = http.server.ThreadingHTTPServer(("", 8443), Index)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("/root/index/cert.pem", "/root/index/key.pem")
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
SERVE = """set -e; cd /root/index
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=ca-of-the-lab \
  -addext subjectAltName=DNS:index.lab 2>/dev/null
mkdir -p site/simple/labthing && cd site/simple/labthing
python3 - <<'END'
import zipfile
about = {"METADATA": "Metadata-Version: 2.1\\nName: labthing\\nVersion: 1.0\\n", "RECORD": "",
         "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
with zipfile.ZipFile("labthing-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("labthing.py", "")
    for name, text in about.items():
        wheel.writestr(f"labthing-1.0.dist-info/{name}", text)
END
echo '<a href="labthing-1.0-py3-none-any.whl">labthing-1.0-py3-none-any.whl</a>' >index.html
cd ../..; python3 ../serve.py >/dev/null 2>&1 &
echo $! >/root/index/pid; until (exec 3<>/dev/tcp/127.0.0.1/8443) 2>/dev/null; do sleep 0.1; done
"""


def test_behind_a_private_index_with_its_own_authority(host: Host) -> None:
    """Both are handed in as secrets; without them a clear line; with them, neither is in the image."""
    send(host, "/root/index", {"serve.py": INDEX})
    host.run(["bash", "-c", SERVE])
    pip = "[global]\nindex-url = https://someone:s3cretword@index.lab:8443/simple\n"
    host.write("/root/index/pip.conf", pip)
    host.write("/root/index/none.conf", pip.replace("someone:s3cretword@", ""))
    context(host, "/root/private", ["labthing"])
    send(host, "/root/again", {"Dockerfile": 'FROM odd\nUSER root\nSHELL ["/bin/sh", "-c"]\n'})
    build(host, "/root/again", "-t", "again")
    base = ["--build-arg", "BASE=again", "--add-host", f"index.lab:{host.address}"]

    refused = build(host, "/root/private", *base, "--secret", "id=pip,src=/root/index/none.conf", check=False)
    assert refused.returncode != 0
    assert "sweepfw image: pip could not install" in refused.stdout + refused.stderr

    secrets = ["--secret", "id=ca,src=/root/index/cert.pem", "--secret", "id=pip,src=/root/index/pip.conf"]
    build(host, "/root/private", *base, *secrets, "-t", "private")
    host.run(["docker", "run", "--rm", "private", "/opt/sweepfw/bin/python", "-c", "import labthing"])
    certificate = host.read("/root/index/cert.pem").splitlines()[1]
    search = f"docker save private | tar -xO | grep -ac -e s3cretword -e '{certificate}'"
    assert host.run(["sh", "-c", search], check=False).stdout == "0\n"
    host.run(
        [
            "sh",
            "-c",
            "kill $(cat /root/index/pid); docker rmi private again; rm -rf /root/index /root/private",
        ]
    )


def test_a_base_that_is_too_old_is_one_line(host: Host) -> None:
    shim = '#!/bin/sh\ncase "$*" in\n--version) echo Python 3.9.2 ;;\n*version_info*) exit 1 ;;\nesac\n'
    recipe = "FROM sweepfw:test\nCOPY --chmod=755 shim /usr/local/bin/python3\n"
    send(host, "/root/old", {"Dockerfile": recipe, "shim": shim})
    build(host, "/root/old", "-t", "old")
    context(host, "/root/old-image", [])
    refused = build(host, "/root/old-image", "--build-arg", "BASE=old", check=False)
    said = "sweepfw image: build.base has Python 3.9.2; it must be Python 3.11 or newer"
    assert said in refused.stdout + refused.stderr
    host.run(["sh", "-c", "docker rmi old; rm -rf /root/old /root/old-image"])
