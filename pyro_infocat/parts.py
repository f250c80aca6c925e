"""From a dotted path to a class, and from a class to an instance.

A part is a class that a run is made of: a prior, a guide, a term of the objective, a metric.
Nothing here imports torch; importing a part's module may.
"""

import difflib
import importlib
import inspect
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from pyro_infocat.errors import PACKAGES, UserError, attributed, described
from pyro_infocat.settings import DECLARED, ROLES, Part, Settings

PLAIN = (NoneType, bool, int, float, str)

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    NoneType: "null",
}
NOTHING = inspect.Parameter.empty

FINITE = ConfigDict(allow_inf_nan=False)
LIMITS = {"least": "ge", "most": "le", "above": "gt", "below": "lt"}
"""A setting's limits as pydantic calls them."""

MISFITS = {
    "greater_than_equal": "must be at least {}",
    "less_than_equal": "must be at most {}",
    "greater_than": "must be above {}",
    "less_than": "must be below {}",
    "finite_number": "must be a finite number",
}
"""What pydantic calls a number that does not fit, and what would be right."""


def named(path: str) -> type:
    """The class of a dotted path that this project wrote down itself."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


class UntrustedError(UserError):
    """A class outside this project that nobody has said to trust."""


def find(role: str, path: str, setting: str, trust: Sequence[str] | None = None) -> type:
    """The class of a dotted path, checked to be of its role before anything of it is called.

    :param setting: the setting that gave it, for the error.
    :param trust: modules outside this project that may be imported; None for any.
    :raises UserError: where the path leads to no class of the role, or cannot be imported.
    :raises UntrustedError: where its module may not be imported.
    """
    base, remedy = named(ROLES[role].base), _remedy(role)
    module, _, name = path.rpartition(".")
    if not module or not all(map(str.isidentifier, path.split("."))):
        known = {name: f"{base.__module__}.{name}" for name in vars(sys.modules[base.__module__])}
        near = difflib.get_close_matches(path, known, 1)
        meant = f"did you mean {known[near[0]]}? Else " if near else ""
        raise UserError(f"'{path}' is no class; {meant}{remedy}", setting)
    trusted = (*PACKAGES, *(trust or ()))
    if trust is not None and not any(f"{module}.".startswith(f"{one}.") for one in trusted):
        raise UntrustedError(
            f"'{path}' is code outside this project and was not imported; if you trust its author, "
            f"say so: --trust {module} or trust=['{module}']",
            setting,
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        # Of the path itself, or of something that the user's file imports.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _cannot_import(path, setting, error) from error
        raise UserError(f"'{path}': {error}; {remedy}", setting) from error
    except AttributeError as error:
        if getattr(error, "name", None) != name:
            raise _cannot_import(path, setting, error) from error
        raise UserError(f"'{path}': '{module}' has no '{name}'; {remedy}", setting) from error
    except Exception as error:
        raise _cannot_import(path, setting, error) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"'{path}' is no {base.__name__}; {remedy}", setting)
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))  # type: ignore[attr-defined]
        raise UserError(f"{path} must define {missing}", setting)
    return found


def _remedy(role: str) -> str:
    usual: Any = DECLARED[role].default
    example = f"a class such as {usual.class_path}, or your own" if usual else "your own class"
    return f"give {example} as my_file.MyClass"


def _cannot_import(path: str, setting: str, error: Exception) -> UserError:
    return UserError(f"{path} cannot be imported: {described(error)}; correct its file", setting)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """What a constructor takes by name, with resolved annotations.

    A constructor that takes ``**kwargs`` passes them on: what the next class's takes counts too.
    """
    found: dict[str, inspect.Parameter] = {}
    for owner in kind.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        constructor = vars(owner)["__init__"]
        try:
            hints = typing.get_type_hints(constructor)
        # A name that only a type checker knows.
        except Exception:
            hints = {}
        own = list(inspect.signature(constructor).parameters.values())[1:]
        named_ones = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for parameter in named_ones:
            annotation = hints.get(parameter.name, parameter.annotation)
            found.setdefault(parameter.name, parameter.replace(annotation=annotation))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def own_parameters(role: str, kind: type) -> dict[str, inspect.Parameter]:
    """The constructor's arguments that the user may give: those that the run does not."""
    given = ROLES[role].given
    return {name: one for name, one in parameters(kind).items() if name not in given}


