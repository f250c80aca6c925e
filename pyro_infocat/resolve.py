"""From what was given (a preset, a config, flags, keyword arguments) to :class:`Settings`.

Nothing here imports torch until :meth:`Resolver.settings` looks at the parts' classes.
"""

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from pyro_infocat.catalogue import DATA_SETS, IN_MEMORY
from pyro_infocat.errors import UserError, reason
from pyro_infocat.kinds import kind_of, preset_for
from pyro_infocat.parts import (
    NOTHING,
    as_part,
    completed,
    conform,
    find,
    in_words,
    is_union,
    own_parameters,
    plain,
)
from pyro_infocat.places import PRESETS
from pyro_infocat.settings import (
    AUTO,
    CATEGORIES,
    CHECKPOINT,
    DECLARED,
    MADE_BY,
    ROLES,
    SEVERAL,
    TYPES,
    Part,
    Settings,
    default,
)
from pyro_infocat.storage.configuration import read_file, read_yaml

FLAG = "--"
"""How a setting of the command line is named in an error; one of a file by the file."""


class Text(str):
    """A word of the command line, whose meaning depends on the type that is asked for."""


@dataclass(frozen=True)
class Given:
    """A value for a setting, or for part of one.

    :ivar key: ``("epochs",)``, ``("prior", "scale")``.
    :ivar source: what stands before the key in an error: ``--``, ``mine.yaml: ``, or nothing.
    :ivar replaces: whether it was typed by the user over a preset, rather than in a file.
    :ivar of_a_run: whether it is of a finished run's config, maybe of another version.
    :ivar trusted: whether the user named the class or the file. The config of a folder that is
        resumed is nobody's word.
    """

    key: tuple[str, ...]
    value: Any
    source: str = FLAG
    replaces: bool = True
    of_a_run: bool = False
    trusted: bool = True


def preset_of(data: str, own_reader: bool = False) -> Path:
    """What data are trained with where no --config is given.

    :param own_reader: whether a reader of the user's own makes of them what only it knows: they
        are trained by the digits' preset, whose networks take any shape.
    :raises UserError: where the preset is missing.
    """
    name = DATA_SETS["digits"].preset
    if not own_reader:
        with suppress(UserError):
            name = preset_for(data)
    return preset_path(name)


def preset_path(name: str) -> Path:
    """The file of a preset by name.

    :raises UserError: where there is none.
    """
    path = PRESETS / f"{name}.yaml"
    if not os.path.exists(path):  # Path.exists raises for too long a name.
        there = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise UserError(f"no preset '{name}' ('{path}'); there are {there or 'none'}")
    return path


def config_path(text: str) -> Path:
    """The file that --config names: a path, or a preset by name or as ``runs/NAME.yaml``."""
    path = Path(text)
    preset = PRESETS / f"{path.stem}.yaml"
    bare = path.parts == (path.name,) and not path.suffix
    named_so = bare or path.parts == ("runs", preset.name)
    # Path.exists raises for too long a name.
    found = os.path.exists(path) or not os.path.exists(preset)
    return preset if named_so and not found else path


def read_config(path: Path, trusted: bool = True) -> tuple[list[Given], list[str]]:
    """The values of a preset or of a run's config.yaml, and a line for each unknown key of a run's.

    :raises UserError: where it cannot be read, or has a key that is no setting and is no run's.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise UserError(
            f"cannot read '{path}' ({error.strerror}); give a YAML file such as runs/digits.yaml",
            "config",
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"'{path}' is not YAML ({reason(error)})", "config") from error
    if not isinstance(content, dict):
        raise UserError(
            f"'{path}' must hold keys with values, as runs/digits.yaml does, not "
            f"{'nothing' if content is None else f'a {type(content).__name__}'}",
            "config",
        )
    for key in ("config", "out", "resume", "print_config"):
        # What earlier versions printed by --print_config holds these, which are no settings.
        if content.get(key, "") in (None, False):
            del content[key]
    of_a_run = MADE_BY in content or path.with_name(CHECKPOINT).exists()
    unknown = [key for key in content if key not in DECLARED and key != MADE_BY]
    if unknown and not of_a_run:
        raise UserError(f"{path}: no such key '{unknown[0]}'; {nearest(str(unknown[0]))}")
    for key, value in content.items():
        if value is None and not (key in DECLARED and default(DECLARED[key]) is None):
            raise UserError(f"{path}: {key} has no value; leave the key out for the default")
    values = {name: value for name, value in content.items() if name in DECLARED}
    if of_a_run:
        # What an older version did not write had this value then.
        before = {
            n: one.metadata["before"] for n, one in DECLARED.items() if "before" in one.metadata
        }
        values = before | values
    source = f"{path}: "
    given = [
        Given((name,), value, source, False, of_a_run, trusted) for name, value in values.items()
    ]
    return given, [unknown_key(path, key) for key in unknown]


def unknown_key(path: Path, key: str) -> str:
    """The line about a key of a run's config that this version does not know."""
    return f"{path}: '{key}' is no setting of this version and was passed over"


