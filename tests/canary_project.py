"""A project whose trials have secrets, and do with them what trials do: use them, print them, fail with them.
Runs on one machine and on a deployment alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from canary import hard, word

TRIAL = '''
import hashlib, json, os, pathlib, stat, sys, time
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import sweepfw
import tiny  # the environment was built with the index that only the secret opens

told = dict(item[2:].split("=", 1) for item in sys.argv[1:])
folder = pathlib.Path(os.environ["SWEEPFW_SECRETS"])
values = {"TOKEN": os.environ["TOKEN"], "HARD": os.environ["OTHER_NAME"]}
values |= {name: (folder / name).read_text() for name in ("key.pem", "pip.conf")}


def use():
    """They are what was given, and lie as they should."""
    for name, value in values.items():
        assert hashlib.sha256(value.encode()).hexdigest() == os.environ["SHA_" + name.replace(".", "_")], name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o400}
    assert {path.name for path in folder.iterdir()} == {"key.pem", "pip.conf"}
    assert os.environ["PIP_CONFIG_FILE"] == str(folder / "pip.conf")
    assert "HARD" not in os.environ
    print("used", folder, flush=True)


def tell():
    """All ways in which one prints a secret without wanting to."""
    for name, value in values.items():
        data = value.encode()
        print(name, "=", value)
        print("URL:", quote(value), quote(value, safe=""), quote_plus(value))
        print("JSON:", json.dumps({"value": value}), json.dumps({"value": value}, ensure_ascii=False))
        for shift in range(4):
            print("base64:", b64encode(b"x" * shift + data + b"y").decode())
            print("for URLs:", urlsafe_b64encode(b"x" * shift + data + b"y").decode())
        print("on stderr", value, file=sys.stderr)
        for at in range(0, len(data), 5):
            os.write(1, data[at : at + 5])
            time.sleep(0.01)
        print(flush=True)
    print(f"loss=0.5 token={values['TOKEN']}", flush=True)
    sweepfw.report(loss=0.25, step=1)


def fail():
    values["both"] = values["TOKEN"] + " and " + values["HARD"]
    raise ConnectionError(f"401 for https://user:{values['TOKEN']}@example.invalid/?q={quote(values['HARD'])}"
                          f" with {values['key.pem']} and {values['both']}")


print("let out:", told["control"], flush=True)
{"use": use, "tell": tell, "fail": fail}[told["do"]]()
'''


@dataclass
class Canaries:
    """The values that the user stores. `index`: where pip is sent, with a password that is one of them."""

    index: Callable[[str], str]
    password: str = field(default_factory=word)
    token: str = field(default_factory=lambda: f"sk-{word()}")
    hard: str = field(default_factory=hard)
    key: str = field(default_factory=lambda: f"--- KEY ---\n{word(40)}\n{hard()}\n{word(12)}\n--- END ---\n")

    @property
    def stored(self) -> dict[str, str]:
        conf = f"[global]\nindex-url = {self.index(self.password)}\nverbose = 3\ntimeout = 60\nretries = 0\n"
        return {"TOKEN": self.token, "HARD": self.hard, "key.pem": self.key, "pip.conf": conf}

    @property
    def secrets(self) -> dict[str, str]:
        """What must be nowhere, by name."""
        lines = "\n".join(line for line in self.key.splitlines() if not line.startswith("---"))
        return {
            "TOKEN": self.token,
            "HARD": self.hard,
            "key.pem": lines,
            "password of pip.conf": self.password,
        }

    def write(self, folder: Path, control: str, requirements: str, more: str = "") -> None:
        """The project that needs them, in its folder."""
        folder.mkdir(parents=True)
        (folder / "trial.py").write_text(TRIAL)
        (folder / "requirements.txt").write_text(requirements)
        shas = {f"SHA_{name.replace('.', '_')}": sha(value) for name, value in self.stored.items()}
        (folder / "project.yml").write_text(
            "command: [python, trial.py]\nenvironment: {requirements: requirements.txt}\n"
            "objective: {metric: loss, goal: minimize}\nmetrics: [loss]\nmax_failures: null\n"
            "secrets: {TOKEN: env, HARD: {env: OTHER_NAME}, key.pem: file, pip.conf: file}\n"
            f"variables: {{{', '.join(f'{name}: {text}' for name, text in shas.items())}}}\n"
            f"parameters: {{control: {control}, do: [use, tell, fail]}}\n{more}\n"
        )


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()
