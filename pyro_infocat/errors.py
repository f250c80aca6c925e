"""Errors that are the user's to mend."""

import textwrap

LONGEST = 500
"""Characters of an exception that a line repeats."""


class UserError(Exception):
    """Something given was wrong. One line: what was given, where, and what would be right."""


def reason(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing.

    Some print a whole tensor.
    """
    return textwrap.shorten(str(error), LONGEST, placeholder=" ...") or type(error).__name__