def nearest(name: str, place: str = "--help") -> str:
    """The setting that was probably meant, and where all are listed."""
    near = [*difflib.get_close_matches(name, DECLARED, 1), *arguments_named(name)]
    return f"did you mean {near[0]}? See {place}" if near else f"see {place}"


def arguments_named(name: str) -> list[str]:
    """The arguments of parts in the digits' preset that are called so: ``prior.categories``.

    As other projects call them too: ``n_categories``.
    """
    with suppress(UserError, OSError, yaml.YAMLError):
        content = read_file(preset_path(default(DECLARED["data"])))
        parts = {role: content[role] for role in ROLES if isinstance(content.get(role), dict)}
        bare = name.removeprefix("n_")
        return [f"{role}.{bare}" for role, part in parts.items() if bare in part["init_args"]]
    return []


class Resolver:
    """Settings from given values, of which the later have the last word.

    :param given: in order.
    :param trust: modules outside this project that the config of a resumed folder may name.
    :param source: what stands before a setting in an error where nothing given names it.
    :ivar notes: a line for each thing that was passed over.
    :ivar scales: whether flags scale the schedules below them.
    :ivar in_memory: whether the data are given in Python, so that no setting names them.
    """

    def __init__(
        self, given: Sequence[Given], source: str = FLAG, trust: Sequence[str] = ()
    ) -> None:
        self.given, self.source, self.trust = given, source, trust
        self.notes: list[str] = []
        self.in_memory, self.scales = False, True

    def origin(self, setting: str) -> str:
        """How an error names a setting: ``--prior.scale``, ``mine.yaml: epochs``, ``epochs``."""
        key = tuple(setting.split("."))
        source, best = self.source, -1
        for one in self.given:
            shared = next(
                (n for n, pair in enumerate(zip(one.key, key, strict=False)) if pair[0] != pair[1]),
                min(len(one.key), len(key)),
            )
            # The last to say the key itself, a part of it, or what holds it.
            if shared and shared in (len(one.key), len(key)) and shared >= best:
                source, best = one.source, shared
        return f"{source}{setting}"

    def plain(self) -> dict[str, Any]:
        """The settings that are no parts, of the right type and within their limits.

        :raises UserError: naming the first that is not.
        """
        values = {name: default(one) for name, one in DECLARED.items() if name not in ROLES}
        for one in self.given:
            name, *inner = one.key
            if name in ROLES:
                continue
            kind = TYPES[name]
            if inner and get_origin(kind) is not dict:
                raise UserError(f"has no '{'.'.join(inner)}'; see --help", name)
            kind = get_args(kind)[1] if inner else kind
            values[name] = put(values[name], inner, typed(one.value, kind))
        for name, value in values.items():
            values[name] = conform(value, TYPES[name], name, DECLARED[name].metadata["limits"])
        check_schedules(values["schedules"])
        if self.scales:
            values["schedules"] = self._scaled(values)
        number = values["epochs"]
        idle = f"{self.origin('steps')}: does not apply, since epochs is {number}, not auto"
        typed_steps = "steps" in self._given_keys(replacing=True)
        if typed_steps and number != AUTO and idle not in self.notes:
            self.notes.append(idle)
        if self.in_memory:
            values["data"] = IN_MEMORY
        elif "reader" not in self._given_keys():
            kind_of(values["data"])
        return values

    def settings(self) -> Settings:
        """All settings, with the parts' classes looked at and their arguments complete.

        :raises UserError: naming the first that is not right.
        """
        values = self.plain()
        for role in ROLES:
            values[role] = self._several(role) if role in SEVERAL else self._part(role)
        return Settings(**values)

    def _part(self, role: str) -> Part | None:
        part: Part | None = default(DECLARED[role])
        # Arguments that a run's config names, of maybe another version of the class.
        recorded: set[str] = set()
        for one in self.given:
            if one.key[0] != role:
                continue
            # --prior.init_args.scale is --prior.scale.
            inner = [name for name in one.key[1:] if name != "init_args"]
            if not inner:
                new = self._new(role, part, one) if read_text(one.value) is not None else None
                recorded = set(new.init_args) if new and one.of_a_run else recorded
                if new and not one.of_a_run:
                    recorded -= set(as_part(read_text(one.value), role, part).init_args)
                part = new
            elif part is None:
                raise UserError(f"--{role} names no class that could take it", ".".join(one.key))
            else:
                wanted = own_parameters(role, self._find(role, part.class_path))
                kind = wanted[inner[0]].annotation if inner[0] in wanted else NOTHING
                value = typed(one.value, kind if len(inner) == 1 else NOTHING)
                part = Part(part.class_path, put(part.init_args, inner, value))
                recorded.discard(inner[0])
        if part is None and default(DECLARED[role]) is not None:
            raise UserError("is no class; leave it out for the preset's", role, "null")
        return None if part is None else self._checked(role, part, recorded)

    def _new(self, role: str, part: Part | None, one: Given) -> Part:
        """The part that a value names in the place of another one."""
        new = as_part(read_text(one.value), role, part)
        if part and new.class_path == part.class_path:
            return Part(part.class_path, {**part.init_args, **new.init_args})
        if part and one.replaces and not new.init_args:
            return carried_over(role, part, new)
        return new

    def _several(self, role: str) -> tuple[Part, ...]:
        chosen: Any = ()
        for one in self.given:
            if one.key[0] == role and len(one.key) > 1:
                raise UserError(
                    "holds several classes; give their arguments with them, as in "
                    f"--{role} '[{{class_path: my_file.MyClass, init_args: {{...}}}}]'",
                    role,
                )
            chosen = one.value if one.key[0] == role else chosen
        read = [
            read_text(one) for one in (chosen if isinstance(chosen, list | tuple) else [chosen])
        ]
        each = [part for one in read for part in (one if isinstance(one, list) else [one])]
        of_a_run = any(one.of_a_run and one.value is chosen for one in self.given)
        parts = [as_part(one, role) for one in each]
        return tuple(self._checked(role, one, one.init_args if of_a_run else ()) for one in parts)

    def _find(self, role: str, path: str) -> type:
        """The class of a role; one that nobody but a resumed folder names has to be trusted."""
        last = next((one for one in reversed(self.given) if one.key == (role,)), None)
        return find(role, path, role, self.trust if last and not last.trusted else None)

    def _checked(self, role: str, part: Part, recorded: Collection[str] = ()) -> Part:
        """The part with a class of its role, arguments of their types, and every default.

        :param recorded: arguments that are passed over where the class does not take them.
        """
        kind = self._find(role, part.class_path)
        wanted = own_parameters(role, kind)
        arguments = {}
        for name, value in part.init_args.items():
            setting = f"{role}.{name}"
            if name in wanted:
                if not (setting == CATEGORIES and value == AUTO):
                    conform(value, wanted[name].annotation, setting)
                arguments[name] = plain(value)
            elif name in recorded:
                note = f"{part.class_path} takes no '{name}' any more; it was passed over"
                self.notes.append(f"{self.origin(setting)}: {note}")
            else:
                takes = ", ".join(wanted) or "nothing"
                raise UserError(f"{part.class_path} takes no '{name}'; it takes {takes}", role)
        for name, one in wanted.items():
            if name not in arguments and one.default is NOTHING:
                needed = f"{part.class_path} needs {in_words(one.annotation)} here"
                raise UserError(needed, f"{role}.{name}")
        return completed(role, kind, Part(part.class_path, arguments))

    def _given_keys(self, replacing: bool = False) -> set[str]:
        """The dotted keys that were given, or those that were typed over a preset."""
        return {".".join(one.key) for one in self.given if one.replaces or not replacing}

    def _scaled(self, values: dict[str, Any]) -> dict[str, list[list[float]]]:
        """The schedules, where a flag gives what the preset schedules.

        Such a schedule keeps its form, and its largest value becomes the flag's; --anneal takes
        the place of the learning rate's.
        """
        typed_over = self._given_keys(replacing=True)
        schedules = dict(values["schedules"])
        largest = {
            "learning_rate": ("learning_rate", values["learning_rate"]),
            "information_weight": ("information_bound", values["information_weight"]),
        }
        said = dict(pair for flag, pair in largest.items() if flag in typed_over)
        for term, weight in values["weights"].items():
            if typed_over & {"weights", f"weights.{term}"}:
                said[term] = weight
        for name, most in said.items():
            if name in schedules and not typed_over & {"schedules", f"schedules.{name}"}:
                top = max(value for _, value in schedules[name])
                schedules[name] = [
                    [epoch, most * (value / top if top > 0 else 1.0)]
                    for epoch, value in schedules[name]
                ]
        if "anneal" in typed_over and not typed_over & {"schedules", "schedules.learning_rate"}:
            schedules.pop("learning_rate", None)
        return schedules


