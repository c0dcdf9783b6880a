"""What must not show of a secret, and that it does not, in whatever pieces it is printed."""

from __future__ import annotations

import base64
import json
import pickle
import random
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.secrets import MOST, Need, Secrets, files, needles, variables
from sweepfw.masking import MARK, Masker, cover, mask, spans

# Few letters, so that needles begin within one another; no `*`, which a mark could become a part of.
LETTERS = st.sampled_from(b"ab\n=").map(lambda letter: bytes([letter]))
NEEDLES = st.lists(st.lists(LETTERS, min_size=2, max_size=6).map(b"".join), min_size=1, max_size=4)
PIECES = st.lists(st.lists(LETTERS, max_size=9).map(b"".join), max_size=12)
VALUES = st.binary(min_size=6, max_size=40).filter(lambda value: len(value.strip()) >= 6)


def streamed(pieces: list[bytes], hidden: list[bytes]) -> bytes:
    masker = Masker(hidden)
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.end()])


def by_hand(data: bytes, hidden: list[bytes]) -> bytes:
    """Masked letter by letter: slow, and nothing in common with the real one."""
    under = [False] * len(data)
    begins = [False] * len(data)
    for needle in hidden:
        for match in re.finditer(b"(?=" + re.escape(needle) + b")", data):
            begins[match.start()] = True
            under[match.start() : match.start() + len(needle)] = [True] * len(needle)
    ends = {at + len(n) for n in hidden for at in range(len(data)) if data.startswith(n, at)}
    shown = b""
    for at, letter in enumerate(data):
        inside = any(
            data.startswith(n, begin) and begin < at < begin + len(n)
            for n in hidden
            for begin in range(max(0, at - 6), at)
        )
        if not under[at]:
            shown += bytes([letter])
        elif begins[at] and not inside:
            shown += MARK
        assert not under[at] or begins[at] or inside or at in ends
    return shown


@given(PIECES, NEEDLES)
def test_the_pieces_don_t_matter_and_nothing_else_changes(pieces: list[bytes], hidden: list[bytes]) -> None:
    shown = streamed(pieces, hidden)
    whole = b"".join(pieces)
    assert shown == by_hand(whole, hidden) == mask(whole, hidden)
    assert not any(needle in shown for needle in hidden)
    assert streamed([bytes([letter]) for letter in whole], hidden) == shown


@given(PIECES, NEEDLES)
def test_no_more_is_held_back_than_could_become_a_needle(pieces: list[bytes], hidden: list[bytes]) -> None:
    masker, fed = Masker(hidden), b""
    for piece in pieces:
        masker.feed(piece)
        fed += piece
        held = masker._held
        assert not held or any(n.startswith(held) and n != held for n in hidden)
        assert fed.endswith(held)


@given(st.binary(max_size=60), NEEDLES)
def test_covering_keeps_every_offset(data: bytes, hidden: list[bytes]) -> None:
    covered = cover(data, hidden)
    assert len(covered) == len(data)
    for start, end in spans(data, hidden):
        assert covered[start:end] == b"*" * (end - start)
    assert not any(needle in covered for needle in hidden)


def test_a_line_comes_at_once_and_an_endless_overlap_fills_no_memory() -> None:
    masker = Masker([b"secret", b"aaaaaa"])
    assert masker.feed(b"loss: 0.5\n") == b"loss: 0.5\n"
    assert masker.feed(b"is") == b"i"
    shown = b"".join(masker.feed(b"a" * 1000) for _ in range(50))
    assert (shown, len(masker._held)) == (b"s***", 5)
    assert masker.feed(b".") + masker.end() == b"."


