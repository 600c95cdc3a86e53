"""Whether a chat template only shows the texts of a conversation: then it need not run again for other texts.

Most of what templates do with a message's content is to write it down between marks. Where a template does nothing else
with any content, its way through a conversation depends on the roles alone, and so does all that it writes between the
contents. That is read off the template's syntax tree, in which every mention of a message has to be of a known kind;
whatever is not known here counts as a look at the content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from jinja2 import nodes

# What a plain message is asked for beside its content: its role, and what it does not have.
_OTHER_KEYS = frozenset({"role", "name", "tool_calls", "tool_call_id"})
_LOOP_ATTRIBUTES = frozenset({"first", "last", "index", "index0", "revindex", "revindex0", "length"})
# Without chance or time.
_FILTERS = frozenset({"trim", "upper", "lower", "length", "tojson"})
_TESTS = frozenset({"defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "true", "false"})
# Of these expressions all parts are looked at.
_CALCULATIONS = (nodes.BinExpr, nodes.Not, nodes.Neg, nodes.Compare, nodes.Operand, nodes.List, nodes.Tuple)
_ATOMS = (nodes.Const, nodes.TemplateData, nodes.Break, nodes.Continue)


class _Kind(Enum):
    FREE = "the same whatever the contents are"
    TEXT = "contents as they are, and what is free, one behind the other"
    MESSAGE = "a message"
    MESSAGES = "the list of messages"


class _LookError(Exception):
    """The template looks at a content, or might."""


_Names = Mapping[str, _Kind]


def is_plain(template: nodes.Template) -> bool:
    """Whether what it writes for messages of role and content is the contents, between texts that follow from roles."""
    try:
        _check(template.body, {"messages": _Kind.MESSAGES, "raise_exception": _Kind.FREE})
    except _LookError:
        return False
    return True


def constants(template: nodes.Template) -> Iterator[object]:
    """All that stands in the template itself, of which it makes what it writes."""
    for text in template.find_all(nodes.TemplateData):
        yield text.data
    for constant in template.find_all(nodes.Const):
        yield constant.value


def _check(body: list[nodes.Node], names: _Names) -> None:
    for statement in body:
        if isinstance(statement, nodes.Output):
            _joined([_kind(shown, names) for shown in statement.nodes])
        elif isinstance(statement, nodes.If):
            _free(statement.test, names)
            for branch in (statement.body, statement.elif_, statement.else_):
                _check(list(branch), names)
        elif isinstance(statement, nodes.For):
            _check_loop(statement, names)
        elif isinstance(statement, nodes.Assign):
            _check_assignment(statement, names)
        elif isinstance(statement, nodes.CallBlock) and isinstance(statement.call.node, nodes.ExtensionAttribute):
            _check(statement.body, names)  # ``{% generation %}``, which writes what is in it
        elif not isinstance(statement, _ATOMS):
            raise _LookError


def _check_assignment(assignment: nodes.Assign, names: _Names) -> None:
    if not isinstance(assignment.target, nodes.Name) or assignment.target.name in names:
        raise _LookError
    _free(assignment.node, names)


def _check_loop(loop: nodes.For, names: _Names) -> None:
    over = _kind(loop.iter, names)
    if not isinstance(loop.target, nodes.Name) or loop.target.name in names or loop.recursive:
        raise _LookError
    if over not in (_Kind.FREE, _Kind.MESSAGES):
        raise _LookError
    inside = {**names, loop.target.name: _Kind.MESSAGE if over is _Kind.MESSAGES else _Kind.FREE}
    if loop.test is not None:
        _free(loop.test, inside)
    _check(loop.body, inside)
    _check(loop.else_, names)


def _free(expression: nodes.Node, names: _Names) -> None:
    if _kind(expression, names) is not _Kind.FREE:
        raise _LookError


def _kind(expression: nodes.Node, names: _Names) -> _Kind:  # noqa: C901, PLR0911 - a case for each kind of expression
    if isinstance(expression, _ATOMS):
        return _Kind.FREE
    if isinstance(expression, nodes.Name):
        if expression.name == "loop":  # but for its attributes, it knows the messages before and behind
            raise _LookError
        return names.get(expression.name, _Kind.FREE)
    if isinstance(expression, (nodes.Getattr, nodes.Getitem)):
        return _kind_of_part(expression, names)
    if isinstance(expression, (nodes.Add, nodes.Concat)):
        parts = expression.nodes if isinstance(expression, nodes.Concat) else [expression.left, expression.right]
        return _joined([_kind(part, names) for part in parts])
    if isinstance(expression, nodes.CondExpr) and expression.expr2 is not None:
        _free(expression.test, names)
        return _joined([_kind(expression.expr1, names), _kind(expression.expr2, names)])
    if isinstance(expression, nodes.Test) and expression.name in _TESTS and not expression.args:
        _kind(expression.node, names)  # of a content, too, the answer is always the same: it is a text
        return _Kind.FREE
    if isinstance(expression, nodes.Filter) and expression.name in _FILTERS and expression.node is not None:
        is_count = expression.name == "length" and _kind(expression.node, names) is _Kind.MESSAGES
        if not is_count:
            _all_free(expression, names)
        return _Kind.FREE
    if isinstance(expression, nodes.Call):
        if not (isinstance(expression.node, nodes.Name) and expression.node.name == "raise_exception"):
            raise _LookError
        _all_free(expression, names)
        return _Kind.FREE
    if isinstance(expression, _CALCULATIONS):
        _all_free(expression, names)
        return _Kind.FREE
    raise _LookError


def _all_free(expression: nodes.Node, names: _Names) -> None:
    for part in expression.iter_child_nodes():
        _free(part, names)


def _joined(kinds: list[_Kind]) -> _Kind:
    if not {_Kind.FREE, _Kind.TEXT}.issuperset(kinds):
        raise _LookError
    return _Kind.TEXT if _Kind.TEXT in kinds else _Kind.FREE


def _kind_of_part(expression: nodes.Getattr | nodes.Getitem, names: _Names) -> _Kind:
    whole = expression.node
    if isinstance(expression, nodes.Getattr):
        key: object = expression.attr
    elif isinstance(expression.arg, nodes.Neg) and isinstance(expression.arg.node, nodes.Const):
        key = -expression.arg.node.value
    else:
        key = expression.arg.value if isinstance(expression.arg, nodes.Const) else None
    if isinstance(whole, nodes.Name) and whole.name == "loop" and key in _LOOP_ATTRIBUTES:
        return _Kind.FREE
    of_whole = _kind(whole, names)
    if of_whole is _Kind.MESSAGES and isinstance(expression, nodes.Getitem) and type(key) is int:
        return _Kind.MESSAGE
    if of_whole is _Kind.MESSAGE and key == "content":
        return _Kind.TEXT
    if (of_whole is _Kind.MESSAGE and key in _OTHER_KEYS) or (of_whole is _Kind.FREE and key is not None):
        return _Kind.FREE
    raise _LookError
