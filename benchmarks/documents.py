"""Where a generated table stands in the documents: between ``<!-- NAME: begin -->`` and its end."""

import re
from collections.abc import Callable
from pathlib import Path

from pyro_infocat.cli.markdown import with_table
from pyro_infocat.places import ROOT
from pyro_infocat.storage.files import replace

README = ROOT / "README.md"

Table = Callable[[Path], str]
"""A table as Markdown, for a document: the README has a short form."""


def documents() -> list[Path]:
    """The README and the pages of docs/."""
    return [README, *sorted((ROOT / "docs").glob("*.md"))]


def names(document: Path) -> list[str]:
    """The tables that a document has a place for."""
    return re.findall(r"^<!-- ([\w-]+): begin -->", document.read_text(), re.MULTILINE)


def write(name: str, table: Table) -> None:
    """Bring a table up to date in each document that has a place for it."""
    for document in documents():
        if name in names(document):
            text = with_table(document.read_text(), table(document), name)
            replace(document, text.encode())