@given(VALUES, st.binary(max_size=5), st.binary(max_size=5))
def test_encoded_values_are_found(value: bytes, before: bytes, behind: bytes) -> None:
    hidden = needles(Secrets({"KEY": value}))
    core = value.strip()
    forms = [core, quote(core).encode(), quote(core, safe="").encode(), quote_plus(core).encode()]
    for form in forms:
        assert core not in mask(before + form + behind, hidden)
        assert mask(b"<" + form + b">", hidden) == b"<***>"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = mask(encode(before + core + behind), hidden)
        assert MARK in shown
        # Only what a neighbour has a part in is left: two characters at each side of it at most.
        assert len(shown) <= 4 * (-(-len(before) // 3) + -(-len(behind) // 3)) + 3 + 4


@given(st.text(min_size=6, max_size=20).filter(lambda text: len(text.encode(errors="ignore").strip()) >= 6))
def test_json_is_found(text: str) -> None:
    raw = text.encode("utf-8", "ignore").strip()
    hidden = needles({"KEY": raw})
    for ascii_only in (True, False):
        told = json.dumps({"x": raw.decode()}, ensure_ascii=ascii_only).encode()
        assert mask(told, hidden) == b'{"x": "***"}'


@given(VALUES)
def test_what_python_and_others_make_of_it_is_found(value: bytes) -> None:
    core = value.strip()
    hidden = needles({"KEY": core})
    text = core.decode("utf-8", "surrogateescape")
    for shown in (repr({"KEY": text}), repr({"KEY": core})):
        assert mask(shown.encode("utf-8", "surrogateescape"), hidden) in (
            b"{'KEY': '***'}",
            b"{'KEY': \"***\"}",
            b"{'KEY': b'***'}",
            b"{'KEY': b\"***\"}",
        )
    small = re.sub("%..", lambda match: match[0].lower(), quote(core, safe="")).encode()
    assert mask(small, hidden) == b"***"


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=50), max_size=4))
def test_longest_first_and_nothing_short(values: dict[str, bytes]) -> None:
    hidden = needles(values)
    assert all(len(needle) >= 6 for needle in hidden)
    assert list(hidden) == sorted(set(hidden), key=lambda n: (-len(n), n))


def test_lines_and_passwords_of_files() -> None:
    conf = b"[global]\nindex-url = https://me:hunter22@host/simple\ntoken: 'abc-def-ghi'\nx = 1\n"
    hidden = needles({"pip.conf": conf})
    shown = mask(b"at hunter22; abc-def-ghi; index-url = https://me:hunter22@host/simple; x = 1", hidden)
    assert shown == b"at ***; ***; ***; x = 1"
    key = b"-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n"
    assert mask(b"  MIIEvQIBADAN\r\n  BgkqhkiG9w0B", needles({"K": key})) == b"  ***\r\n  ***"


@pytest.mark.parametrize("width", [76, 64])
def test_base64_in_lines(width: int) -> None:
    value = (
        b"-----BEGIN KEY-----\n" + b"".join(b"%064d\n" % (7**n) for n in range(30)) + b"-----END KEY-----\n"
    )
    encoded = base64.b64encode(value)
    lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    shown = mask(b"\n".join(lines), needles({"KEY": value})).split(b"\n")
    assert set(shown[:-1]) == {b"***"}
    assert len(shown[-1]) < 16


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("width", [76, 64])
@pytest.mark.parametrize("size", range(100, 106))
def test_base64_in_lines_of_what_a_variable_holds(size: int, width: int, ends: bytes) -> None:
    """That has no line end, whatever the stored value ends in; of a file it is encoded too."""
    value = random.Random(size).randbytes(size - 1) + b"\xff"
    hidden = needles({"KEY": value + ends})
    for printed in (value, value + ends):
        encoded = base64.b64encode(printed)
        lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        shown = mask(b"\n".join(lines), hidden).split(b"\n")
        assert set(shown[:-1]) == {b"***"}
        assert re.fullmatch(rb"\*\*\*[0CDKNQgo=]{0,5}", shown[-1])  # of line ends, if anything


def test_large_values_are_found_in_pieces() -> None:
    value = b"".join(b"%d:" % number for number in range(4000))
    hidden = needles({"K": value})
    assert max(map(len, hidden)) <= 3 * 4096
    assert set(mask(value, hidden)) == set(b"*")


@pytest.mark.parametrize("ends", [b"", b"\n"])
def test_of_what_is_very_large_the_first_part_is_found_and_its_needles_are_few(ends: bytes) -> None:
    value = random.Random(7).randbytes(1_000_000).replace(b"\n", ends)
    hidden = needles({"K": value})
    assert sum(map(len, hidden)) < 100 * MOST
    for form in (value[:MOST], quote(value[:MOST], safe="").encode()):
        assert set(mask(form, hidden)) == set(b"*")


def test_values_don_t_show_themselves() -> None:
    secrets = Secrets({"KEY": b"hunter22"})
    assert "hunter22" not in f"{secrets} {secrets!r} {[secrets]} {[{1: secrets}]}"
    assert "KEY" in repr(secrets)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secrets)
    assert dict(secrets) == {"KEY": b"hunter22"}


def test_each_kind_goes_its_way() -> None:
    needs = (Need("A", "env"), Need("B", "env", variable="C"), Need("pip.conf", "file", "~/pip.conf"))
    values = Secrets({"A": b"one\n", "B": b"two", "pip.conf": b"three\n"})
    assert variables(needs, values) == {"A": b"one", "C": b"two"}
    assert files(needs, values) == {"pip.conf": b"three\n"}
