"""Parameters as arguments: every byte as the user wrote it, and no shell but where one is asked for."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweepfw.core.command import Cmd, Secret, argv, cmd, shown, vanishing
from sweepfw.core.model import Spec
from sweepfw.core.sequences import Interval
from sweepfw.core.space import Parameter, Space
from sweepfw.core.values import Number

PLACES = {"output": "/out", "checkpoint": "/ckpt", "trial": "7", "sweep": "demo-1"}
NASTY = [
    "; rm -rf ~",
    "$(id)",
    "`id`",
    "*",
    "it's",
    '"quoted"',
    "a\nb",
    "tab\there",
    "\\",
    "\\n",
    "{trial}",
    "{{x}}",
    "🦆",
    "שלום",
    "",
    " ",
    "-x",
    "--",
    "%s",
    "!!",
    "a=b",
    "$HOME",
    "${x}",
    "&& true",
]
texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs", "Cc"])))


def spec(*command, **settings):
    return Spec("demo", "train", command, **settings)


def flags(value, **settings):
    return argv(spec("x", **settings), {"name": value}, PLACES)[1:]


@pytest.mark.parametrize(
    ("value", "equals", "space", "bare"),
    [
        ("a b", ["--name=a b"], ["--name", "a b"], ["name=a b"]),
        ("", ["--name="], ["--name", ""], ["name="]),
        (Number("0.10"), ["--name=0.10"], ["--name", "0.10"], ["name=0.10"]),
        (Number("-1"), ["--name=-1"], ["--name", "-1"], ["name=-1"]),
        (True, ["--name"], ["--name"], ["name=true"]),
        (False, [], [], ["name=false"]),
        (None, [], [], []),
        (
            (Number("64"), "b"),
            ["--name=64", "--name=b"],
            ["--name", "64", "b"],
            ["name=64", "name=b"],
        ),
        (
            (True, None),
            ["--name=true", "--name=null"],
            ["--name", "true", "null"],
            ["name=true", "name=null"],
        ),
    ],
)
def test_flags(value, equals, space, bare):
    assert flags(value) == equals
    assert flags(value, flags="space") == space
    assert flags(value, flags="bare") == bare


def test_booleans():
    assert flags(True, booleans="value") == ["--name=true"]
    assert flags(False, booleans="value") == ["--name=false"]
    assert flags(False, booleans="value", flags="space") == ["--name", "false"]
    assert flags(True, booleans="negate") == ["--name"]
    assert flags(False, booleans="negate") == ["--no-name"]
    assert flags(False, booleans="negate", flags="bare") == ["name=false"]
    for booleans in ("flag", "value", "negate"):
        assert flags(None, booleans=booleans) == []


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("{lr}", ["0.10"]),
        ("--rate={lr}", ["--rate=0.10"]),
        ("{lr}:{lr}", ["0.10:0.10"]),
        ("{output}/{trial}-{sweep}", ["/out/7-demo-1"]),
        ("{checkpoint}", ["/ckpt"]),
        ("{unknown}", ["{unknown}"]),
        ("{}", ["{}"]),
        ("{ lr }", ["{ lr }"]),
        ("{{lr}}", ["{lr}"]),
        ("{{{lr}}}", ["{0.10}"]),
        ("{{", ["{"]),
        ("}}", ["}"]),
        ("{layers}", ["64", "32"]),
        ("l={layers}", ["l=64 32"]),
        ("{on}", ["true"]),
        ("{none}", ["null"]),
        ("{momentum}", []),
        ("--m={momentum}", []),
        ("\\{lr}", ["\\0.10"]),
    ],
)
def test_placeholders(item, expected):
    params = {"lr": Number("0.10"), "layers": (Number("64"), Number("32")), "on": True, "none": None}
    space = Space(
        (*(Parameter(name, (value,)) for name, value in params.items()), Parameter("momentum", ("1",)))
    )
    got = argv(spec("run", item, space=space.to_json()), params, PLACES)
    rest = {"lr": ["--lr=0.10"], "layers": ["--layers=64", "--layers=32"], "on": ["--on"], "none": []}
    used = [name for name in params if f"{{{name}}}" in item.replace("{{" + name + "}}", "")]
    if item == "{{{lr}}}":
        used = ["lr"]
    assert got == ["run", *expected, *(part for name in params if name not in used for part in rest[name])]


def test_a_parameter_wins_over_a_place_of_its_name():
    assert argv(spec("run", "{output}"), {"output": "mine"}, PLACES) == ["run", "mine"]
    assert argv(spec("run"), {"output": "mine"}, PLACES) == ["run", "--output=mine"]


@given(texts, texts)
def test_any_text_reaches_the_command_as_it_is(one, other):
    params = {"a": one, "b": other}
    assert argv(spec("run", "{a}"), params, PLACES) == ["run", one, f"--b={other}"]
    assert argv(spec("run", flags="space"), params, PLACES) == ["run", "--a", one, "--b", other]


ECHO = "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())"


def echoed(command):
    out = subprocess.run(command, capture_output=True, check=True).stdout
    return out.decode().split("\0")


def test_nasty_values_reach_a_real_command_byte_for_byte():
    params = {f"p{n}": value for n, value in enumerate(NASTY)}
    command = argv(spec(sys.executable, "-c", ECHO, "{p0}"), params, PLACES)
    assert echoed(command) == [NASTY[0], *(f"--p{n}={value}" for n, value in enumerate(NASTY) if n)]


def test_shell_text_gets_the_other_parameters_at_its_end():
    command = argv(spec("cd /tmp && run {lr} >{output}/log\n", shell=True), {"lr": "a b", "c": "x y"}, PLACES)
    assert command == ["/bin/sh", "-c", "cd /tmp && run 'a b' >/out/log \"$@\"", "sh", "--c=x y"]


def test_shell_text_may_say_where_they_go_or_have_none():
    command = argv(spec('run "$@" | tee log', shell=True), {"a": "1"}, PLACES)
    assert command == ["/bin/sh", "-c", 'run "$@" | tee log', "sh", "--a=1"]
    assert argv(spec("run {a}; true", shell=True), {"a": "1"}, PLACES)[2:] == ["run 1; true", "sh"]


SHELL = [
    "show {v}",
    'show "{v}"',
    "show '{v}'",
    'show "$(show {v}; echo .)"',
    'show "$(show "{v}"; echo .)"',
    "show \"$(show '{v}'; echo .)\"",
    "show a'{v}'\"{v}\"{v}",
    "# it's {v}\nshow {v}",
    "(show {v})",
    'show "`show {v}; echo .`"',
    "show {v} # {v} isn't\ntrue",
    "show \\' {v}",
]


@pytest.mark.parametrize("line", SHELL)
def test_in_shell_text_a_value_stays_one_text_wherever_it_stands(line):
    code = "import sys; sys.stdout.write('|'.join(sys.argv[1:]))"
    show = f'show() {{ \'{sys.executable}\' -c "{code}" "$@"; }}\n'
    values = NASTY if line in SHELL[:3] else ["$(echo bad) \"'`echo bad`\\ {v}\n;echo bad"]
    script = "".join(f"{argv(spec(line, shell=True), {'v': value}, {})[2]}\necho @@\n" for value in values)
    run = subprocess.run(["/bin/sh", "-c", show + script], capture_output=True, text=True, check=True)
    got = run.stdout.split("@@\n")[:-1]
    expected = {
        SHELL[3]: "{}.",
        SHELL[4]: "{}.",
        SHELL[5]: "{}.",
        SHELL[6]: "a{0}{0}{0}",
        SHELL[9]: "{}.",
        SHELL[11]: "'|{}",
    }.get(line, "{}")
    assert [text.rstrip("\n") for text in got] == [expected.format(value).rstrip("\n") for value in values]


def test_shell_variables_and_unknown_names_stay():
    line = 'echo ${lr} ${HOME} {nothing} {{lr}} {gone} "{layers}" {layers}'
    space = Space((Parameter("lr", ("1",)), Parameter("gone", ("1",))))
    params = {"lr": "1", "layers": ("a b", "c")}
    command = argv(spec(line, shell=True, space=space.to_json()), params, {})
    assert command[2] == 'echo ${lr} ${HOME} {nothing} {lr}  "a b c" \'a b\' c "$@"'


def test_booleans_that_vanish_are_named():
    several = Space(
        (
            Parameter("a", (True, False)),
            Parameter("b", (True,)),
            Parameter("c", (False,)),
            Parameter("d", ("false", None)),
            Parameter("e", Interval(Number("0"), Number("1000000000"))),
            Parameter("f", (True,)),
        ),
        include=({"a": True, "d": "x", "e": Number("1"), "f": False},),
    )
    assert vanishing(spec("run", "{c}"), several) == ["a", "f"]
    assert vanishing(spec("run"), several) == ["a", "c", "f"]
    assert vanishing(spec("run", booleans="value"), several) == []
    assert vanishing(spec("run", booleans="negate"), several) == []
    assert vanishing(spec("run", flags="bare"), several) == []


def test_secrets_do_not_show():
    command = cmd("login", "--password", Secret("hunter two"), "a b")
    assert command.reveal() == ["login", "--password", "hunter two", "a b"]
    assert command.quoted() == "login --password *** 'a b'"
    assert "hunter" not in repr(command) + str(command) + f"{command.secrets}"
    assert command == Cmd(("login", "--password", Secret("hunter two"), "a b"))
    assert hash(command) == hash(cmd("login", "--password", Secret("hunter two"), "a b"))
    assert shown(["a b", "c"]) == "'a b' c"
