"""jsonargparse's errors in words that say what was given, where, and what would be right."""

import difflib
import inspect
import re
import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from pyro_infocat.errors import reason
from pyro_infocat.parts import COMPONENTS, DEFAULTS, GIVEN_TO, named
from pyro_infocat.settings import ROOT, Settings

SAYINGS = (
    (r"^argument (--\S+): expected one argument", r"\1: a value is missing; see --help"),
    (
        r'Parser key "(\w+)": Problem with given class_path \'[^\']+\': Parser key "',
        r'Parser key "\1.',
    ),
    (r"- Expected a path but .*? not accessible or invalid -? ?", ""),
    (r"Problem with given class_path '(.+?)': ", r"\1: "),
    (
        r"Does not validate against any of the Union .*Subtypes: \[(.*)\] Errors: .*"
        r"Given value: (.*)",
        r"Expected a \1. Got value: \2",
    ),
    (
        r"With fail_untyped=True.*Parameter '(.+?)' from '(.+?)\.__init__' does .*",
        r"the constructor of \2 must give a type to '\1', as in '\1: int'",
    ),
    (r"Not a valid subclass of (\w+)\. Got value: (.*?) Subclass types.*", r"'\2' is no \1"),
    (r"Import path (\S+) does not correspond to a subclass of (\w+)", r"\1 is no \2"),
    (r"Expected a dot import path string: ?(.*)", r"'\1' is no class"),
    (r": the following arguments are required: (.*)", r" needs a value for: \1"),
    (r"Expected an? (.*?)\. Got value: ?(.*)", r"expected \1, not '\2'"),
    (r"typing\.Literal\[(.*)\]", r"one of \1"),
    (r"collections\.abc\.Sequence\[float\]", "a list of numbers"),
    (r"<class 'collections\.abc\.Sequence'>", "a list such as [400, 400]"),
    (r'(key "weights.*)<class \'dict\'>', r"\1names with values, such as {kl_z: 1}"),
    (r'(key "schedules.*)<class \'list\'>', r"\1a list of [epoch, weight] pairs"),
    (r"<class 'dict'>", "names with values"),
    (r"<class 'list'>", "a list"),
    (r"<class 'float'>", "a number"),
    (r"<class 'int'>", "a whole number"),
    (r"<class 'str'>", "a word"),
    (r"<class 'bool'>", "true or false"),
    (r", <class 'NoneType'>", " or null"),
)
"""What jsonargparse says, and what a person does; applied in this order."""

NOT_THE_USERS = [
    *(ROOT / package for package in ("models", "guides", "pyro_infocat")),
    *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
]
"""Where this project's code is, and what is installed."""


def explain(message: str, config: str | None, argv: Sequence[str]) -> str:
    """jsonargparse's message as one line that names the flag, the value and what would be right.

    :param config: the preset given.
    :param argv: the command line, which tells a wrong flag from a wrong key of the preset.
    """
    line = " ".join(message.split())
    for pattern, saying in SAYINGS:
        line = re.sub(pattern, saying, line)
    if match := re.match(r"unrecognized arguments: (.*)", line, re.IGNORECASE):
        return f"no such flag: {match[1]}; {_nearest(match[1].split()[0].lstrip('-'), '--')}"
    if match := re.match(r"Option '(.+?)' is not accepted", line):
        return f"{config or 'preset'}: no such key '{match[1]}'; {_nearest(match[1], '')}"
    if match := re.match(r'Parser key "(.+?)":? ?(.*)', line):
        key, said = match[1], match[2].strip()
        part = key.split(".")[0]
        trouble = _class_trouble(part, said) if part in COMPONENTS else said
        return f"{given_as(key, config, argv)}: {trouble}"
    return line


def given_as(key: str, config: str | None, argv: Sequence[str]) -> str:
    """How a setting was given: the flag, or the preset's file and the key there."""
    return f"{config}: {key}" if config and not typed(key, argv) else f"--{key}"


def typed(key: str, argv: Sequence[str]) -> bool:
    """Whether the command line has a flag for a setting, or for part of it."""
    part = key.split(".")[0]
    return any(re.match(rf"--{part}\b", argument) for argument in argv)


def _class_trouble(part: str, said: str) -> str:
    """What was said of a part's class, with what would be right."""
    if match := re.match(r"(\S+): Option '(.+?)' is not accepted", said):
        wanted = inspect.signature(named(match[1])).parameters
        taken = [name for name in wanted if name not in GIVEN_TO[part]]
        return f"{match[1]} takes no '{match[2]}'; it takes {', '.join(taken) or 'nothing'}"
    if match := re.match(r"Expected an instantiatable class, but (\S+) is abstract", said):
        missing = sorted(named(match[1]).__abstractmethods__)
        return f"{match[1]} must define {', '.join(missing)}"
    if match := re.match(r"(\S+) needs a value for: (.*)", said):
        flags = ", ".join(f"--{part}.{name}" for name in match[2].split(", "))
        return f"{match[1]} needs {flags}"
    if re.search(r" is no |No module named|has no attribute", said):
        return f"{said}; give a class such as {DEFAULTS[part]}, or your own as my_file.MyClass"
    return said


def _nearest(name: str, dashes: str) -> str:
    """The setting that was probably meant, and where all are listed."""
    known = [field.name for field in fields(Settings)] + ["config", "out", "resume"]
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {dashes}{near[0]}? See --help" if near else "see --help"


def where(error: Exception) -> str:
    """An error with its file and line: the user's, or where there is none, those that raised it."""
    text = f"{type(error).__name__}: {reason(error)}"
    if isinstance(error, SyntaxError):
        # Its own text names the place.
        return text
    place = users_line(error)
    # PyTorch says so of shapes that do not fit; where in PyTorch helps nobody.
    if not place and type(error) is not RuntimeError:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({last.filename}, line {last.lineno})"
    return text + place


def users_line(error: BaseException | None) -> str:
    """The user's own line that an error, or what it came of, passed last; nothing for none."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = Path(frame.filename)
            ours = any(path.is_relative_to(place) for place in NOT_THE_USERS)
            if path.is_absolute() and not ours:
                return f" ({path}, line {frame.lineno})"
        error = error.__cause__ or error.__context__
    return ""