def completed(role: str, kind: type, part: Part) -> Part:
    """The part with the defaults of its constructor written out, where a config can hold them."""
    usual = {
        name: plain(one.default)
        for name, one in own_parameters(role, kind).items()
        if name not in part.init_args and one.default is not NOTHING
    }
    defaults = {name: value for name, value in usual.items() if is_plain(value)}
    return Part(part.class_path, part.init_args | defaults)


def up_to_date(settings: Settings, asked: Settings) -> Settings:
    """An earlier run's settings with the arguments that its classes take now.

    An argument that came later has its default, which is what was in force; one that is gone is
    left out. A class that cannot be found is left as it is, and so is one that was not asked for:
    a folder's config alone must not import code.

    :param asked: the settings that the user gave.
    """
    changed: dict[str, Any] = {}
    for role in ROLES:
        part, now = getattr(settings, role), getattr(asked, role)
        if isinstance(part, Part) and part.class_path == getattr(now, "class_path", None):
            try:
                kind = find(role, part.class_path, role)
            except UserError:
                continue
            wanted = own_parameters(role, kind)
            kept = {name: value for name, value in part.init_args.items() if name in wanted}
            changed[role] = completed(role, kind, Part(part.class_path, kept))
    return replace(settings, **changed)


def create(
    role: str, kind: type, part: Part, given: Mapping[str, Any], setting: str | None = None
) -> Any:
    """An instance of a part's class.

    :param given: what the run supplies, of which the constructor gets what it names.
    :param setting: that chose the part; the role when not given.
    :raises UserError: where the constructor refuses its arguments.
    """
    setting = setting or role
    wanted = parameters(kind)
    arguments = {name: value for name, value in given.items() if name in wanted}
    for name, value in part.init_args.items():
        annotation = wanted[name].annotation if name in wanted else NOTHING
        arguments[name] = conform(value, annotation, f"{setting}.{name}")
    with attributed(setting, part.class_path):
        made = kind(**arguments)
    _check_constructed(setting, part, kind, made)
    return made


def _check_constructed(setting: str, part: Part, kind: type, made: Any) -> None:
    """Refuse an instance without what its base class's constructor makes."""
    wanted = [
        name
        for owner in kind.__mro__
        if owner.__module__.partition(".")[0] in PACKAGES
        for name in inspect.get_annotations(owner)
    ]
    remedy = "it must be set in the class"
    if any(owner.__name__ == "Module" for owner in kind.__mro__):
        # torch.nn.Module's own sign that its constructor ran.
        wanted += ["_modules"]
        remedy = "its constructor must call super().__init__ with all that it takes"
    for name in wanted:
        if not hasattr(made, name):
            raise UserError(f"has no '{name}'; {remedy}", setting, part.class_path)


