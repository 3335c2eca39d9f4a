"""From the text of an annotation to a type, and from a value to that type: the two halves of a schema.

Nothing is evaluated: an annotation is a syntax tree made of the names of `rules.py`, of int, float, str, bool,
None, Literal, list, tuple and dict, and of `|` between them.
"""

import ast
import functools
import math
import operator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from genai_cli import rules
from genai_cli.suggest import advice

LARGEST_INT = 2**63 - 1
_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "Any": Any, "list": list, "tuple": tuple, "dict": dict}
_RULED = {name: kind for name, kind in vars(rules).items() if get_origin(kind) is Annotated}
# A tensor that `sample` takes (a prompt) comes from the shell as text; the run's tokenizer makes it a tensor.
# A model that it takes (a guide) comes as the directory of its run.
_NAMES = _PLAIN | _RULED | {"Tensor": str, "GenerativeModel": str}
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


class Misfit(Exception):
    """Why a value is not of a type, as the rest of a sentence: "must be at least 1"."""


def read_annotation(node: ast.expr) -> Any:
    """The type that an annotation's syntax tree stands for. Raises ValueError for any other expression."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):  # a quoted annotation
            return read_annotation(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.BinOp(op=ast.BitOr()):
            return functools.reduce(operator.or_, map(read_annotation, _union_members(node)))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal[ast.literal_eval(choices)]
        case ast.Subscript(value=ast.Name(id="list" | "tuple" | "dict" as name), slice=ast.Tuple(elts=members)):
            return _NAMES[name].__class_getitem__(tuple(map(_read_member, members)))
        case ast.Subscript(value=ast.Name(id="list" | "tuple" | "dict" as name), slice=member):
            return _NAMES[name].__class_getitem__(_read_member(member))
    raise ValueError(f"{ast.unparse(node)} is no annotation of a configuration key")


def _union_members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_union_members(node.left), *_union_members(node.right)]
    return [node]


def _read_member(node: ast.expr) -> Any:
    is_ellipsis = isinstance(node, ast.Constant) and node.value is Ellipsis
    return Ellipsis if is_ellipsis else read_annotation(node)


def conform(value: Any, kind: Any) -> Any:
    """`value` as a `kind`, where that loses nothing: 1e4 is a whole number, 3 a number, [1, 2] a tuple. Else Misfit."""
    origin, members = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _conform_ruled(value, kind)
    if origin in (Union, UnionType):
        return _conform_union(value, members)
    if origin is Literal:
        return _conform_choice(value, members)
    if origin is dict or kind is dict:
        return _conform_dict(value, members)
    if origin in (list, tuple) or kind in (list, tuple):
        return _conform_sequence(value, origin or kind, members)
    return _conform_plain(value, kind)


def _conform_ruled(value: Any, kind: Any) -> Any:
    value = conform(value, kind.__origin__)
    for rule in kind.__metadata__:
        if not rule.holds(value):
            raise Misfit(f"must be {rule.words}")
    return value


def _conform_union(value: Any, members: tuple[Any, ...]) -> Any:
    fits, reasons, hint = [], [], ""
    for kind in members:
        try:
            fits.append(conform(value, kind))
        except Misfit as misfit:
            rule, semicolon, near = str(misfit).removeprefix("must be ").partition("; ")
            reasons.append(rule)
            hint = hint or semicolon + near
    if not fits:
        raise Misfit("must be " + " or ".join(dict.fromkeys(reasons)) + hint)
    unconverted = [fit for fit in fits if type(fit) is type(value)]  # 2.0 in `int | float` stays 2.0
    return (unconverted or fits)[0]


def _conform_choice(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
    names = [show(choice) for choice in choices]
    near = advice(value, names) if isinstance(value, str) else ""
    raise Misfit("must be one of " + ", ".join(names) + (f"; {near}" if near.startswith("did") else ""))


def _conform_dict(value: Any, members: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Misfit("must be keys with values")
    if not members:
        return value
    return {conform(key, members[0]): conform(entry, members[1]) for key, entry in value.items()}


def _conform_sequence(value: Any, container: type, members: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        count = 1 if container is list or Ellipsis in members or not members else len(members)
        raise Misfit(f"must be a list such as [{','.join([show(value)] * count)}]")
    if container is list or Ellipsis in members or not members:
        kinds = [members[0] if members else Any] * len(value)
    elif len(members) != len(value):
        raise Misfit(f"must be a list of {len(members)}")
    else:
        kinds = list(members)
    return container(conform(entry, kind) for entry, kind in zip(value, kinds, strict=True))


def _conform_plain(value: Any, kind: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and is_number and (isinstance(value, int) or value.is_integer()):
        if abs(value) > LARGEST_INT:
            raise Misfit("must be a whole number of at most 64 bits")
        return int(value)
    if kind is float and is_number:
        if not (abs(value) <= LARGEST_INT if isinstance(value, int) else math.isfinite(value)):
            raise Misfit("must be a finite number")
        return float(value)
    if kind is str and is_number and isinstance(value, int):  # a folder named 2026, a checkpoint's step
        return str(value) if abs(value) <= LARGEST_INT else _refuse(kind)
    if kind in (None, NoneType) and value is None:
        return None
    if kind in (str, bool) and isinstance(value, kind):
        return value
    return _refuse(kind)


def _refuse(kind: Any) -> Any:
    raise Misfit(f"must be {_WORDS[NoneType if kind is None else kind]}")


def show(value: Any) -> str:
    """A value as one would type it, on one line, cut where it is long."""
    match value:
        case None | True | False:
            text = {None: "null", True: "true", False: "false"}[value]
        case list() | tuple():
            text = "[" + ",".join(map(show, value[:20])) + "]"
        case dict():
            text = "{" + ",".join(f"{show(key)}:{show(entry)}" for key, entry in list(value.items())[:20]) + "}"
        case int() if abs(value) > LARGEST_INT:
            text = f"a whole number of {value.bit_length()} bits"
        case float() | int():
            text = f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
        case _:
            text = printable(str(value))
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """`text` on one line: control characters, which could rewrite a terminal, as their escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