def typed(value: Any, annotation: Any) -> Any:
    """A word of the command line as a plain value of a type; other values as they are."""
    if not isinstance(value, Text):
        return value
    kinds = get_args(annotation) if is_union(annotation) else (annotation,)
    if kinds[0] in (str, Path) and value != "null":
        return str(value)
    try:
        read = read_yaml(value)
    except yaml.YAMLError:
        return str(value)
    takes_null = NoneType in kinds or (NOTHING in kinds and value == "null")
    return str(value) if read is None and not takes_null else read


def read_text(value: Any) -> Any:
    """What a part is given as on the command line: a dotted path, null, or names with values."""
    return None if isinstance(value, Text) and value == "null" else typed(value, Mapping)


def put(held: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of nested names with values, with one more value at a path."""
    if not path:
        return value
    held = held if isinstance(held, Mapping) else {}
    return {**held, path[0]: put(held.get(path[0]), path[1:], value)}


def carried_over(role: str, old: Part, new: Part) -> Part:
    """A class in the place of the preset's keeps the arguments that it has too, where they fit."""
    wanted = own_parameters(role, find(role, new.class_path, role))
    kept = {}
    for name, value in old.init_args.items():
        with suppress(UserError, KeyError):
            conform(value, wanted[name].annotation, role)
            kept[name] = value
    return Part(new.class_path, kept)


SHARE = re.compile(r"(\d{1,2}(\.\d+)?|100(\.0+)?)%")
"""A share of the run, as a schedule may say where it stands."""


def check_schedules(schedules: Mapping[str, Sequence[Sequence[float | str]]]) -> None:
    """Refuse what is no list of [epoch, value] pairs with rising epochs."""
    for name, points in schedules.items():
        if not points or any(len(point) != 2 or isinstance(point[1], str) for point in points):
            raise UserError(
                f"{name} is {points}; give [epoch, weight] pairs, such as [[0, 0], [10, 1]]",
                "schedules",
            )
        shares = [SHARE.fullmatch(at) for at, _ in points if isinstance(at, str)]
        if shares and not (all(shares) and len(shares) == len(points)):
            raise UserError(
                f"{name} is {points}; give epochs, as in [[0, 0], [10, 1]], or shares of the run "
                "from 0% to 100%, as in [[0%, 0], [50%, 1]]",
                "schedules",
            )
        places = [float(str(at).removesuffix("%")) for at, _ in points]
        if any(before >= after for before, after in pairwise(places)):
            raise UserError(
                f"{name} is {points}; its epochs must rise, as in [[0, 0], [10, 1]]", "schedules"
            )
