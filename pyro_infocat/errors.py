"""Errors that are the user's to mend."""


class UserError(Exception):
    """Something given was wrong. One line: what was given, where, and what would be right."""


def reason(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
