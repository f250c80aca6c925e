"""The examples in docstrings are run."""

import doctest
import textwrap
from pathlib import Path

import pytest

import pyro_infocat as pic
from pyro_infocat import api

pytestmark = [pytest.mark.usefixtures("brief"), pytest.mark.slow]


class Checker(doctest.OutputChecker):
    """What a run prints as it goes is not compared: a statement alone promises no output."""

    def check_output(self, want: str, got: str, flags: int) -> bool:
        return want == "" or super().check_output(want, got, flags)


def examples(function: object) -> doctest.DocTest:
    (found,) = doctest.DocTestFinder(recurse=False).find(function)
    return found


@pytest.mark.parametrize("function", [pic.fit, pic.check_parts], ids=lambda f: f.__name__)
def test_examples(function: object) -> None:
    found = examples(function)
    runner = doctest.DocTestRunner(Checker())
    said: list[str] = []
    runner.run(found, out=said.append)
    assert runner.summarize(verbose=False) == (0, len(found.examples)), "".join(said)
    assert any(example.want for example in found.examples)


def test_no_other_docstring_of_the_module_has_examples() -> None:
    """It would not be run."""
    with_examples = {
        found.name.rpartition(".")[2]
        for found in doctest.DocTestFinder().find(api)
        if found.examples
    }
    assert with_examples == {"fit", "check_parts"}


def test_the_lines_of_the_packages_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there: one after the other, in an empty folder."""
    (block,) = (
        part
        for part in (pic.__doc__ or "").split("\n\n")
        if part.startswith("    ") and "fit" in part
    )
    first = next(
        part for part in (pic.__doc__ or "").split("\n\n") if "import pyro_infocat" in part
    )
    names: dict[str, object] = {}
    exec(textwrap.dedent(first), names)
    made = []
    for line in textwrap.dedent(block).splitlines():
        exec(line, names)
        made.append(names["run"])
    trained, loaded = made
    assert isinstance(trained, pic.Run)
    assert isinstance(loaded, pic.Run)
    assert trained.folder == loaded.folder == Path("runs/digits/seed0")
    assert trained.metrics == loaded.metrics
    assert len(loaded.history) == 20


def test_every_public_name_is_there() -> None:
    for name in pic.__all__:
        assert getattr(pic, name) is not None
        assert name in dir(pic)
    assert set(pic.__all__) == {*pic.PUBLIC, "__version__"}
    with pytest.raises(AttributeError, match="module 'pyro_infocat' has no attribute 'fitted'"):
        pic.fitted  # noqa: B018
