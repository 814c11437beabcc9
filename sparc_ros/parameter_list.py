"""Parameters as a frozen dataclass: its fields carry type, default, range, description, read-only.

`parameter` makes a field, `check_values` validates an instance, `declare_parameters` declares every
field on a node and returns the instance. Nothing above `declare_parameters` needs ROS, so a list can
be checked and printed without a graph.
"""

from __future__ import annotations

import dataclasses
import difflib
from types import SimpleNamespace

# Parameters that every rclpy node has or that carry QoS overrides: not ours, and not typing errors.
FOREIGN_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides", "diagnostic_updater")


def parameter(
    default, description: str, *, choices=(), minimum=None, maximum=None, read_only=True, at_start=False
):
    """A dataclass field that is a ROS parameter; its default fixes the type.

    choices: allowed strings. minimum, maximum: inclusive. read_only: cannot change once the node is
    configured (an ordinary node is so from its start). at_start: a lifecycle node's, too, is fixed then.
    """
    metadata = {
        "description": description,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "read_only": read_only or at_start,
        "at_start": at_start,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_values(parameters) -> None:
    """Raise ValueError naming the first parameter outside its range or list."""
    for item in dataclasses.fields(parameters):
        _check_value(item, getattr(parameters, item.name))


def _check_value(item: dataclasses.Field, value) -> None:
    rules = item.metadata
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"parameter {item.name}: must be one of {list(rules['choices'])}, got {value!r}")
    too_small = rules["minimum"] is not None and not value >= rules["minimum"]
    too_large = rules["maximum"] is not None and not value <= rules["maximum"]
    if too_small or too_large:
        raise ValueError(
            f"parameter {item.name}: must be in [{rules['minimum']}, {rules['maximum']}], got {value!r}"
        )


def resolve_changes(current, changes: dict, configured: bool = True):
    """The parameters `current` with some values changed; ValueError naming a read-only or invalid one.

    configured: whether the node has taken over the values of read-only parameters.
    """
    rules = {item.name: item.metadata for item in dataclasses.fields(current)}
    for name in changes:
        if rules[name]["read_only"] and (configured or rules[name]["at_start"]):
            raise ValueError(f"parameter {name}: is read only while the node runs")
    return dataclasses.replace(current, **{name: _to_field(value) for name, value in changes.items()})


def declare_parameters[P](node, kind: type[P], lifecycle: bool = False) -> P:
    """Declare every field of the dataclass `kind` on an rclpy node and return the values.

    lifecycle: read-only parameters may change while the node is unconfigured, so that ROS is told only of
    those `at_start` as read only; the node's own callback (`resolve_changes`) refuses the others.
    The node must be created with `automatically_declare_parameters_from_overrides=True`: only so can
    a misspelt name in a launch file be seen and reported. Raises ValueError naming the parameter.
    """
    ros = _ros_classes()
    given = node.get_parameters_by_prefix("")
    known = {item.name for item in dataclasses.fields(kind)}
    for name in sorted(set(given) - known):
        if name.split(".")[0] not in FOREIGN_PARAMETERS:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            node.get_logger().warning(f"parameter {name} is unknown to this node and has no effect{hint}")
    values = {}
    for item in dataclasses.fields(kind):
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        value = default
        if item.name in given:
            value = _checked_override(item, given[item.name].value)
            node.undeclare_parameter(item.name)
        values[item.name] = _to_field(value)
        _check_value(item, values[item.name])
        # The override is in `value` already, a whole number made a float where one is wanted.
        descriptor = _descriptor(item, ros)
        descriptor.read_only = item.metadata["at_start" if lifecycle else "read_only"]
        node.declare_parameter(item.name, value, descriptor, ignore_override=True)
    return kind(**values)


def _ros_classes() -> SimpleNamespace:
    # Imported on use, so that the list above can be read where there is no ROS.
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

    return SimpleNamespace(
        Descriptor=ParameterDescriptor, Type=ParameterType, Float=FloatingPointRange, Integer=IntegerRange
    )


def _descriptor(item: dataclasses.Field, ros: SimpleNamespace):
    rules = item.metadata
    types = {
        bool: ros.Type.PARAMETER_BOOL,
        int: ros.Type.PARAMETER_INTEGER,
        float: ros.Type.PARAMETER_DOUBLE,
        str: ros.Type.PARAMETER_STRING,
        tuple: ros.Type.PARAMETER_STRING_ARRAY,
    }
    descriptor = ros.Descriptor(
        name=item.name,
        type=types[type(item.default)],
        description=rules["description"],
    )
    if rules["choices"]:
        descriptor.additional_constraints = f"one of: {', '.join(rules['choices'])}"
    if isinstance(item.default, float) and rules["minimum"] is not None:
        descriptor.floating_point_range = [
            ros.Float(from_value=float(rules["minimum"]), to_value=float(rules["maximum"]), step=0.0)
        ]
    elif isinstance(item.default, int) and rules["minimum"] is not None:
        descriptor.integer_range = [
            ros.Integer(from_value=rules["minimum"], to_value=rules["maximum"], step=1)
        ]
    return descriptor


def _checked_override(item: dataclasses.Field, value):
    """The override with its type checked; a whole number is taken for a float (2 for 2.0)."""
    if isinstance(item.default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(item.default, tuple):
        if isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value):
            return list(value)
        raise ValueError(f"parameter {item.name}: must be a list of strings, got {value!r}")
    if type(value) is not type(item.default):
        raise ValueError(
            f"parameter {item.name}: must be of type {type(item.default).__name__}, "
            f"got {value!r} ({type(value).__name__})"
        )
    return value


def _to_field(value):
    return tuple(value) if isinstance(value, list) else value
