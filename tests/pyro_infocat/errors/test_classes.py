"""Classes of a user's own that do not fit: the error names the class, and its file and line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_infocat.settings import SEVERAL
from tests.brief import ROOT, SMALL
from tests.pyro_infocat.errors.refusals import PARTS, Refuse

pytestmark = pytest.mark.usefixtures("alone")

CLASSES = {
    "priors_that_do_not_fit.Abstract": ["must define component"],
    "priors_that_do_not_fit.RefusesItsNumber": ["height must be above 0, not -1.0"],
    "priors_that_do_not_fit.FailsToBeMade": ["KeyError: 'modes'"],
    "priors_that_do_not_fit.WithoutSuper": ["'categories'", "must call super().__init__"],
    "priors_that_do_not_fit.NumbersWithoutSuper": [
        "has no '_modules'",
        "must call super().__init__",
    ],
    "priors_that_do_not_fit.NeedsANumber": ["--prior.k", "needs a whole number here"],
    "priors_that_do_not_fit.NeedsAValue": ["--prior.k", "needs a value here"],
    "priors_that_do_not_fit.IgnoresItsCategories": [
        "p(z|c) has shape (10, 4) for c of shape (10, 1)",
        "(10, 1, 4) would fit",
    ],
    "priors_that_do_not_fit.PlainTensor": ["'prior.modes' is a tensor", "self.register_buffer"],
    "priors_that_do_not_fit.OtherLatent": ["shape (10, 5)", "(10, 4) would fit"],
    "priors_that_do_not_fit.WithoutBatch": ["shape (4,)", "(10, 4)"],
    "priors_that_do_not_fit.Misspelt": ["NameError: name 'nothing' is not defined"],
    "priors_that_do_not_fit.OfPyTorch": ["'Normal' object has no attribute 'shape'"],
    "priors_that_do_not_fit.NotANumber": ["loc", "nan"],
    "priors_that_do_not_fit.Independent": [
        "p(z|c) has event shape ()",
        "(4,) would fit",
        ".to_event(1)",
    ],
    "priors_that_do_not_fit.OtherWeights": ["p(c) has logits of shape (9,)", "would fit its K"],
    "decoders_that_do_not_fit.Abstract": ["must define raw"],
    "decoders_that_do_not_fit.TooManyFeatures": ["(10, 4, 65)", "the data need (10, 4, 64)"],
    "decoders_that_do_not_fit.OtherLatent": [
        "cannot decode z of shape (10, 4, 20)",
        "must accept (..., 20)",
    ],
    "likelihoods_that_do_not_fit.Abstract": ["must define forward"],
    "likelihoods_that_do_not_fit.GreyOfZeroAndOne": [
        "support does not hold the data",
        "between 0 and 1",
        "ContinuousBernoulli",
    ],
    "likelihoods_that_do_not_fit.Independent": [
        "p(x|z) has event shape ()",
        "(64,) would fit",
        ".to_event(1)",
    ],
    "likelihoods_that_do_not_fit.WithoutMean": [
        "its mean is not finite",
        "give a distribution that has one",
    ],
    "likelihoods_that_do_not_fit.WithoutGradient": [
        "has no rsample",
        "--information_weight 0 does without",
    ],
    "likelihoods_that_do_not_fit.InfiniteDensity": [
        "reconstruction is inf on the first examples",
        "between 0 and 1",
    ],
    "guides_that_do_not_fit.Abstract": ["must define posterior"],
    "guides_that_do_not_fit.WithoutSuper": ["has no 'categories'", "must call super().__init__"],
    "guides_that_do_not_fit.OtherCategories": [
        "q(c|x) has 11 categories",
        "models.priors.Orthogonal has 10",
    ],
    "guides_that_do_not_fit.OtherLatent": [
        "q(z|x,c) has shape (10, 4, 19)",
        "(10, 4, 20) would fit",
    ],
    "guides_that_do_not_fit.Independent": [
        "q(z|x,c) has event shape ()",
        "(20,) would fit",
        ".to_event(1)",
    ],
    "guides_that_do_not_fit.WithoutGradient": ["q(z|x,c) has no rsample"],
    "guides_that_do_not_fit.WithoutAnalyticKL": ["no analytic KL", "use --kl sampled"],
    "guides_that_do_not_fit.OtherSites": [
        "its sites are code",
        "the model's are c, z, and the guide must have z and no other",
    ],
    "guides_that_do_not_fit.WithoutSites": ["its sites are none", "the model's are c, z"],
    "guides_that_do_not_fit.WithoutPosterior": [
        "no attribute 'category'",
        "posterior must return guides.guide.Posterior",
    ],
    "guides_that_do_not_fit.AllCategoriesAlone": [
        "q(z|x,c) has shape (10, 4, 20) for c of shape (4,); (4, 20) would fit"
    ],
    "guides_that_do_not_fit.GrowingBuffer": [
        "'guide.rows' has shape (16, 64) after its first use",
        "no checkpoint could be read back",
    ],
    "guides_that_do_not_fit.Fails": ["ZeroDivisionError", "must accept x of shape (4, 64)"],
    "guides_that_do_not_fit.WrongArithmetic": ["unsupported operand"],
    "guides_that_do_not_fit.MissingFile": ["modes.npy"],
    "guides_that_do_not_fit.LongError": ["1 1 ..."],
    "guides_that_do_not_fit.CriticToCome": ["NotImplementedError: later"],
    "views_that_do_not_fit.Abstract": ["must define __call__"],
    "views_that_do_not_fit.OtherShape": ["of shape (4, 9) of torch.float32 of shape (4, 64)"],
    "views_that_do_not_fit.OtherType": [
        "makes torch.float64 of shape (4, 64) of torch.float32 of shape (4, 64)"
    ],
    "views_that_do_not_fit.NotFinite": ["makes numbers that are not finite of x"],
    "views_that_do_not_fit.Fails": ["no attribute 'turned'", "must accept x of shape (4, 64)"],
    "models_that_do_not_fit.WithoutSuper": ["has no '_modules'", "must call super().__init__"],
    "models_that_do_not_fit.Fails": ["LookupError: no such mode"],
    "terms_that_do_not_fit.Abstract": ["must define __call__"],
    "terms_that_do_not_fit.WithoutName": ["has no 'name'; it must be set in the class"],
    "terms_that_do_not_fit.WithoutSign": ["has no 'sign'; it must be set in the class"],
    "terms_that_do_not_fit.OtherSign": ["its sign must be 1 or -1"],
    "terms_that_do_not_fit.NameTaken": ["there is a term 'consistency' already"],
    "terms_that_do_not_fit.NameOfTwoWords": ["its name must be a word", "not 'mine.too'"],
    "terms_that_do_not_fit.NeedsWhatIsNotThere": [
        "its needs must be a set of category, clusters, generated, known, labels, view"
    ],
    "terms_that_do_not_fit.NegativeWeight": ["the weight of mine must not be negative, not -1.0"],
    "terms_that_do_not_fit.SchedulesWhatIsNotThere": [
        "declares that 'height' may be scheduled, which is None",
        "must be an attribute that holds a number",
    ],
    "terms_that_do_not_fit.WithoutSaying": ["'view' was not made; add it to the needs"],
    "terms_that_do_not_fit.OneForEach": ["mine is of shape (4,)", "a sum over the batch"],
    "terms_that_do_not_fit.PlainNumber": ["mine is of shape float", "a sum over the batch"],
    "terms_that_do_not_fit.NotANumber": ["mine is nan on the first examples", "must be finite"],
    "terms_that_do_not_fit.Fails": ["no attribute 'turned'"],
    "metrics_that_do_not_fit.Abstract": ["must define __call__"],
    "metrics_that_do_not_fit.WithoutName": ["has no 'name'; it must be set in the class"],
    "figures_that_do_not_fit.Abstract": ["must define __call__"],
    "figures_that_do_not_fit.WithoutName": ["has no 'name'; it must be set in the class"],
    "readers_that_do_not_fit.Abstract": ["must define read"],
    "readers_that_do_not_fit.NeedsANumber": ["--reader.size", "needs a whole number here"],
    "readers_that_do_not_fit.ReadsNothing": ["read must return a DataSet, not NoneType"],
    "readers_that_do_not_fit.GreyLevels": ["holds torch.float32 of shape (20, 64)", "uint8"],
    "readers_that_do_not_fit.AnotherNumberOfPixels": ["of shape (20, 63)", "(20, 64)"],
    "readers_that_do_not_fit.BeyondItsLevels": ["bytes up to 17", "17 levels are 0 to 16"],
    "readers_that_do_not_fit.Fails": ["FileNotFoundError", "images.raw"],
}
"""Below tests/users_parts, and what the error says of each."""

LINES = {
    "priors_that_do_not_fit.RefusesItsNumber": "raise ValueError(f",
    "priors_that_do_not_fit.FailsToBeMade": 'raise KeyError("modes")',
    "priors_that_do_not_fit.Misspelt": "nothing)",
    "guides_that_do_not_fit.Fails": "1 / 0",
    "guides_that_do_not_fit.WrongArithmetic": '1 + "one"',
    "guides_that_do_not_fit.MissingFile": 'np.load("modes.npy")',
    "guides_that_do_not_fit.LongError": 'raise ValueError("1 "',
    "guides_that_do_not_fit.CriticToCome": 'raise NotImplementedError("later")',
    "views_that_do_not_fit.Fails": "grey.turned()",
    "models_that_do_not_fit.Fails": "raise LookupError",
    "terms_that_do_not_fit.WithoutSaying": "batch.view.sum()",
    "terms_that_do_not_fit.Fails": "batch.x.turned()",
    "readers_that_do_not_fit.Fails": 'Path("images.raw")',
    "metrics_that_do_not_fit.Fails": "1 / 0",
    "figures_that_do_not_fit.Fails": "1 / 0",
}
"""The source of the line that the error names: where it goes wrong is for whoever wrote it."""


def role_of(path: str) -> str:
    several = path.partition("_")[0]
    return several if several in SEVERAL else several.removesuffix("s")


def place(path: str) -> str:
    """The file and line that the error must name."""
    file = ROOT / PARTS.replace(".", "/") / f"{path.partition('.')[0]}.py"
    lines = file.read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, start=1) if LINES[path] in line)
    return f"({file}, line {number})"


def check(error: str, path: str, said: list[str]) -> None:
    assert error.startswith(f"--{role_of(path)}")
    assert PARTS + path in error
    assert "site-packages" not in error
    for words in said:
        assert words in error
    if path in LINES:
        assert place(path) in error


@pytest.mark.parametrize(("path", "said"), CLASSES.items(), ids=CLASSES)
def test_a_class_that_does_not_fit(path: str, said: list[str], refuse: Refuse) -> None:
    check(refuse(f"--{role_of(path)}", PARTS + path), path, said)


MEASURES = {
    "metrics_that_do_not_fit.NameTaken": ["there is a metric 'accuracy' already"],
    "metrics_that_do_not_fit.OfTensors": ["a Tensor with 2 elements cannot be converted to Scalar"],
    "metrics_that_do_not_fit.Fails": ["ZeroDivisionError: division by zero"],
}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("path", "said"), MEASURES.items(), ids=MEASURES)
def test_a_metric_that_does_not_fit(path: str, said: list[str], refuse: Refuse) -> None:
    """It is asked for once there is something to measure."""
    flags = [*SMALL, "--epochs", "1", "--metrics", PARTS + path]
    check(refuse(*flags, fresh=False), path, said)


PICTURES = {
    "figures_that_do_not_fit.NameTaken": ["there is a figure 'latent' already"],
    "figures_that_do_not_fit.Nothing": ["it must return a Figure, not NoneType"],
    "figures_that_do_not_fit.Fails": ["ZeroDivisionError: division by zero"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "said"), PICTURES.items(), ids=PICTURES)
def test_a_figure_that_does_not_fit(path: str, said: list[str], refuse: Refuse) -> None:
    flags = [*SMALL, "--epochs", "1", "--figures", PARTS + path]
    check(refuse(*flags, fresh=False), path, said)


def test_a_term_of_labels_that_the_data_do_not_have(refuse: Refuse) -> None:
    np.savez("unlabelled.npz", x_train=np.random.default_rng(0).random((50, 6, 6)))
    path = PARTS + "terms_that_do_not_fit.NeedsLabels"
    error = refuse("--data", "unlabelled.npz", "--terms", path)
    assert error == "--terms: mine needs labels, and the data have none"


def test_a_program_without_the_guides_sites(refuse: Refuse) -> None:
    """Neither is wrong by itself: the error names both."""
    error = refuse("--model", PARTS + "models_that_do_not_fit.WithoutSites")
    assert "guide guides.enumerated.Enumerated: its sites are c, z; the model's are none" in error


def test_a_parameter_in_pyros_store(refuse: Refuse) -> None:
    assert refuse("--guide", PARTS + "guides_that_do_not_fit.ParameterOfPyro") == (
        "pyro.param 'shift' of a part would be neither trained nor saved; make it a "
        "torch.nn.Parameter of the class"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine(", "SyntaxError"),
        ("mode = 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('no way')", "no way"),
        ("import nothere", "No module named 'nothere'"),
        ("import numpy\nnumpy.nothere", "has no attribute 'nothere'"),
    ],
)
def test_a_file_that_cannot_be_imported(
    code: str, said: str, mine: Callable[[str], str], refuse: Refuse
) -> None:
    name = mine(code)
    error = refuse("--prior", f"{name}.Mine")
    assert said in error
    assert f"{name}.py" in error
    assert Path(f"{name}.py").exists()
