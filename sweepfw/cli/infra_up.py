"""`infra up`: bring a deployment to what its configuration says."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sweepfw import crash
from sweepfw.cli import infra_hosts
from sweepfw.cli.infra_asking import Asking
from sweepfw.cli.terminal import safe
from sweepfw.errors import SweepError

if TYPE_CHECKING:
    from sweepfw.cli.infra_hosts import Asked
    from sweepfw.config.deployments import DeploymentState
    from sweepfw.core.deployment import Deployment, HeadStatus, Host
    from sweepfw.fleet.apply import StepError
    from sweepfw.fleet.up import Decision, Making
    from sweepfw.shell.shell import Shell

PATIENCE = 120.0  # seconds that workers have to answer after something was started
PATIENCE_IDLE = 60.0  # and where nothing was


@click.command()
@infra_hosts.asked
@click.option("--skip-unreachable", is_flag=True, help="Go on without worker hosts that don't answer.")
@click.option("--dry-run", is_flag=True, help="Show the steps, and do none.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
def up(what: Asked, skip_unreachable: bool, dry_run: bool, yes: bool) -> int:
    """Bring a deployment up on hosts that answer to SSH, or to what config.yml says now.

    It looks at every host first and says all that is wrong at once, prints the steps, does them side by side,
    and waits until every worker has answered. Done again, it does what is missing, else nothing.
    """
    from sweepfw.shell.access import Access, parse_trust

    trust = parse_trust(what.trust)
    deployment, old = infra_hosts.wanted(what)
    with ExitStack() as stack:
        state, fresh = stack.enter_context(infra_hosts.stated(deployment))
        if not fresh and not dry_run:
            stack.enter_context(state.lock())
        access = Access(state.known_hosts, deployment.identity, trust=trust)
        reaching = infra_hosts.Reaching(access)
        early = Asking(state) if state.complete and not dry_run else None
        if early:
            stack.callback(early.close)
            early.begin()
        shells = reaching.open(deployment.hosts)
        stack.callback(infra_hosts.close, shells)
        up = Up(deployment, old, state, what, reaching, shells, fresh, yes, early)
        return up.run(stack, skip_unreachable=skip_unreachable, dry_run=dry_run)


@dataclass(slots=True)
class Up:
    """One `up`. `old`: what the configuration's file says now; `fresh`: nothing was ever set up."""

    deployment: Deployment
    old: Deployment | None
    state: DeploymentState
    what: Asked
    reaching: infra_hosts.Reaching
    shells: dict[str, Shell | SweepError]
    fresh: bool
    yes: bool
    early: Asking | None = None  # a question to a head that is up, while hosts are looked at

    def run(self, stack: ExitStack, *, skip_unreachable: bool, dry_run: bool) -> int:
        from sweepfw.cli.infra_board import Board
        from sweepfw.fleet import up

        making = up.Making.read(self.deployment)
        access = self.reaching.access
        found = up.diagnose(
            self.deployment, self.state.uid, self.shells, access, making.image, infra_hosts.known
        )
        if code := self._complain(found, skip_unreachable=skip_unreachable):
            return code
        self._same_head(found)
        decision = up.decide(found, self.state, making, _owner())
        dropped = self._dropped(found)
        _print_steps(decision, dropped)
        if dry_run:
            return 0
        self._ask(decision, dropped)
        if self.fresh:
            self._keep(stack)
        self._write()
        crash.point("up.configured")
        if decision.steps or not self.state.complete or dropped:
            shells = {name: each for name, each in self.shells.items() if not isinstance(each, SweepError)}
            self.state.former = dropped
            with Board(decision.steps) as board:
                self._carry_out(decision, shells, making, board)
            self._take_off(dropped)
        status = self._wait(decision)
        _print_end(decision, status)
        return 0

    # -- before anything is changed ------------------------------------------------------------------

    def _complain(self, found: Decision, *, skip_unreachable: bool) -> int:
        """Say what is wrong, all of it; the exit code where that is in the way."""
        from sweepfw.cli.infra_doctor import COMPLAINTS, UNREACHABLE, picture
        from sweepfw.cli.terminal import Screen

        head = self.deployment.head
        skipped = [each for each in found.fatal if each.away and skip_unreachable and each.host != head]
        fatal = [each for each in found.fatal if each not in skipped]
        if not all(each.note for each in found.complaints):
            click.echo("\n".join(picture(found, Screen.of(sys.stderr))), err=True)
        if not fatal:
            return 0
        count = len({each.host for each in fatal})
        print(
            f"sweepfw: nothing was changed; {count} of {len(found.deployment.hosts)} hosts can't be used"
            " as they are",
            file=sys.stderr,
        )
        if any(each.away and each.host != head for each in fatal):
            print("sweepfw: --skip-unreachable goes on without hosts that don't answer", file=sys.stderr)
        return UNREACHABLE if any(each.unreachable for each in fatal) else COMPLAINTS

    def _same_head(self, found: Decision) -> None:
        """SweepError where the head would be on another machine: its ledger is where it is."""
        record = self.state.records.get(self.state.deployment.head)
        facts = found.seen.facts[self.deployment.head]
        if record is not None and record.machine_id != facts.machine_id:
            raise SweepError(
                f"{self.deployment.head}: the head of {self.deployment.name} is on "
                f"{self.state.deployment.head}, with its sweeps; `sweepfw infra down` first, then up again"
            )

    def _dropped(self, found: Decision) -> tuple[Host, ...]:
        """Hosts that may still hold something of ours, and that the configuration names no more."""
        names = {host.name for host in self.deployment.hosts}
        machines = {facts.machine_id for facts in found.seen.facts.values()}
        before = {host.name: host for host in (*self.state.former, *self.state.deployment.hosts)}
        gone = []
        for name, host in before.items():
            record = self.state.records.get(name)
            if name not in names and record is not None and record.machine_id not in machines:
                gone.append(host)
        return tuple(gone)

    def _ask(self, decision: Decision, dropped: tuple[Host, ...]) -> None:
        """What loses something needs a yes. SweepError without a terminal, exit code 1 for a no."""
        from sweepfw.config.deployment import differences

        questions = []
        if self.old is not None and self.old != self.deployment:
            changes = differences(self.old, self.deployment) or ["keeps its hosts, and other keys change"]
            questions.append(f"{self.what.path} is written anew: it {', '.join(changes)}")
        if dropped:
            names = ", ".join(host.name for host in dropped)
            questions.append(
                f"{names}: all that is ours is removed there, output files that were not pulled included"
            )
        if hosts := sorted({step.host for step in decision.steps if step.interrupts}):
            running = self._running(hosts)
            if running != 0:
                count = "trials" if running is None else f"{running} trials"
                questions.append(f"{count} that run on {', '.join(hosts)} are interrupted, and start again")
        if not questions or self.yes:
            return
        if not sys.stdin.isatty():
            raise SweepError(f"{'; '.join(questions)}. Nothing was changed; --yes says that it may be")
        for question in questions:
            click.echo(f"! {safe(question)}", err=True)
        if not click.confirm("Go on?", err=True):
            click.echo("nothing was changed", err=True)
            raise click.exceptions.Exit(1)

    def _running(self, hosts: list[str]) -> int | None:
        """How many trials run on these hosts now; None where the head does not say."""
        try:
            with Asking(self.state) as asking:
                status = asking.status()
        except SweepError:
            return None
        return sum(len(each.running) for each in status.workers if each.worker.host in hosts and each.alive)

    # -- the work ------------------------------------------------------------------------------------

    def _keep(self, stack: ExitStack) -> None:
        """From a draft to a deployment that is remembered."""
        from sweepfw.config.deployments import DeploymentState

        draft = self.state
        self.state = DeploymentState.create(self.deployment)
        crash.point("up.created")
        stack.enter_context(self.state.lock())
        self.state.uid = draft.uid
        if draft.known_hosts.exists():  # a copy: shells are open that look into the draft's
            self.state.known_hosts.touch(0o600)
            self.state.known_hosts.write_bytes(draft.known_hosts.read_bytes())
        crash.point("up.copied")
        if draft.credentials.exists():
            draft.credentials.rename(self.state.credentials)
        crash.point("up.copied")
        self.state.save()
        crash.point("up.kept")

    def _write(self) -> None:
        """The configuration as it is now, where options changed it."""
        from sweepfw.config.deployment import write_deployment

        if self.what.changing and self.old != self.deployment:
            write_deployment(self.deployment, self.what.path)
            click.echo(f"{safe(self.what.path.name)} written")

    def _carry_out(self, decision: Decision, shells: dict[str, Shell], making: Making, board: object) -> None:
        from sweepfw.fleet.apply import StepError
        from sweepfw.fleet.up import carry_out

        try:
            carry_out(decision, self.state, shells, making, board)  # type: ignore[arg-type]  # a Board is one
        except StepError as error:
            for line in _said(error):
                click.echo(line, err=True)
            raise

    def _take_off(self, dropped: tuple[Host, ...]) -> None:
        """Remove all of ours from hosts that the deployment has no more; who can't be reached is told, and
        stays remembered for the next time."""
        from sweepfw.fleet import hosts, teardown

        left = []
        for host in dropped:
            try:
                shell = hosts.open_shell(self.state, host)
                try:
                    teardown.remove(
                        shell, hosts.look(self.state, shell, host.name), self.state.uid, host.name
                    )
                finally:
                    shell.close()
                crash.point("up.taken-off")
                self.state.records.pop(host.name, None)
                click.echo(f"{host.name}: all that was ours is removed")
            except SweepError as error:
                left.append(host)
                click.echo(f"! {safe(str(error))}; the next `sweepfw infra up` tries again", err=True)
        self.state.former = tuple(left)
        self.state.save()

    def _wait(self, decision: Decision) -> HeadStatus:
        from sweepfw.fleet.up import wait_for_workers

        def heard(missing: list[str]) -> None:
            if missing:
                click.echo(f"waiting for the worker on {', '.join(missing)}", err=True)

        wanted = [name for name in self.deployment.workers if name in decision.seen.facts]
        patience = PATIENCE if decision.steps else PATIENCE_IDLE
        asking = self.early if self.early and not decision.steps else Asking(self.state)
        with asking:
            status = wait_for_workers(asking.status, wanted, patience, heard)
            if again := asking.send_again(status):
                click.echo(
                    f"trials are sent to {', '.join(again)} again; an `infra down` had begun", err=True
                )
            return status


