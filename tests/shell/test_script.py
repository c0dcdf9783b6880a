"""What a host's shell is given: whole or not at all, whatever stands in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepfw.core.command import cmd
from sweepfw.shell.script import Unwrapper, line, place, put_script, script

SHELLS = [shell for shell in ("/bin/dash", "/bin/bash", "/bin/busybox") if Path(shell).exists()]


def run(data: bytes, first: bytes, shell: str = "/bin/sh") -> tuple[bytes, Unwrapper]:
    """As sshd runs it: the line by the login's shell, script and input on standard input."""
    argv = [shell, "sh"] if shell.endswith("busybox") else [shell]
    done = subprocess.run([*argv, "-c", line(first)], input=first + data, capture_output=True, check=False)
    unwrap = Unwrapper("mark")
    return unwrap(done.stdout), unwrap


@settings(max_examples=40)
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec=None)).map(str), max_size=5), st.binary()
)
def test_words_and_input_arrive_as_they_are(words: list[str], data: bytes) -> None:
    try:
        wanted = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in words)
    except UnicodeEncodeError:
        return  # lone surrogates that stand for no byte: no argument can hold them
    command = cmd("sh", "-c", r'for w in "$@"; do printf "%s\0" "$w"; done; cat', "sh", *words)
    assert run(data, script("mark", command))[0] == wanted + data


@pytest.mark.parametrize("shell", SHELLS)
def test_every_byte_but_one_can_be_in_a_word(shell: str) -> None:
    word = bytes(range(1, 256)).decode(errors="surrogateescape")
    assert run(b"", script("mark", cmd("printf", "%s", word)), shell)[0] == bytes(range(1, 256))


def test_what_was_cut_short_does_nothing(tmp_path: Path) -> None:
    whole = script("mark", cmd("touch", str(tmp_path / "made")), cwd=str(tmp_path))
    for end in range(len(whole)):
        subprocess.run(["/bin/sh", "-c", line(whole)], input=whole[:end], capture_output=True, check=False)
        assert not list(tmp_path.iterdir()), whole[:end]
    run(b"", whole)
    assert (tmp_path / "made").exists()


def test_a_file_that_was_cut_short_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    for size in (0, 1, 99):
        run(bytes(size), put_script("mark", str(file), 100, 0o600))
        assert file.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [file]
    run(bytes(100), put_script("mark", str(file), 100, 0o640))
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (bytes(100), 0o640)


def test_a_line_is_plain_for_every_login_shell() -> None:
    """Nothing in it that csh, fish or zsh would read in another way; the words are not in it."""
    text = line(script("mark", cmd("echo", "secret!")))
    assert "secret" not in text and "\\" not in text and "!" not in text and "\n" not in text
    assert text.count("'") == 2


def test_paths_at_home() -> None:
    assert place("~") == '"$HOME"'
    assert place("~/a b") == "\"$HOME\"'/a b'"
    assert place("/~/x") == "'/~/x'"
    assert place("-") == "./-"


def test_null_bytes_and_names_of_variables_are_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        script("mark", cmd("echo", "a\0b"))
    with pytest.raises(ValueError, match="variable"):
        script("mark", cmd("echo"), env={"A;id": "x"})


def test_what_a_login_prints_is_taken_off() -> None:
    unwrap = Unwrapper("mark")
    assert unwrap(b"Welcome!\nma") == b""
    assert unwrap(b"rk ok 12\nout") == b"out"
    assert unwrap(b"mark ok 13\n") == b"mark ok 13\n"
    assert (unwrap.header, unwrap.noise) == (("ok", 12), "Welcome!")
    silent = Unwrapper("mark")
    silent(b"This account is not available.\n")
    assert (silent.header, silent.noise) == (None, "This account is not available.")
