"""Errors that the user can put right."""

import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 500
"""Characters of an exception that a line repeats."""

LONGEST_LINE = 2000
"""Characters of a line; of a longer one the middle is left out."""

PACKAGES = ("models", "guides", "pyro_infocat")


class UserError(Exception):
    """Something given was wrong. One line: what was given, where, and what would be right.

    :ivar setting: the setting that the message is about, such as ``prior.scale``, or None.
    :ivar message: what follows its name.
    :param value: what the setting was given, to stand between the two.
    """

    def __init__(self, message: str, setting: str | None = None, value: object = None) -> None:
        given = "" if value is None else f" {value}"
        self.setting = setting
        self.message = f"{given}: {message}" if setting else message
        super().__init__(message)

    def told(self, origin: Callable[[str], str]) -> str:
        """The whole line; ``origin`` names a setting as it was given: a flag, or a file's key."""
        text = f"{origin(self.setting)}{self.message}" if self.setting else self.message
        # What was given may hold line breaks and whatever else moves a terminal's cursor.
        line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
        half = LONGEST_LINE // 2
        return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"

    def __str__(self) -> str:
        return self.told(lambda setting: f"--{setting}")


def reason(error: BaseException) -> str:
    """What an exception says, on one line and shortened; its type where it says nothing."""
    # Behind this PyTorch lists the addresses of its own functions.
    said = str(error).partition("Exception raised from ")[0]
    return textwrap.shorten(said, LONGEST, placeholder=" ...") or type(error).__name__


@contextmanager
def attributed(setting: str, given: object, remedy: str = "") -> Iterator[None]:
    """Turn any exception into a :class:`UserError` about a setting, with the user's file and line.

    :param given: what the setting was given: a part's class, which may be the user's own.
    :param remedy: what would be right, where the exception does not say so itself.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        known = isinstance(error, TypeError | ValueError)
        said = reason(error) + users_line(error) if known else described(error)
        said += f"; {remedy}" if remedy else ""
        raise UserError(said, setting, given) from error


def described(error: Exception) -> str:
    """An exception's type and text, with the user's file and line or else where it was raised."""
    text = f"{type(error).__name__}: {reason(error)}"
    if isinstance(error, SyntaxError):
        # Its own text names the place.
        return text
    place = users_line(error)
    # A RuntimeError is PyTorch's about shapes; where in PyTorch it was raised helps nobody.
    if not place and type(error) is not RuntimeError:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({last.filename}, line {last.lineno})"
    return text + place


def users_line(error: BaseException | None) -> str:
    """The last line of the user's own code that an exception or its cause passed; "" for none."""
    here = Path(__file__).resolve().parent
    others = [
        *(here.parent / package for package in PACKAGES),
        here,
        *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")),
        *(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")),
    ]
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = Path(frame.filename)
            if path.is_absolute() and not any(path.is_relative_to(place) for place in others):
                return f" ({path}, line {frame.lineno})"
        error = error.__cause__ or error.__context__
    return ""
