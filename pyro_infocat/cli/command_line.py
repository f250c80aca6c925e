"""A command line from declarations: a dataclass whose fields are made by ``settings.setting``.

argparse and its relatives say what is wrong in prose alone. Here an error names the flag, the value
and what would be right, and nothing has to be read out of another library's sentence.
"""

import difflib
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pyro_infocat.errors import UserError
from pyro_infocat.parts import conform, in_words, is_union
from pyro_infocat.resolve import Text, arguments_named, typed
from pyro_infocat.settings import ROLES, Part, default

Options = TypeVar("Options")

HELP = ("-h", "--help")


def positional(help: str, default: Any = MISSING) -> Any:
    """Declare what stands alone on the command line, such as the folder of a run."""
    return field(default=default, metadata={"help": help, "limits": {}, "positional": True})


class Flag(NamedTuple):
    """A flag of a command.

    :ivar annotation: its type; a list takes every word up to the next flag.
    :ivar values: how ``--help`` shows what it takes.
    """

    annotation: Any
    values: str
    help: str
    default: Any = None

    @property
    def many(self) -> bool:
        """Whether it takes more than one word."""
        return any(get_origin(one) in (list, tuple) for one in kinds(self.annotation))

    @property
    def boolean(self) -> bool:
        """Whether it may stand alone, for true."""
        return bool in kinds(self.annotation)

    @property
    def nested(self) -> bool:
        """Whether ``--flag.name`` gives a value in it."""
        return any(
            (get_origin(one) or one) in (dict, tuple, Part) for one in kinds(self.annotation)
        )


def kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that a union is of, or the type itself."""
    return get_args(annotation) if is_union(annotation) else (annotation,)


def words(
    argv: Sequence[str], flags: Mapping[str, Flag], positional: bool = False
) -> Iterator[tuple[str | None, list[Text]]]:
    """Each flag's name with its words; None for what stands alone.

    ``--prior.scale 3`` is the flag ``prior`` by its name before the point.

    :param positional: whether words may stand alone.
    :raises UserError: for a flag that is not there, or one without its value.
    """
    rest, before = list(argv), None
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            if before and not positional:
                text = f"takes one value, and '{word}' is another; a list is one, as in '[1, 2]'"
                raise UserError(text, before)
            yield None, [Text(word)]
            continue
        name, sign, value = word[2:].partition("=")
        outer, _, inner = name.partition(".")
        known, before = flags.get(outer), name
        if known is None or name.endswith(".") or ".." in name:
            raise UserError(f"no such flag: {' '.join([word, *rest[:1]])}; {meant(name, flags)}")
        if inner and not known.nested:
            raise UserError(f"has no '{inner}'; see --help", outer)
        if sign:
            yield name, [Text(value)]
            continue
        taken = []
        alone = known.boolean and positional and rest[:1] not in (["true"], ["false"])
        while rest and not rest[0].startswith("--") and not alone:
            taken.append(Text(rest.pop(0)))
            if not known.many or "." in name:
                break
        if not taken and known.boolean:
            taken = [Text("true")]
        if not taken:
            raise UserError("a value is missing; see --help", name)
        yield name, taken


def meant(name: str, flags: Mapping[str, Flag]) -> str:
    """The flag that was probably meant, and where all are listed."""
    near = difflib.get_close_matches(name, flags, 1)
    if set(ROLES) <= set(flags):
        of_parts = arguments_named(name)
        # --categories is nearer to --prior.categories than to --most_categories.
        longer = near and near[0].endswith(name.rpartition("_")[2])
        near = [*of_parts, *near] if longer else [*near, *of_parts]
    return f"did you mean --{near[0]}? See --help" if near else "see --help"


def parse(
    command: type[Options],
    argv: Sequence[str] | None,
    module: str,
    others: Mapping[str, Flag] | None = None,
) -> tuple[Options, list[str]]:
    """The options of a command, and the flags that it passes on.

    :param command: a dataclass of settings; each field marked ``positional`` takes a bare word, the
        last one all that are left.
    :param module: as in ``python -m MODULE``.
    :param others: flags that the command passes on to another one.
    :raises UserError: for anything that the user gave wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    declared = {one.name: one for one in fields(command)}  # type: ignore[arg-type]
    types = get_type_hints(command)
    flags = {
        name: Flag(types[name], shown(types[name]), one.metadata["help"], value_of(one))
        for name, one in declared.items()
    }
    bare = [name for name, one in declared.items() if one.metadata.get("positional")]
    if set(HELP) & set(argv):
        print(usage(module, (command.__doc__ or "").split("\n")[0], flags, bare))
        raise SystemExit(0)
    named = {name: flag for name, flag in flags.items() if name not in bare}
    given: dict[str, list[Text]] = {}
    passed: list[str] = []
    for name, texts in words(argv, {**(others or {}), **named}, positional=bool(bare)):
        if name is None and not bare:
            raise UserError(f"no such flag: {texts[0]}; see --help")
        if name is None:
            place = next((one for one in bare if one not in given), bare[-1])
            given.setdefault(place, []).extend(texts)
        elif name in named:
            given[name] = texts
        else:
            passed += [f"--{name}", *texts]
    values = {}
    for name, one in declared.items():
        if name not in given:
            if one.default is MISSING and one.default_factory is MISSING:
                raise UserError(f"{name.upper()} is missing: {one.metadata['help']}; see --help")
            continue
        values[name] = option(name, given[name], flags[name], one.metadata["limits"])
    return command(**values), passed