def is_plain(value: Any) -> bool:
    """Whether a config can hold a value: numbers, words, true or false, null, lists and dicts."""
    if isinstance(value, Mapping):
        return all(type(key) is str and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return type(value) in PLAIN


def _holds_null(value: Any) -> bool:
    """Whether a word somewhere in a plain value holds the character that ends words in C."""
    if isinstance(value, Mapping):
        return _holds_null([*value, *value.values()])
    if isinstance(value, list | tuple):
        return any(map(_holds_null, value))
    return isinstance(value, str) and "\0" in value


def plain(value: Any) -> Any:
    """A value as a config reads it back: a tuple as a list, a path as a word, an Enum's value."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def conform(
    value: Any, annotation: Any, setting: str, limits: Mapping[str, float] | None = None
) -> Any:
    """A plain value as the type that is asked for: a list as a tuple, a word as a path.

    :param annotation: of a setting or a constructor's argument.
    :param setting: for the error.
    :param limits: as a setting declares them.
    :raises UserError: where the value is of another type, beyond a limit, or not finite.
    """
    if not is_plain(value):
        raise UserError(
            f"config.yaml cannot hold a {type(value).__name__}; give a number, a word, true or "
            "false, or lists or names with values of them",
            setting,
        )
    if _holds_null(value):
        raise UserError("holds a null character, which no name may; leave it out", setting)
    kind: Any = Any if annotation is NOTHING else annotation
    bounds: Any = {LIMITS[name]: limit for name, limit in (limits or {}).items()}
    try:
        kind = _within(kind, bounds) if bounds else kind
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=FINITE)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
        raise UserError(
            f"is a {in_words(annotation)}, which config.yaml cannot hold; let the constructor take "
            "a number, a word, true or false, or lists or names with values of them",
            setting,
        ) from error
    try:
        # As JSON, since that has what YAML has and nothing else: a list may be a tuple there,
        # and true is no number.
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise _misfit(value, annotation, setting, error.errors(include_url=False)[0]) from error


def _within(kind: Any, bounds: Any) -> Any:
    """A type with bounds on its numbers."""
    if is_union(kind):
        # A word that stands for a number has none.
        return Union[tuple(_within(one, bounds) for one in get_args(kind))]  # noqa: UP007
    return Annotated[kind, Field(**bounds)] if kind in (int, float) else kind


def _misfit(value: Any, kind: Any, setting: str, found: Mapping[str, Any]) -> UserError:
    """The error for what pydantic found, as deep as it lies where one type alone has a say."""
    for step in found["loc"]:
        inner = [one for one in get_args(kind) if one is not Ellipsis]
        if not isinstance(value, Mapping | list) or not inner or is_union(kind):
            break
        # A list may be too short for its type.
        if isinstance(value, list) and step >= len(value):
            break
        setting = f"{setting}.{step}" if isinstance(value, Mapping) else setting
        of_each = get_origin(kind) is tuple and len(inner) > 1
        kind, value = inner[step if of_each else -1], value[step]
    if found["type"] in MISFITS:
        text = MISFITS[found["type"]].format(*found.get("ctx", {}).values())
        return UserError(text, setting, found["input"])
    return UserError(f"expected {in_words(kind)}, not '{value}'", setting)


def is_union(annotation: Any) -> bool:
    """Whether a type is one of several."""
    return get_origin(annotation) in (Union, UnionType)


def in_words(annotation: Any) -> str:
    """A type as an error names it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if is_union(annotation):
        return " or ".join(in_words(one) for one in inner)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}" if len(inner) > 1 else repr(inner[0])
    if annotation in (NOTHING, Any):
        return "a value"
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(repr(one.value) for one in kind)}"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "names with values"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        inside = get_args(inner[0]) if inner else ()
        if inside and inside[0] in (float, float | str):
            return "a list of [epoch, value] pairs"
        if inner and inner[0] is float:
            return "a list of numbers"
        return "a list such as [400, 400]" if inner and inner[0] is int else "a list"
    return getattr(annotation, "__name__", str(annotation))


def as_part(value: Any, setting: str, before: Part | None = None) -> Part:
    """A part from a path, a class, an instance, or names with values.

    :param before: the part in whose place it comes: arguments without a class are for its class.
    :raises UserError: where it is none of these, or has no class path.
    """
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return Part(value)
    if isinstance(value, Mapping):
        arguments = value.get("init_args") or {}
        path = value.get("class_path", before.class_path if before and arguments else None)
        if isinstance(path, str) and isinstance(arguments, Mapping) and set(value) <= KEYS:
            return Part(path, dict(arguments))
        raise UserError(
            f"expected a class path, or {{class_path: my_file.MyClass, init_args: {{...}}}}, not "
            f"'{dict(value)}'",
            setting,
        )
    if value is None or isinstance(value, bool | int | float | list):
        raise UserError(f"'{value}' is no class; {_remedy(setting)}", setting)
    kind = value if isinstance(value, type) else type(value)
    arguments = {} if kind is value else getattr(value, "constructor_arguments", {})
    given = ROLES[setting].given
    part = Part(
        f"{kind.__module__}.{kind.__qualname__}",
        {name: plain(one) for name, one in arguments.items() if name not in given},
    )
    # An instance has its own defaults, where a class has the preset's arguments.
    return part if kind is value else completed(setting, kind, part)


KEYS = {"class_path", "init_args"}
