"""Jinja without a way out: templates read what they are given, and cost no more than a prompt may."""

import functools
from collections.abc import Callable
from types import BuiltinMethodType, FunctionType
from typing import Any

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.compiler import CodeGenerator
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forgetmenot.prompting.limits import PER_STEP, Budget, TooMuchError
from forgetmenot.prompting.prices import FILTERS, METHODS, price_operator

FAILURES = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    *(MemoryError, RuntimeError, SyntaxError),
)
"""What a template can end in; the last three where it calls itself, or nests, without an end."""


EXPRESSIONS = 20_000
"""The most in a template; the longest chat templates have some hundreds."""


class _CountingCode(CodeGenerator):
    """Writes Python that charges what no hook of Jinja's sandbox sees: loops, `~`, slices and literals."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turns: dict[int, int] = {}  # what a loop goes through, to the steps of a turn

    def visit(self, node: nodes.Node, *arguments: Any, **named: Any) -> Any:
        """Write a node's code, and around it what charges it."""
        if isinstance(node, nodes.For):  # each turn writes the text that stands in it, too
            texts = [text for part in node.body for text in part.find_all(nodes.TemplateData)]
            self._turns[id(node.iter)] = 1 + sum(len(text.data) for text in texts) // PER_STEP
        steps = self._turns.pop(id(node), None)
        if steps is not None:
            self.write("environment.budget.counted(")
            self.visit(node, *arguments, **named)
            self.write(f", {steps})")
        elif _makes(node):
            self.write("environment.budget.made(")
            super().visit(node, *arguments, **named)
            self.write(")")
        else:
            super().visit(node, *arguments, **named)


def _makes(node: nodes.Node) -> bool:
    """Whether it stands for a value that is made: not for names that values are given to."""
    if isinstance(node, nodes.Tuple):
        return node.ctx == "load"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Slice)
    return isinstance(node, (nodes.Concat, nodes.List, nodes.Dict))


class LimitedTemplate(Template):
    """A template of a `LimitedSandbox`."""

    def render(self, *arguments: Any, **named: Any) -> str:
        """Render it within a budget of its own.

        Raises:
            TooMuchError: If it does more than a prompt can need.
        """
        budget: Budget = self.environment.budget  # type: ignore[attr-defined]
        budget.start(arguments[0] if arguments else named)
        return super().render(*arguments, **named)


class LimitedSandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which all that a template does is charged to a budget.

    Attributes:
        budget: What the rendering has left.
    """

    code_generator_class = _CountingCode
    template_class = LimitedTemplate
    intercepted_binops = frozenset({"+", "*", "**", "%", "//"})
    budget: Budget

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._limit()

    @classmethod
    def of(cls, environment: ImmutableSandboxedEnvironment) -> "LimitedSandbox":
        """Another sandbox with its filters, globals and extensions, and with limits."""
        limited: Any = environment.overlay()
        limited.__class__ = cls
        limited.globals, limited.filters = dict(limited.globals), dict(limited.filters)
        limited.cache = None
        limited._limit()
        made: LimitedSandbox = limited
        return made

    def _limit(self) -> None:
        self.budget = Budget()
        self.filters = {name: self._priced(name, one) for name, one in self.filters.items()}
        self.globals.pop("lipsum", None)
        self.finalize = functools.partial(_written, self.budget, self.finalize)

    def _priced(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that is charged for what it takes and gives."""
        price, budget = FILTERS.get(name), self.budget
        first = 1 if hasattr(filter, "jinja_pass_arg") else 0  # behind the context or environment

        @functools.wraps(filter)
        def priced(*arguments: Any, **named: Any) -> Any:
            if price is not None:
                arguments = tuple(list(one) if _is_iterator(one) else one for one in arguments)
                price(budget, arguments[first], [*arguments[first + 1 :], *named.values()])
            else:
                budget.gone_through(arguments[first])
            found = filter(*arguments, **named)
            if type(found) is not str and _is_iterator(found):
                return budget.counted(found)
            return budget.made(found)

        return priced

    def compile(self, source: Any, *arguments: Any, **named: Any) -> Any:
        """Compile a template; what is constant in it is computed here.

        Raises:
            TooMuchError: If it is too long.
        """
        self.budget.start()
        if isinstance(source, str) and source.count("{{") + source.count("{%") > EXPRESSIONS:
            raise TooMuchError(f"has more than {EXPRESSIONS:,} expressions")
        return super().compile(source, *arguments, **named)

    def names(self, template: str) -> frozenset[str]:
        """The names that a template reads and does not set itself."""
        self.budget.start()
        return frozenset(meta.find_undeclared_variables(self.parse(template)) - self.globals.keys())

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operation between two values."""
        if operator == "+":
            return self.budget.made(left + right)
        price_operator(self.budget, operator, left, right)
        return self.budget.made(self.binop_table[operator](left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call of a method, a function or a macro; named so that no keyword of a template is taken."""
        if isinstance(__obj, LoopContext):  # `loop(children)`
            args = tuple(__self.budget.counted(one) for one in args)
        elif isinstance(__obj, (BuiltinMethodType, FunctionType)):
            method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `str.format`
            of = getattr(method, "__self__", None)
            __self.budget.gone_through(of)
            if price := METHODS.get(method.__name__):
                args = tuple(list(one) if _is_iterator(one) else one for one in args)
                price(__self.budget, of, [*args, *kwargs.values()])
        __self.budget.gone_through(args)
        return __self.budget.made(super().call(__context, __obj, *args, **kwargs))


def _is_iterator(value: Any) -> bool:
    """Whether it can be gone through once; faster than asking whether it is an `Iterator`."""
    return hasattr(type(value), "__next__")


def _written(budget: Budget, finalize: Callable[[Any], Any] | None, value: Any) -> Any:
    """What is written of a value, paid for."""
    if finalize is not None and type(value) is not str:
        value = finalize(value)
    budget.written(value)
    return value


def why_it_fails(error: BaseException) -> str:
    """What is wrong with a template that ended in one of FAILURES, as the end of a sentence."""
    if isinstance(error, TooMuchError):
        return f"{error}, which is more than a prompt can need"
    if isinstance(error, (RecursionError, MemoryError, SyntaxError)):
        return "nests or calls itself too deeply"
    bare = (
        isinstance(error, (KeyError, OverflowError)) and error.args
    )  # their text is that of Python's values
    said = str(error.args[-1] if bare else error).rstrip(".")
    return f"cannot be rendered: {said or type(error).__name__}"
