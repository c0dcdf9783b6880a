"""What the image is built from, its tag, and how it travels."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.deployment import Build
from sweepfw.errors import SweepError
from sweepfw.fleet import images, layers
from sweepfw.fleet.facts import Docker


def test_the_context_has_all_that_services_need_and_nothing_else() -> None:
    files = images.context()
    assert list(files)[:3] == ["Dockerfile", "build-steps", "requirements.txt"]
    assert {"sweepfw/engine/service.py", "sweepfw/inside/sweepfw.py", "sweepfw/__init__.py"} <= files.keys()
    assert any(path.endswith(".sql") for path in files)
    assert not [
        path for path in files if "__pycache__" in path or path.startswith(("sweepfw/cli", "sweepfw/fleet"))
    ]
    needed = files["requirements.txt"].decode().split()
    assert any(each.startswith("celery") for each in needed)
    assert not any(each.startswith(("fabric", "paramiko", "pytest")) for each in needed)


def test_services_import_nothing_that_the_image_lacks(tmp_path: Path) -> None:
    """Without the command line and without fabric: what is not in the image is not asked for."""
    with tarfile.open(fileobj=io.BytesIO(images.archive(images.context()))) as tar:
        tar.extractall(tmp_path, filter="data")
    script = (
        "import sys, pkgutil, importlib, sweepfw\n"
        "for name in ('fabric', 'paramiko', 'invoke'): sys.modules[name] = None\n"
        "for module in pkgutil.walk_packages(sweepfw.__path__, 'sweepfw.'):\n"
        "    if module.name.startswith(('sweepfw.engine.', 'sweepfw.ledger.', 'sweepfw.trial.')):\n"
        "        importlib.import_module(module.name)\n"
        "assert sweepfw.__file__.startswith(sys.argv[1]), sweepfw.__file__\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_tag_says_what_is_inside() -> None:
    files = images.context()
    name = images.name(files, Build(), {})
    assert name == images.name(images.context(), Build(), {})
    assert images.archive(files) == images.archive(images.context())
    others = {
        images.name({**files, "sweepfw/__init__.py": b"#"}, Build(), {}),
        images.name(files, Build(base="debian:13"), {}),
        images.name(files, Build(), {"ca": b"PEM"}),
    }
    assert len({name, *others}) == 4
    assert images.name(files, Build(), {"pip": b"one"}) == images.name(files, Build(), {"pip": b"two"})
    assert name.startswith("sweepfw:") and len(name) == len("sweepfw:") + 12


def test_secrets_are_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"PEM")
    assert images.secrets(Build(ca_bundle=str(tmp_path / "ca.pem"))) == {"ca": b"PEM"}
    with pytest.raises(SweepError, match=r"build.pip_conf: .*nothing can't be read"):
        images.secrets(Build(pip_conf=str(tmp_path / "nothing")))


FAKE_DOCKER = """#!/bin/sh
echo "$DOCKER_BUILDKIT" "$@" >"$SEEN/argv"
for word; do case $word in id=*)
    id=${word#id=} file=${word##*src=}; id=${id%%,*}
    dirname "$file" >"$SEEN/folder"
    cp "$file" "$SEEN/$id"; ls -l "$file" >"$SEEN/$id.mode" ;;
esac; done
cat >"$SEEN/context"
exit ${FAIL:-0}
"""


@pytest.mark.parametrize("fail", ["0", "1"])
def test_a_build_gets_its_secrets_on_stdin_and_leaves_none(tmp_path: Path, fail: str) -> None:
    docker = tmp_path / "docker"
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    secrets = {"ca": b"PEM\n\0binary", "pip": b"[global]\nindex-url = https://u:hunter2@index\n"}
    files = {"Dockerfile": b"FROM x", "a/b": bytes(range(256)) * 400}
    command = images.build("sweepfw:abc", "base image", secrets, str(docker)).reveal()
    assert not any("hunter2" in word for word in command)
    environment = {"SEEN": str(tmp_path), "FAIL": fail, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, input=images.build_input(files, secrets), env=environment, capture_output=True
    )
    assert (done.returncode, done.stderr) == (int(fail), b"")
    assert {id: (tmp_path / id).read_bytes() for id in secrets} == secrets
    assert (tmp_path / "ca.mode").read_text().startswith("-rw------- ")
    assert (tmp_path / "context").read_bytes() == images.archive(files)
    argv = (tmp_path / "argv").read_text()
    assert (
        argv.startswith("1 build --pull=false") and "BASE=base image" in argv and "sweepfw.image=abc" in argv
    )
    folder = Path((tmp_path / "folder").read_text().strip())
    assert folder.match("/dev/shm/sweepfw-build-*") and not folder.exists()


A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")


def test_layers_that_are_there_are_not_sent() -> None:
    assert layers.shared([A, B, C], [[A, B, D], [A], [B, C]]) == [A, B]
    assert layers.shared([A, B], [[A, B, C]]) == [A, B]
    assert layers.shared([A, B], [[B, A]]) == []
    assert layers.shared([A, B], []) == []
    assert layers.shared([A, B, A, C], [[A, B]]) == [B]  # further up it stands on others
    text = f'["{A}","{B}"]\nError: No such object\n["sha256:short"]\nnull\n'
    assert layers.read(text) == [[A, B]]
    argv = layers.save("/usr/bin/docker", "sweepfw:1", [A]).reveal()
    assert argv[-1] == f"blobs/sha256/{'a' * 64}"


@given(st.lists(st.sampled_from("abcd"), max_size=6), st.lists(st.lists(st.sampled_from("abcd"), max_size=6)))
def test_what_is_left_out_is_always_a_layer_at_the_same_place_there(
    wanted: list[str], there: list[list[str]]
) -> None:
    left_out = set(layers.shared(wanted, there))
    for position, layer in enumerate(wanted):
        if layer in left_out:
            assert any(found[: position + 1] == wanted[: position + 1] for found in there)


def test_engines_that_take_no_image_in_part() -> None:
    new, old = Docker("d", version="26.1.5+dfsg1"), Docker("d", version="20.10.24")
    store = Docker("d", version="29.0.1", containerd=True)
    assert layers.may_skip(new, new)
    assert not layers.may_skip(new, old) and not layers.may_skip(old, new)
    assert not layers.may_skip(new, store) and not layers.may_skip(store, new)
