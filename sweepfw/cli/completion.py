"""`completion`: the script that teaches a shell our names."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, sweeps, trials, projects and tasks in SHELL.

    \b
    bash:  echo 'eval "$(sweepfw completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(sweepfw completion zsh)"' >> ~/.zshrc
    fish:  sweepfw completion fish > ~/.config/fish/completions/sweepfw.fish
    """
    from click.shell_completion import get_completion_class

    from sweepfw.cli.main import cli

    script = get_completion_class(shell)
    assert script is not None  # click knows all three
    # Not script.source(): for bash it starts bash to ask its version, and may refuse.
    source = script(cli, {}, "sweepfw", "_SWEEPFW_COMPLETE")
    click.echo(source.source_template % source.source_vars())
