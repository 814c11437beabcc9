"""`sparc`: the command line. Each command is imported only when it is called."""

from __future__ import annotations

import importlib
import importlib.util

import typer
import typer.core

# name -> (module, attribute): a function becomes one command, a Typer app a group of commands.
COMMANDS = {
    "align": ("sparc_core.scripts.align", "command"),
    "reconstruct": ("sparc_core.scripts.reconstruct", "command"),
    "cad": ("sparc_core.scripts.cad", "app"),
    "pretrain": ("sparc_core.scripts.pretrain", "command"),
    "finetune": ("sparc_core.scripts.finetune", "app"),
    "train-perception": ("sparc_core.scripts.train_perception", "app"),
    "train-baseline": ("sparc_core.scripts.train_baseline", "app"),
    "prepare": ("sparc_core.scripts.prepare", "app"),
    "calibrate": ("sparc_core.scripts.calibrate", "command"),
    "evaluate": ("sparc_core.scripts.evaluate", "app"),
}


class LazyCommands(typer.core.TyperGroup):
    """A group that imports a command's module when the command is asked for.

    `sparc align --help` then does not wait for what training needs.
    """

    def list_commands(self, ctx) -> list[str]:
        """Names of the commands whose modules are there."""
        return [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx, cmd_name: str):
        """The click command, or None for a name there is none for."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute = COMMANDS[cmd_name]
        target = getattr(importlib.import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode="rich")
            single.command(cmd_name)(target)
            target = single
        command = typer.main.get_command(target)
        command.name = cmd_name
        return command


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


def _print_version(wanted: bool) -> None:
    if wanted:
        from sparc_core import __version__

        typer.echo(f"sparc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Align CAD models to the objects in an image: rotation, translation and three scales each."""


if __name__ == "__main__":
    app()
