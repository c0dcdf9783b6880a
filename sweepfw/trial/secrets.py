"""A task's secrets on the way to who starts its commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sweepfw.core.secrets import Need, Secrets, files, needles, variables
from sweepfw.errors import SweepError
from sweepfw.trial.guard.secret import Hidden, SecretFolder, memory


def hidden(needs: Iterable[Need], values: Secrets) -> Hidden | None:
    """What keepers and builders are given; None where nothing is needed."""
    needs = tuple(needs)
    if not needs:
        return None
    return Hidden(variables(needs, values), files(needs, values), needles(values))


@contextmanager
def revealed(secrets: Hidden | None, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment for commands that may have the secrets; their files last as long as this does."""
    if secrets is None:
        yield dict(env)
        return
    folder = SecretFolder()
    try:
        try:
            path = folder.make(secrets.files)
        except OSError as error:
            raise SweepError(f"secrets: {error.filename or ''} {error.strerror}") from None
        yield secrets.over(env, path)
    finally:
        folder.drop()


def check_place(needs: Iterable[Need]) -> None:
    """SweepError where a secret is to be a file and this machine has no memory to put it in."""
    for need in needs:
        if need.kind == "file":
            try:
                memory()
            except OSError as error:
                raise SweepError(f"secret {need.name}: {error.strerror}") from None
