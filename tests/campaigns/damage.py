"""Ways in which a file comes to harm."""

from collections.abc import Callable, Sequence
from random import Random

WORDS = (
    *("nan", ".nan", ".inf", "-1", "0", "1e400", "9" * 30, "9" * 5000, "1e-320", "true", "null"),
    *("", "{}", "[]", "[[]]", "{a: 1}", "'", '"', "&a", "*a", "!!python/object:os.system", "<<"),
    *(
        "\0",
        "a\0b",
        "\x1b[2J",
        "\u202e",
        "\ud7ff",
        "\U0001f600",
        "x" * 3000,
        "../../etc",
        "/dev/zero",
    ),
    *("os.system", "models.priors.Learned", "cuda", "mps", "digits", "5", "0.5", "1"),
)
"""What a value of a text may be replaced with."""


def flipped(content: bytes, random: Random) -> bytes:
    """A few bytes changed."""
    held = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if held:
            held[random.randrange(len(held))] = random.randrange(256)
    return bytes(held)


def cut(content: bytes, random: Random) -> bytes:
    """Without its end."""
    return content[: random.choice((0, 1, random.randrange(len(content) + 1), -1))]


def extended(content: bytes, random: Random) -> bytes:
    """With something behind it."""
    return content + random.choice(
        (b"\0" * random.randrange(1, 2000), random.randbytes(random.randrange(1, 2000)), content)
    )


def block(content: bytes, random: Random) -> bytes:
    """A block gone, doubled or zero."""
    start = random.randrange(len(content) + 1)
    end = min(len(content), start + random.randrange(1, 600))
    held = content[start:end]
    put = random.choice((b"", held + held, b"\0" * len(held)))
    return content[:start] + put + content[end:]


def another(others: Sequence[bytes]) -> Callable[[bytes, Random], bytes]:
    """Another file in its place."""
    return lambda content, random: random.choice(others)


def refilled(content: bytes, random: Random) -> bytes:
    """A field of a table replaced, or a line doubled or with a field more."""
    lines = content.decode(errors="replace").split("\n")
    sign = "\t" if "\t" in lines[0] else ","
    index = random.randrange(len(lines))
    fields = lines[index].split(sign)
    fields[random.randrange(len(fields))] = random.choice(WORDS)
    doubled = lines[index] + "\n" + lines[index]
    lines[index] = random.choice((sign.join(fields),) * 4 + (doubled, sign + lines[index]))
    return "\n".join(lines).encode(errors="replace")


def reworded(content: bytes, random: Random) -> bytes:
    """A value of a text replaced, or a line gone, doubled or indented."""
    lines = content.decode(errors="replace").split("\n")
    index = random.randrange(len(lines))
    key, sign, _ = lines[index].partition(": ")
    word = random.choice(WORDS)
    lines[index] = random.choice(
        (key + sign + word,) * 4 + (lines[index] + "\n" + lines[index], "  " + lines[index], word)
    )
    return "\n".join(lines).encode(errors="replace")
