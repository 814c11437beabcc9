"""Message definitions for bags: rosbags knows ROS 2's common ones, the others are read from the packages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore


def typestore_for(names: Iterable[str]) -> Typestore:
    """A store that holds the message types `names` ('package/msg/Name') and all they are made of.

    Raises ValueError naming a type whose package is not installed.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    found: dict = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in store.fielddefs or name in found:
            continue
        added = get_types_from_msg(_definition(name), name)
        found |= added
        waiting += [part for _, fields in added.values() for part in _message_types(fields)]
    store.register(found)
    return store


def _definition(name: str) -> str:
    package, *_, kind = name.split("/")
    try:
        path = Path(get_package_share_directory(package)) / "msg" / f"{kind}.msg"
    except PackageNotFoundError as error:
        raise ValueError(f"message type {name}: package {package} is not installed") from error
    if not path.is_file():
        raise ValueError(f"message type {name}: {path} does not exist")
    return path.read_text()


def _message_types(fields) -> list[str]:
    """Names of the messages among the fields (name, (kind, what)) of a definition, through arrays."""
    names = []
    for _, (_, what) in fields:
        while isinstance(what, tuple) and what and isinstance(what[0], tuple):
            what = what[0][1]  # an array: ((kind, what), length)
        if isinstance(what, str):
            names.append(what)
    return names
