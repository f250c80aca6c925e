"""InfoCatVAE as scikit-learn has its estimators: one object that is fitted and then asked.

Shapes: D latent dimensions, K categories, N examples, S samples, X features.
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from pyro_infocat.assignment import assign, check_density
from pyro_infocat.data import Split, observe
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.likelihood import log_likelihood_alone
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.experiment import run
from pyro_infocat.in_python import global_state_kept, in_python
from pyro_infocat.keywords import given_data, in_memory_data, resolved, usual_preset
from pyro_infocat.loading import Run, is_frame, load
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import AUTO, CHECKPOINT, CONFIG, HISTORY

KEPT = (CONFIG, CHECKPOINT, HISTORY)
"""The files of a run that :meth:`InfoCatVAE.save` writes."""


class InfoCatVAE(ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, BaseEstimator):
    """Categories of images or of the rows of a table, without labels or with a few.

    Every example that ``fit`` is given is trained on. What fits the data is chosen by their kind,
    as on the command line: a table (N, X) or a DataFrame, grey images (N, height, width), images in
    colour (N, 3, height, width) or (N, height, width, 3).

    >>> from sklearn.datasets import load_iris
    >>> from pyro_infocat import InfoCatVAE
    >>> model = InfoCatVAE(n_categories=3, epochs=2).fit(load_iris().data)
    >>> model.predict_proba(load_iris().data).shape
    (150, 3)

    :ivar labels_: the likeliest category of each example of ``fit`` (N,).
    :ivar n_categories_: K.
    :ivar classes_: the label that category k stands for, for k below their number, where ``fit``
        was given a few; others are free.
    :ivar run_: the trained :class:`pyro_infocat.Run`, with model and guide in float64.
    :ivar history_: a row an epoch of every named term in nats per example.
    :ivar n_features_in_: X, or an image's first side; of a table only after ``fit``, since a run
        does not keep the columns that it left out.
    :ivar feature_names_in_: a DataFrame's columns, after ``fit``.
    :param n_categories: K, or ``auto`` to find one from X, see docs/number.md.
    :param most_categories: the largest that ``auto`` tries.
    :param preset: the name of a preset or a YAML file; ``auto`` for the data's own.
    :param epochs: passes over the examples; the preset's when None.
    :param batch_size: examples in a step; the preset's when None.
    :param nll_samples: S, importance samples of ``score`` and ``score_samples``.
    :param random_state: a seed, a RandomState or None.
    :param device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; predictions are made on the
        CPU.
    :param settings: any setting of a run by name: ``{"prior.scale": 5}``, see docs/settings.md.
    :param verbose: say what a run says, and show its bar.
    """

    def __init__(
        self,
        n_categories: int | Literal["auto"] = 10,
        *,
        most_categories: int = 50,
        preset: str = "auto",
        epochs: int | None = None,
        batch_size: int | None = None,
        nll_samples: int = 50,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_categories = n_categories
        self.most_categories = most_categories
        self.preset = preset
        self.epochs = epochs
        self.batch_size = batch_size
        self.nll_samples = nll_samples
        self.random_state = random_state
        self.device = device
        self.settings = settings
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "InfoCatVAE":  # noqa: N803
        """Train on all of X.

        :param y: labels (N,) of a few examples, -1, NaN, None or "" for the others: category k then
            stands for the k-th label, or for the number k. Not looked at where none is unknown.
        :raises ValueError: for anything given wrong, in one line.
        """
        X = self._checked(X, reset=True)  # noqa: N806
        least = 2 if isinstance(self.n_categories, str) else max(2, self.n_categories)
        if len(X) < least:
            raise ValueError(
                f"n_samples={len(X)}; {least} are needed for {self.n_categories} categories"
            )
        settings: dict[str, Any] = dict(self.settings or {})
        settings |= {"seed": self._seed(), "device": self.device}
        settings["prior.categories"] = self.n_categories
        if self.n_categories == AUTO:
            settings["most_categories"] = self.most_categories
        most = self.most_categories if isinstance(self.n_categories, str) else self.n_categories
        codes, classes = _known_labels(y, len(X), most)
        if codes is not None:
            settings = {"known_labels": "all"} | settings
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        with _one_line(), tempfile.TemporaryDirectory() as place, self._said():
            given, held = given_data(X, None, None, None, whole=True)
            preset = usual_preset(held) if self.preset == "auto" else self.preset
            chosen, instances, _ = resolved("fit", given, preset, settings)
            data = in_memory_data(held, chosen, whole=True)
            if codes is not None:
                facts = replace(data.facts, classes=tuple(map(str, classes)))
                train = replace(data.train, labels=torch.from_numpy(codes), labelled=True)
                data = replace(data, facts=facts, train=train)
            folder = Path(place) / "run"
            with global_state_kept():
                trained = run(
                    chosen,
                    folder,
                    data=data,
                    instances=instances,
                    progress=None if self.verbose else False,
                    told=in_python,
                    measured=False,
                )
            self._files = {name: (folder / name).read_bytes() for name in KEPT}
            self.history_ = trained.history
        if codes is not None:
            self.classes_ = classes
        elif hasattr(self, "classes_"):
            del self.classes_
        self._take(trained)
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The likeliest category of each example (N,)."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """q(c | x) of each example (N, K)."""
        return np.concatenate([part.probabilities for part in self._assigned(X)])

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The mean of q(z | x, c) for each example's likeliest category (N, D)."""
        return np.concatenate([part.z for part in self._assigned(X)])

    def inverse_transform(self, Z: Any) -> Any:  # noqa: N803
        """The mean of p(x | z) for each z (N, D), in the units of ``fit``'s examples.

        :returns: a DataFrame where ``fit`` was given one, else an array (N, X), or images of the
            shape of ``fit``'s in [0, 1].
        """
        check_is_fitted(self, "run_")
        z = torch.as_tensor(np.asarray(Z), dtype=torch.float64)
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has shape {tuple(z.shape)}; give (N, {self._n_features_out})")
        with torch.no_grad():
            return self._shown(mean_of(self.run_.model.decoder(z)))

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """log p(x) of each example (N,) in nats, importance-weighted; low ones are outliers."""
        split = self._split(X)
        if self.nll_samples < 1:
            raise ValueError(f"nll_samples must be at least 1, not {self.nll_samples}")
        run = self.run_
        with _one_line():
            check_density(run, self.nll_samples)
        with evaluating(torch.device("cpu"), run.model, run.guide, seed=self._seed_of_draws):
            x = observe(split.grey().double(), run.observation)
            return log_likelihood_alone(run.model, run.guide, x, self.nll_samples).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of :meth:`score_samples`, in nats per example."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, category: int | None = None) -> tuple[Any, np.ndarray]:
        """Generated examples, as ``fit``'s, and their categories (N,).

        c ~ p(c) where no category is given, z ~ p(z | c); a row of a table is drawn from
        p(x | z), and an image is the mean of it.
        """
        check_is_fitted(self, "run_")
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {n_samples}")
        prior = self.run_.model.prior
        if category is not None and not 0 <= category < prior.categories:
            raise ValueError(f"category must be from 0 to {prior.categories - 1}, not {category}")
        with evaluating(torch.device("cpu"), seed=self._seed_of_draws):
            c = prior.category().sample((n_samples,))
            if category is not None:
                c = torch.full_like(c, category)
            given_z = self.run_.model.decoder(prior.component(c).sample())
            x = given_z.sample() if self.run_.facts.columns else mean_of(given_z)
            return self._shown(x), c.numpy()

    def save(self, folder: str | Path) -> None:
        """Write the run: a folder for :meth:`load`, ``pyro_infocat.load`` and every command.

        :raises ValueError: where the folder holds a run already.
        """
        check_is_fitted(self, "run_")
        place = Path(folder)
        if (place / CONFIG).exists():
            raise ValueError(f"'{place}' holds a run already; choose another folder")
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (place / name).write_bytes(content)

    @classmethod
    def load(cls, folder: str | Path, trust: str | list[str] = ()) -> "InfoCatVAE":  # type: ignore[assignment]
        """A fitted estimator from the folder of any run.

        :param trust: see :func:`pyro_infocat.load`.
        :raises ValueError: where it cannot be loaded.
        """
        with _one_line():
            run = load(folder, trust=trust)
        settings = run.settings
        made = cls(
            run.guide.categories,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            random_state=settings.seed,
        )
        made._files = {
            name: (run.folder / name).read_bytes() for name in KEPT if (run.folder / name).exists()
        }
        made._seed_of_draws, made.history_ = settings.seed, run.history
        if not run.facts.columns:
            made.n_features_in_ = run.facts.shape[0]
        # Of an array's columns these are the names.
        made._frame = not all(re.fullmatch(r"x\d+", one.name) for one in run.facts.columns)
        if made._frame:
            made.feature_names_in_ = np.array([one.name for one in run.facts.columns], object)
        if settings.known_labels:
            names = run.facts.classes
            whole = all(re.fullmatch(r"0|-?[1-9]\d*", name) for name in names)
            made.classes_ = np.array([int(name) for name in names] if whole else names)
        made._take(run)
        return made

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    @property
    def _n_features_out(self) -> int:
        """D, for the names that ``get_feature_names_out`` gives."""
        return self.run_.model.prior.latent

    def _checked(self, X: Any, reset: bool) -> Any:  # noqa: N803
        """X as scikit-learn's estimators take it; a DataFrame keeps its columns' kinds."""
        if is_frame(X):
            # A run that was loaded finds its columns by name, and does not know of others.
            if reset or hasattr(self, "n_features_in_"):
                _check_feature_names(self, X, reset=reset)
                _check_n_features(self, X, reset=reset)
            if reset:
                self._frame = True
            return X
        if reset:
            self._frame = False
        return validate_data(
            self, X, reset=reset, allow_nd=True, ensure_all_finite="allow-nan", ensure_min_samples=1
        )

    def _seed(self) -> int:
        """The run's seed."""
        given = self.random_state
        if isinstance(given, int | np.integer):
            seed = int(given)
        else:
            seed = int(check_random_state(given).randint(2**31 - 1))
        self._seed_of_draws = seed
        return seed

    def _take(self, run: Run) -> None:
        # In float64 an example's prediction does not depend on those beside it.
        model, guide = run.model.cpu().double(), run.guide.cpu().double()
        self.run_ = replace(run, model=model, guide=guide)
        self.n_categories_ = run.guide.categories

    def _split(self, X: Any) -> Split:  # noqa: N803
        check_is_fitted(self, "run_")
        X = self._checked(X, reset=False)  # noqa: N806
        with _one_line():
            return Split.of_real_numbers(self.run_.examples(X))

    def _assigned(self, X: Any) -> Iterator[Any]:  # noqa: N803
        split = self._split(X)
        return assign(self.run_, split, 0, self._seed_of_draws)

    def _shown(self, x: Tensor) -> Any:
        facts = self.run_.facts
        if facts.columns:
            frame = self.run_.inverse(x)
            return frame if self._frame else frame.to_numpy()
        return x.reshape(-1, *facts.shape).numpy()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """What a run says, or nothing."""
        if self.verbose:
            yield
            return
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def _known_labels(y: Any, examples: int, categories: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The category of each example (N,), -1 where it is not known, and the label of each category.

    None where none is unknown: what scikit-learn hands to every estimator is not looked at then.

    :raises ValueError: for labels of another shape, or more classes than categories.
    """
    labels = np.empty(0) if y is None else np.asarray(y)
    unknown = np.array([_is_unknown(one) for one in labels.reshape(-1).tolist()], bool)
    if not unknown.any() or unknown.all():
        return None, labels
    if labels.shape != (examples,):
        raise ValueError(f"y has shape {labels.shape}; give ({examples},)")
    # Among words None makes them objects, and among whole numbers NaN makes them floats.
    found = np.array(labels[~unknown].tolist())
    if found.dtype.kind == "f" and np.isfinite(found).all() and (found == found.round()).all():
        found = found.astype(np.int64)
    if found.dtype.kind not in "iuU":
        raise ValueError(f"y holds {found.dtype}; give whole numbers or words, and -1 for no label")
    classes = np.unique(found)
    if found.dtype.kind != "U" and classes[0] >= 0 and classes[-1] < categories:
        classes = np.arange(classes[-1] + 1)
    if len(classes) > categories:
        raise ValueError(
            f"y has labels of {len(classes)} classes; n_categories={categories} is fewer"
        )
    codes = np.full(examples, -1)
    codes[~unknown] = np.searchsorted(classes, found)
    return codes, classes


def _is_unknown(label: Any) -> bool:
    """Whether it is -1, NaN, None or an empty word."""
    # pandas' NA says of no comparison whether it is true.
    return label is None or type(label).__name__ == "NAType" or label != label or label in MISSING


MISSING = (-1, "", "-1")
"""What stands for a label that is not known, beside what is none."""


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """The error that scikit-learn's users expect."""
    try:
        yield
    except UserError as error:
        raise ValueError(error.told(str)) from None
