"""Errors that are the user's to mend."""


class UserError(Exception):
    """Something given was wrong. One line: what was given, where, and what would be right."""
