"""``python -m pyro_infocat.export``: a run's guide as a program without this project's code."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import pyro_infocat as pic
from pyro_infocat import export, exporting
from pyro_infocat.assignment import assign
from pyro_infocat.build import observation
from pyro_infocat.catalogue import Column, Facts
from pyro_infocat.data import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.errors import UserError
from pyro_infocat.loading import Run
from pyro_infocat.resolve import Given, Resolver
from pyro_infocat.run import main
from pyro_infocat.settings import CONFIG, Settings
from tests.brief import SMALL

pytestmark = pytest.mark.usefixtures("brief")

PARTS: dict[str, dict[str, Any]] = {
    "mlp": {"encoder": "guides.encoders.MLP", "encoder.hidden": [16], "encoder.norm": True},
    "convolutional": {"encoder": "guides.encoders.Convolutional", "encoder.width": 4},
    "upright": {"encoder": "guides.encoders.Upright", "encoder.width": 4},
    "recurrent": {"encoder": "guides.encoders.Recurrent", "encoder.hidden": 8},
    "bayes": {"guide": "guides.Bayes", "prior": "models.priors.Mixture", "kl": "sampled"},
    "vamp": {"guide": "guides.Bayes", "prior": "models.priors.Vamp", "kl": "sampled"},
    "soft code": {"guide": "guides.SoftCode"},
    "gumbel": {"guide": "guides.Gumbel"},
}
"""Every guide and encoder of this project; tables have one of their own."""

DOUBTFUL = 1e-4
"""Two categories nearer than this may change places by rounding, of which 1e-5 is let pass."""


def untrained(**parts: Any) -> Run:
    """A run on grey digits, before training. Statistics of normalising layers are not the first."""
    given = {"likelihood": "models.likelihoods.Gaussian", "observe": "grey", **parts}
    made = pic.check_parts("digits", device="cpu", **given)
    resolver = Resolver([Given(tuple(name.split(".")), value) for name, value in given.items()])
    torch.manual_seed(0)
    for module in made.guide.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.running_mean)
    made.model.eval(), made.guide.eval()
    facts = digits().facts
    return Run(made.model, made.guide, resolver.settings(), facts, "grey", Path("run"))


def wanted(run: Run, split: Split) -> tuple[Tensor, Tensor, Tensor]:
    """q, z and category as ``categorise`` writes them."""
    (found,) = assign(run, split, 0)
    return tuple(map(torch.from_numpy, (found.probabilities, found.z, found.category)))  # type: ignore[return-value]


def agree(found: Any, right: tuple[Tensor, Tensor, Tensor], tolerance: float) -> None:
    q, z, category = (torch.as_tensor(one) for one in found)
    torch.testing.assert_close(q, right[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(z, right[1], rtol=tolerance, atol=10 * tolerance)
    best = right[0].topk(2).values
    sure = best[:, 0] - best[:, 1] > DOUBTFUL
    assert sure.any()
    assert torch.equal(category[sure], right[2][sure])


def images(split: Split) -> Tensor:
    return split.pixels.reshape(-1, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_both_formats_say_what_categorise_says(parts: dict[str, Any]) -> None:
    """Of batches of any size. Rounding alone differs: 1e-6 in q under PyTorch, 1e-5 under ONNX."""
    run = untrained(**parts)
    exporting.write(run, Path("run.pt2"))
    exporting.write(run, Path("run.onnx"))
    program = torch.export.load("run.pt2").module()
    session = onnxruntime.InferenceSession("run.onnx")
    for number in (1, 2, 37):
        split = digits().test.part(torch.arange(number))
        right = wanted(run, split)
        agree([one.detach() for one in program(images(split))], right, 1e-6)
        agree(session.run(None, {"x": images(split).numpy()}), right, 1e-5)


@pytest.mark.slow
def test_what_is_written_is_described() -> None:
    run = untrained()
    exporting.write(run, Path("run.pt2"), "grey")
    extra = {"infocat.json": ""}
    program = torch.export.load("run.pt2", extra_files=extra).module()
    said = json.loads(extra["infocat.json"])
    assert (said["shape"], said["given"], said["levels"]) == ([8, 8], "grey", 17)
    assert (said["outputs"], said["observation"]) == (["q", "z", "category"], "grey")
    split = digits().test.part(torch.arange(5))
    agree(program(images(split) / 16), wanted(run, split), 1e-6)


@pytest.mark.slow
def test_onnx_names_what_it_takes_and_gives() -> None:
    exporting.write(untrained(), Path("run.onnx"))
    made = onnx.load("run.onnx")
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession("run.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("x", "tensor(uint8)", ["batch", 8, 8])
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "q": ["batch", 10],
        "z": ["batch", 20],
        "category": ["batch"],
    }
    said = json.loads(session.get_modelmeta().custom_metadata_map["infocat"])
    assert said["given"] == "bytes"


@pytest.mark.slow
def test_the_published_codes_dropout_is_left_out() -> None:
    """Its answers would be other ones each time; a mean of many is near the exported one."""
    run = untrained(guide="guides.SoftCode", **{"guide.quirks": True, "guide.rate": 0.5})
    program = exporting.exported(run).module()
    split = digits().test.part(torch.arange(4))
    first, second = program(images(split)), program(images(split))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(run.guide.category(split.grey()).logits, first[0].log())
    # The run itself is as it was.
    assert run.guide.rate == 0.5  # type: ignore[union-attr]
    run.guide.rate = 0.0  # type: ignore[union-attr]
    agree([one.detach() for one in first], wanted(run, split), 1e-6)


@pytest.mark.slow
def test_a_run_on_binarised_images_takes_grey_levels_as_they_are() -> None:
    run = untrained(likelihood="models.likelihoods.Bernoulli", observe="binary")
    run = Run(run.model, run.guide, run.settings, run.facts, "binary", run.folder)
    assert observation(run.settings, run.model.decoder.likelihood) == "binary"
    split = digits().test.part(torch.arange(9))
    grey = Run(run.model, run.guide, run.settings, run.facts, "grey", run.folder)
    found = [one.detach() for one in exporting.exported(run).module()(images(split))]
    agree(found, wanted(grey, split), 1e-6)


COLUMNS = (
    Column("weight", "real", mean=70.0, scale=12.0),
    Column("visits", "count", mean=1.0, scale=0.5),
    Column("smoker", "binary", ("no", "yes")),
    Column("town", "category", ("A", "B", "C")),
)
TABLE = Facts("table", (6,), 0, (), COLUMNS)


def test_rows_of_a_table_are_brought_to_the_runs_units() -> None:
    """Against the arithmetic by hand: (82 - 70) / 12 is 1, and town B the second of three."""
    transform = exporting.Columns(COLUMNS)
    nan = float("nan")
    given = torch.tensor([[82.0, 3, 1, 1], [58, 0, 0, 2], [nan, nan, nan, nan]])
    right = torch.tensor([[1.0, 3, 1, 0, 1, 0], [-1, 0, 0, 0, 0, 1], [nan] * 6])
    torch.testing.assert_close(transform(given), right, equal_nan=True)


@pytest.mark.slow
def test_a_table_is_exported_with_its_units() -> None:
    """A column's mean and scale are within, so that raw rows go in."""
    import pandas as pd

    from pyro_infocat.data import table

    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "weight": random.normal(70, 12, 60),
            "visits": random.poisson(2, 60),
            "smoker": np.where(random.random(60) < 0.4, "yes", "no"),
            "town": random.choice(list("ABC"), 60),
        }
    )
    frame.loc[3, "weight"] = None
    data = table.data_set(table.Rows(frame), "the data")
    parts = pic.check_parts(data, preset="table", device="cpu")
    settings = Settings()
    parts.model.eval(), parts.guide.eval()
    run = Run(parts.model, parts.guide, settings, data.facts, "grey", Path("run"))
    codes = {name: {value: n for n, value in enumerate(c.values)}
             for name, c in ((c.name, c) for c in data.facts.columns)}  # fmt: skip
    raw = frame.assign(smoker=frame.smoker.map(codes["smoker"]), town=frame.town.map(codes["town"]))
    x = torch.from_numpy(table.encoded(frame, data.facts.columns, "the data"))
    right = wanted(run, Split.of_real_numbers(x))
    exporting.write(run, Path("run.pt2"))
    exporting.write(run, Path("run.onnx"))
    given = raw.to_numpy(np.float64)
    program = torch.export.load("run.pt2").module()
    agree([one.detach() for one in program(torch.from_numpy(given))], right, 1e-6)
    agree(onnxruntime.InferenceSession("run.onnx").run(None, {"x": given}), right, 1e-5)


