"""The small language of a model's `rules`: `"width % heads == 0"` over the model's own keys.

Names, numbers, texts, `+ - * / // % **`, comparisons, `in`, `and`, `or`, `not`, `a if b else c`, `len`, and nothing
else. No eval.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

LARGEST_EXPONENT = 64


def _power(base: float, exponent: float) -> float:
    """base ** exponent, of a size that is computed at once."""
    if abs(exponent) > LARGEST_EXPONENT:
        raise OverflowError("too large a power")
    return base**exponent


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}


def names(expression: str) -> set[str]:
    """The keys that an expression speaks of."""
    tree = ast.parse(expression, mode="eval")
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"len"}


def holds(expression: str, values: Mapping[str, Any]) -> bool:
    """Whether the expression is true of `values`; one that cannot be computed (null % 2, 1 / 0) is not."""
    try:
        return bool(_value(ast.parse(expression, mode="eval").body, values))
    except (TypeError, ArithmeticError):
        return False


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.List(elts=members) | ast.Tuple(elts=members) | ast.Set(elts=members):
            return [_value(member, values) for member in members]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BoolOp(op=op, values=[*terms]):
            return _first_deciding(op, terms, values)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, values) else orelse, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_number(_value(left, values)), _number(_value(right, values)))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            chain = [_value(term, values) for term in (left, *comparators)]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, chain, chain[1:], strict=False))
        case ast.Call(func=ast.Name(id="len"), args=[argument], keywords=[]):
            return len(_value(argument, values))
    raise ValueError(f"{ast.unparse(node)} cannot be part of a rule")


def _first_deciding(op: ast.boolop, terms: list[ast.expr], values: Mapping[str, Any]) -> Any:
    """`and` and `or` as Python has them: the value of the term that decides, the others unread."""
    for term in terms:
        value = _value(term, values)
        if bool(value) == isinstance(op, ast.Or):
            break
    return value


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value
