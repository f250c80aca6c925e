"""Mutants of a source text: each is the text with one small change that a test should notice.

Most operators are mutmut's. Its runner is not used, since it copies all mutants of a function into
the module behind a dispatcher: it leaves out class attributes, constants and decorated functions,
and processes that tests start do not see the mutant.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

DECLARES = m.Call(func=m.Name("setting") | m.Name("part") | m.Name("parts") | m.Name("positional"))
"""Calls whose sentences are the text of --help."""

LEFT_OUT = (
    m.Annotation()
    | m.Import()
    | m.ImportFrom()
    | m.Expr(m.SimpleString() | m.ConcatenatedString())  # docstrings
    | m.If(m.Name("TYPE_CHECKING"))
    | m.If(m.Comparison(m.Name("__name__")))
    | m.Assign([m.AssignTarget(m.Name("__all__"))])
)


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    :ivar line: where the changed statement begins.
    :ivar lines: (first, last) of the lines whose tests can notice; None where they run at import.
    :ivar old: the changed lines before, and ``new`` after, without their indentation.
    :ivar text: the whole file.
    """

    file: str
    line: int
    lines: tuple[int, int] | None
    old: str
    new: str
    text: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.file, self.old, self.new, self.line


def _text(node: cst.FormattedString) -> Iterator[cst.CSTNode]:
    for part in node.parts:
        if isinstance(part, cst.FormattedStringText):
            yield node.with_deep_changes(part, value=f"XX{part.value}XX")


def _string(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    # The first is XX around the string; the others only change the case.
    yield from list(mutators.operator_string(node))[:1]


def _dropped(node: cst.Expr) -> Iterator[cst.CSTNode]:
    yield cst.Pass()


def _negated(node: cst.BaseExpression) -> Iterator[cst.CSTNode]:
    # Comparisons, and, or and not have mutants of their own.
    if not isinstance(node, cst.Comparison | cst.BooleanOperation | cst.UnaryOperation):
        yield cst.UnaryOperation(cst.Not(), node.with_changes(lpar=[], rpar=[]))


def _without_argument(node: cst.Call) -> Iterator[cst.CSTNode]:
    for at, argument in enumerate(node.args):
        if argument.keyword or argument.star or (at and at == len(node.args) - 1):
            yield node.with_changes(args=[*node.args[:at], *node.args[at + 1 :]])


OPERATORS: list[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    (cst.SimpleString, _string),
    (cst.FormattedString, _text),
    (cst.Expr, _dropped),
    (cst.Call, _without_argument),
    *(
        (kind, operator)
        for kind, operator in mutators.mutation_operators
        if operator not in (mutators.operator_string, mutators.operator_arg_removal)
    ),
]


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider, ByteSpanPositionProvider)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, int, tuple[int, int] | None]] = []
        self._statements: list[cst.CSTNode] = []
        self._functions: list[cst.FunctionDef] = []
        self._declarations = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, LEFT_OUT):
            return False
        if isinstance(node, cst.BaseStatement):
            self._statements.append(node)
        if isinstance(node, cst.FunctionDef):
            self._functions.append(node)
        self._declarations += m.matches(node, DECLARES)
        is_help = self._declarations and isinstance(node, cst.SimpleString) and " " in node.value
        if self._statements and not is_help:
            line, lines = self._place()
            for kind, operator in OPERATORS:
                if isinstance(node, kind):
                    self.found += [(node, changed, line, lines) for changed in operator(node)]
            if isinstance(node, cst.If | cst.IfExp | cst.CompIf):
                self.found += [(node.test, new, line, lines) for new in _negated(node.test)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._statements and original_node is self._statements[-1]:
            self._statements.pop()
        if self._functions and original_node is self._functions[-1]:
            self._functions.pop()
        self._declarations -= m.matches(original_node, DECLARES)

    def _place(self) -> tuple[int, tuple[int, int] | None]:
        """The line of the statement around, and the lines whose tests can notice a change."""
        statement = self._statements[-1]
        first = self.get_metadata(PositionProvider, statement).start.line
        if not self._functions:
            return first, None
        whole = isinstance(statement, cst.FunctionDef | cst.SimpleStatementLine)
        end = self.get_metadata(PositionProvider, statement if whole else statement.body)
        return first, (first, end.end.line if whole else end.start.line)


def mutants(file: str, text: str) -> Iterator[Mutant]:
    """The mutants of a file, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(text))
    visitor = _Visitor()
    wrapper.visit(visitor)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    source, seen = text.encode(), {text}
    for node, changed, line, lines in visitor.found:
        # The span of an expression is what is within its parentheses.
        if getattr(node, "lpar", ()):
            changed = changed.with_changes(lpar=[], rpar=[])
        start, end = spans[node].start, spans[node].start + spans[node].length
        inserted = wrapper.module.code_for_node(changed).encode()
        new = (source[:start] + inserted + source[end:]).decode()
        if new in seen:
            continue
        seen.add(new)
        try:
            ast.parse(new)
        except SyntaxError:
            continue
        yield Mutant(file, line, lines, *_difference(text, new), new)


def _difference(old: str, new: str) -> tuple[str, str]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))[2:]
    kept = {sign: [line[1:].strip() for line in lines if line[0] == sign] for sign in "-+"}
    return "\n".join(kept["-"]), "\n".join(kept["+"])