@pytest.mark.slow
def test_the_command_writes_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--epochs", "1", "--out", "run"]) == 0
    capsys.readouterr()
    assert export.main(["run"]) == 0
    assert capsys.readouterr().out == "run/model.pt2: x to q, z, category\n"
    run, split = pic.load("run"), digits().test.part(torch.arange(20))
    found = torch.export.load("run/model.pt2").module()(images(split))
    right = run.probabilities(images(split).numpy() / 16)
    torch.testing.assert_close(found[0].detach(), torch.from_numpy(right), rtol=0, atol=1e-6)


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert export.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--out a.txt: give a name that ends in .pt2 or .onnx" in refused(
        capsys, "run", "--out", "a.txt"
    )
    assert "'none' is not the folder of a run" in refused(capsys, "none")
    Path("run").mkdir()
    Path("run", CONFIG).write_text("")
    monkeypatch.setattr("pyro_infocat.loading.load", lambda *_: untrained())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refused(capsys, "run", "--out", "a.onnx")
    assert "--out: .onnx needs the package onnxscript; install pyro_infocat[export]" in said
    Path("a").write_text("")
    assert "cannot write" in refused(capsys, "run", "--out", "a/b.pt2")
    assert sorted(path.name for path in Path().iterdir()) == ["a", "run"]
    assert [path.name for path in Path("run").iterdir()] == [CONFIG]


def test_a_guide_that_cannot_be_exported_is_named() -> None:
    run = untrained()
    posterior = type(run.guide).posterior

    def looks(self: Any, x: Tensor) -> Any:
        return posterior(self, x if x.sum() > 0 else -x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.guide), "posterior", looks)
        with pytest.raises(UserError, match=r"guides\.enumerated\.Enumerated cannot be exported"):
            exporting.exported(run)
