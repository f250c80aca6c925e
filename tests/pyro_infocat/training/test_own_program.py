"""Training a program with a latent site of the user's own."""

import pytest

from pyro_infocat import UserError
from pyro_infocat.checks import try_parts
from pyro_infocat.data.readers import digits
from pyro_infocat.settings import Part, Settings
from tests.pyro_infocat.training.pieces import fit, make_parts, settings

pytestmark = pytest.mark.usefixtures("alone")

BUILT_IN = "reconstruction, kl_z, kl_c, information_bound, marginal_entropy, conditional_entropy"


def own(**changes: object) -> Settings:
    return settings(
        model=Part("tests.users_parts.own_site.Shifted"),
        guide=Part("tests.users_parts.own_site.Shift", {"hidden": 8}),
        batch_size=700,
        **{"weights": {}, "information_weight": 0.0} | changes,
    )


def refuse(chosen: Settings) -> str:
    with pytest.raises(UserError) as caught:
        try_parts(chosen, make_parts(chosen), digits().train, "grey")
    return str(caught.value)


@pytest.mark.parametrize("scheduled", [False, True])
def test_its_site_has_a_term_with_a_weight(scheduled: bool) -> None:
    """Which counts as 1 unless it is given or scheduled, and is a part of the ELBO."""
    weights = {"weights": {"kl_w": 0.5}}
    if scheduled:
        weights = {"schedules": {"kl_w": [[0, 0.5], [9, 0.5]]}}
    for changes, weight in (({}, 1.0), (weights, 0.5)):
        chosen = own(epochs=1, **changes)
        history, parts = fit(chosen, folder=f"out{weight}")
        (row,) = history
        assert row["kl_w"] > 0
        elbo = row["reconstruction"] - row["kl_z"] - row["kl_c"] - row["kl_w"]
        assert row["elbo"] == pytest.approx(elbo, rel=1e-5)
        assert parts.bound.weights.get("kl_w", 1.0) == weight
        assert parts.guide.mean.weight.grad.any()


def test_it_is_the_objective_by_which_starts_are_compared() -> None:
    history, _ = fit(own(epochs=1, weights={"kl_w": 0.5}))
    row = history[0]
    objective = row["reconstruction"] - row["kl_z"] - row["kl_c"] - 0.5 * row["kl_w"]
    assert row["objective"] == pytest.approx(objective, rel=1e-5)


def test_the_parts_are_tried_with_its_weight() -> None:
    chosen = own(weights={"kl_w": 0.5}, schedules={"kl_w": [[0, 0.5]]})
    try_parts(chosen, make_parts(chosen), digits().train, "grey")


@pytest.mark.parametrize("setting", ["weights", "schedules"])
@pytest.mark.parametrize("program", ["own", "this project's"])
def test_a_weight_of_a_site_that_is_not_there_is_told_before_training(
    program: str, setting: str
) -> None:
    value = {"weights": {"kl_v": 0.5}, "schedules": {"kl_v": [[0, 0.5]]}}[setting]
    chosen = own(**{setting: value}) if program == "own" else settings(**{setting: value})
    there = f"{BUILT_IN}, consistency, nearness{', kl_w' if program == 'own' else ''}"
    assert refuse(chosen) == f"--{setting}: no term 'kl_v' to weigh; there are {there}"