def option(name: str, texts: Sequence[Text], flag: Flag, limits: Mapping[str, float]) -> Any:
    """The value of a flag, of its type and within its limits."""
    if not flag.many and len(texts) > 1:
        raise UserError(f"no such flag: {texts[1]}; see --help")
    kind = next(one for one in kinds(flag.annotation) if one is not NoneType)
    inner = get_args(kind)[0] if flag.many else kind
    values = [conform(typed(text, inner), inner, name, limits) for text in texts]
    return values if flag.many else values[0]


def value_of(declared: Field) -> Any:
    """A default as ``--help`` shows it; None for what has none."""
    required = declared.default is MISSING and declared.default_factory is MISSING
    return None if required else default(declared)


def shown(annotation: Any) -> str:
    """What a flag takes, as ``--help`` shows it."""
    several = [one for one in kinds(annotation) if one is not NoneType]
    if len(several) > 1:
        return "|".join(map(shown, several))
    kind = several[0] if several else annotation
    if kind is bool:
        return "true|false"
    if kind is str:
        return "WORD"
    if kind is Path:
        return "PATH"
    if kind in (int, float):
        return "N" if kind is int else "X"
    if get_origin(kind) in (list, tuple):
        return f"{shown(get_args(kind)[0])} ..."
    choices = get_args(kind)
    if choices and all(isinstance(one, str) for one in choices):
        return "|".join(choices)
    return in_words(kind).upper().split(",")[0]


def usage(
    module: str, says: str, flags: Mapping[str, Flag], bare: Sequence[str] = (), after: str = ""
) -> str:
    """The text of ``--help``."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = [
        " ".join(["usage: python -m", module, *map(str.upper, bare), "[--FLAG VALUE ...]"]),
        "",
    ]
    lines += [*textwrap.wrap(says, width), ""]
    for name, flag in flags.items():
        title = name.upper() if name in bare else f"--{name} {flag.values}"
        ends = "" if flag.default in (None, (), {}, "") else f" (default: {flag.default})"
        text = textwrap.wrap(flag.help + ends, width - 6)
        lines += [f"  {title}", *(f"      {line}" for line in text)]
    if after:
        lines += ["", *textwrap.wrap(after, width)]
    return "\n".join(lines)


def answer(
    command: type[Options], argv: Sequence[str] | None, module: str, act: Callable[[Options], None]
) -> int:
    """Parse a command line and act on it; the exit code, after one line for what is wrong."""
    bare = {one.name for one in fields(command) if one.metadata.get("positional")}  # type: ignore[arg-type]
    try:
        options, _ = parse(command, argv, module)
        act(options)
    except UserError as error:
        line = error.told(lambda name: name.upper() if name in bare else f"--{name}")
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def writing(out: Path, kind: str = "place") -> Iterator[None]:
    """Tell in one line what keeps ``out`` or a file in it from being written.

    :param kind: of what ``out`` is, for the error.
    :raises UserError: naming it.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write '{error.filename or out}' ({error.strerror}); choose a {kind} that "
            "can be written",
            "out",
        ) from error
