"""What comes of something that may be refused."""

from collections.abc import Callable
from typing import TypeVar

from pyro_infocat import UserError

Made = TypeVar("Made")


def tried(make: Callable[[], Made]) -> Made | UserError:
    """What is made, or the error that is told to the user; any other error is raised."""
    try:
        return make()
    except UserError as error:
        return error
