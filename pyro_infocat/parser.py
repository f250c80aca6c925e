"""argparse with errors of one line, for the commands that need no presets."""

import argparse
import re
from typing import Any

from pyro_infocat.errors import UserError

SAYINGS = {
    "^argument (--)": r"\1",
    "invalid int value: ": "expected a whole number, not ",
    "invalid float value: ": "expected a number, not ",
}
"""What argparse says, and what a person does."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours to print, and that takes no shortened flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> Any:
        for said, plain in SAYINGS.items():
            message = re.sub(said, plain, message)
        raise UserError(f"{message}; see --help")
