"""`ros2 launch` for a ROS 2 that does not carry ros2launch, and the launcher behind `./run demo`.

In: a launch file, or a package and the name of one of its launch files, then NAME:=VALUE arguments.
Out: an exit status that is not zero when the launch failed or one of its processes did by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchDescription, LaunchService
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.launch_description_sources import AnyLaunchDescriptionSource
from ros2cli.command import CommandExtension


def find_launch_file(names: Sequence[str]) -> Path:
    """Path of the launch file named by `[path]` or `[package, file name]`.

    Raises ValueError naming what was not found, or found more than once.
    """
    if len(names) == 1:
        path = Path(names[0])
        if not path.is_file():
            raise ValueError(f"launch file {path} does not exist")
        return path
    if len(names) != 2:
        raise ValueError(f"expected a launch file, or a package and a file name, got {list(names)}")
    package, file_name = names
    try:
        share = Path(get_package_share_directory(package))
    except PackageNotFoundError as error:
        raise ValueError(f"package {package} was not found") from error
    found = sorted(share.rglob(file_name))
    if len(found) != 1:
        present = sorted(path.name for path in share.rglob("*.launch.*"))
        raise ValueError(f"package {package} has {len(found)} files {file_name}; its launch files: {present}")
    return found[0]


def split_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words apart from NAME:=VALUE pairs; of two pairs with one name the later counts."""
    names = [word for word in words if ":=" not in word]
    pairs = dict(word.split(":=", 1) for word in words if ":=" in word)
    return names, pairs


class _FailureWatch:
    """Remembers the processes that ended with an error before the launch was told to end them."""

    def __init__(self):
        self.failed: list[str] = []
        self._shutting_down = False

    def handlers(self) -> list[RegisterEventHandler]:
        return [
            RegisterEventHandler(OnShutdown(on_shutdown=self._on_shutdown)),
            RegisterEventHandler(OnProcessExit(on_exit=self._on_exit)),
        ]

    def _on_shutdown(self, event, context):
        self._shutting_down = True

    def _on_exit(self, event, context):
        if event.returncode != 0 and not self._shutting_down:
            self.failed.append(event.process_name)


def run_launch(path: Path, arguments: dict[str, str]) -> int:
    """Runs a launch file to its end; 0 when neither the launch nor one of its processes failed."""
    watch = _FailureWatch()
    source = AnyLaunchDescriptionSource(str(path))
    include = IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    service = LaunchService(argv=[f"{name}:={value}" for name, value in arguments.items()])
    service.include_launch_description(LaunchDescription([*watch.handlers(), include]))
    status = service.run()
    return status or int(bool(watch.failed))


def _declared_arguments(path: Path) -> list[DeclareLaunchArgument]:
    """Arguments of a launch file and of those it includes, found without running it."""
    description = AnyLaunchDescriptionSource(str(path)).get_launch_description(LaunchService().context)
    return description.get_launch_arguments()


def check_arguments(path: Path, names: Iterable[str]) -> None:
    """ROS 2 ignores an argument that nobody declared, and with it a misspelt one.

    Raises ValueError naming the arguments that the launch file does not declare.
    """
    declared = {argument.name for argument in _declared_arguments(path)}
    unknown = sorted(set(names) - declared)
    if unknown:
        raise ValueError(
            f"{path.name} has no argument {', '.join(unknown)}; it has {', '.join(sorted(declared))}"
        )


def describe_arguments(path: Path) -> str:
    """The launch file's arguments with defaults and descriptions, one a paragraph."""
    paragraphs = []
    for argument in _declared_arguments(path):
        default = argument.default_value
        text = "required" if default is None else "default: " + "".join(part.describe() for part in default)
        paragraphs.append(f"  {argument.name} ({text})\n      {argument.description}")
    return "\n".join(paragraphs) or "  no arguments"


class LaunchCommand(CommandExtension):
    """Run a launch file."""

    def add_arguments(self, parser, cli_name):
        """Adds this command's arguments to ros2cli's parser."""
        _add_arguments(parser)

    def main(self, *, parser, args):
        """Exit status for ros2cli; a text is printed as an error."""
        return _run(args)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--show-args", action="store_true", help="print the launch file's arguments")
    parser.add_argument("words", nargs="+", metavar="PACKAGE FILE | PATH | NAME:=VALUE")


def _run(args: argparse.Namespace, only_declared: bool = False) -> int | str:
    names, pairs = split_arguments(args.words)
    try:
        path = find_launch_file(names)
        if only_declared:
            check_arguments(path, pairs)
    except ValueError as error:
        return str(error)
    if args.show_args:
        sys.stdout.write(describe_arguments(path) + "\n")
        return 0
    return run_launch(path, pairs)


def main() -> int | str:
    """Entry point of `python -m sparc_ros.launch_verb`."""
    parser = argparse.ArgumentParser(description="Run a launch file.")
    _add_arguments(parser)
    return _run(parser.parse_args(), only_declared=True)


if __name__ == "__main__":
    sys.exit(main())
