"""Tables in Markdown, and their places in documents."""

import re
from collections.abc import Iterable, Sequence

from pyro_infocat.errors import UserError


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells may hold bars and angle brackets."""
    # A bar would end the cell, and <preset> would be a tag of HTML.
    escaped = ([re.sub("([|<])", r"\\\1", cell) for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(document: str, content: str, name: str = "results") -> str:
    """A document with ``content`` between the two comments of that name.

    :raises UserError: where it does not have one such pair of comments.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = f"{begin}\n{content}\n{end}"
    text, found = re.subn(f"(?s){begin}.*?{end}", lambda _: whole, document)
    if found != 1:
        raise UserError(f"a document with {found} places for a table; write one '{begin}{end}'")
    return text