def _owner() -> str:
    from getpass import getuser
    from platform import node

    return f"{getuser()}@{node()}"


def _said(error: StepError) -> list[str]:
    return [f"  {safe(line)}" for line in error.lines]


def _print_steps(decision: Decision, dropped: tuple[Host, ...]) -> None:
    from sweepfw.cli.words import plural

    if not decision.steps and not dropped:
        click.echo(f"{decision.deployment.name} is as it should be; nothing to do")
        return
    count = len(decision.steps) + len(dropped)
    hosts = {step.host for step in decision.steps} | {host.name for host in dropped}
    click.echo(f"{plural(count, 'step')} on {plural(len(hosts), 'host')}:")
    width = max(map(len, hosts))
    for host in decision.deployment.hosts:
        for step in decision.steps:
            if step.host == host.name:
                click.echo(f"  {host.name.ljust(width)}  {safe(step.what)}")
    for gone in dropped:
        click.echo(f"  {gone.name.ljust(width)}  remove all that is ours")


def _print_end(decision: Decision, status: HeadStatus) -> None:
    from sweepfw.cli.words import plural

    name = decision.deployment.name
    workers = [each for each in status.workers if each.alive]
    slots = sum(each.advert.slots for each in workers)
    hosts = ", ".join(sorted(each.worker.host for each in workers))
    click.echo(f"{name} is up: head on {decision.deployment.head}, {plural(slots, 'slot')} on {safe(hosts)}")
    for each in workers:
        facts = decision.seen.facts.get(each.worker.host)
        wanted = decision.deployment.host(each.worker.host).gpus != ()
        if facts and facts.gpus and wanted and not each.advert.gpus:
            click.echo(
                f"! {each.worker.host}: its GPUs don't reach the worker; `sweepfw infra doctor` tells more",
                err=True,
            )
    click.echo("next: sweepfw run PROJECT · sweepfw flower · sweepfw infra status")
