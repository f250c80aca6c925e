"""Doubts and the figures of trust on the page."""

from pathlib import Path

import pytest

from pyro_infocat.evaluation import Tested
from pyro_infocat.report import page, words
from tests.pyro_infocat.report.pieces import SETTINGS, examined, result, sure

SAID = ["Categories 0 and 1 are one: <b>q(c|x)</b> cannot tell.", "Seeds disagree."]
HEADING = "Not to be trusted without a look"


@pytest.fixture
def ordinary() -> Tested:
    return examined(sure([n % 4 for n in range(30)], 4))


def made(of: Tested, **others: object) -> str:
    return page.html(of, result(of) | others, SETTINGS, Path("run"))


def test_doubts_stand_before_anything_else(ordinary: Tested) -> None:
    text = made(ordinary, doubts=SAID)
    places = [
        text.index(word) for word in (HEADING, "<li>Seeds disagree.</li>", "What the numbers")
    ]
    assert places == sorted(places)
    assert "are one: &lt;b&gt;q(c|x)&lt;/b&gt; cannot tell." in text
    # A sentence is no metric.
    assert text.count("Seeds disagree.") == 1


@pytest.mark.parametrize("others", [{}, {"doubts": []}], ids=["a run of before", "none"])
def test_without_doubts_there_is_no_heading(others: dict[str, object], ordinary: Tested) -> None:
    assert HEADING not in made(ordinary, **others)


def test_of_a_share_for_each_category_the_least_is_told() -> None:
    assert words.told("given_back", [0.5, 0.25, 1.0])[:2] == (
        "least category given back",
        "25.0% (category 1)",
    )
    assert words.told("agreement_of_categories", [None, 1.0])[1] == "100% (category 1)"
    assert words.told("agreement_of_categories", [None, None])[1] == words.DASH
