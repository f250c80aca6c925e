"""A preset with one thing swapped by flags, as a user would: a row each, and a table of them.

    python -m benchmarks.studies parts      each prior, guide, network and likelihood, on the digits
    python -m benchmarks.studies decoded    all categories decoded, or a few and one drawn, on MNIST
    python -m benchmarks.studies ablation   what each term and each of the prior's numbers is worth
    python -m benchmarks.studies rivals     other people's objectives with this project's parts

with ``--jobs 2 --seeds 0 1 2``. Finished runs are kept, so the same command resumes.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_infocat import benchmark
from pyro_infocat.settings import ROOT


@dataclass(frozen=True)
class Study:
    """A table.

    :ivar preset: what every row begins with, in ``runs``.
    :ivar document: holds the table.
    :ivar rows: the flags that make a row of the preset, by its name.
    :ivar always: flags of every row.
    :ivar results: a file a row.
    """

    preset: str
    document: str
    rows: Mapping[str, Sequence[str]]
    results: Path
    always: Sequence[str] = ()


# One start and a few epochs. KL(q(z|x,c) || p(z|c)) weighs 2 for the first half, as in the preset.
BRIEF = ("--starts", "1", "--epochs", "4", "--nll_samples", "10")
BRIEF += ("--schedules", "{kl_z: [[0, 2], [1, 2], [3, 1]]}")
LONGER = ("--starts", "1", "--epochs", "6", "--nll_samples", "10", "--decoded", "1")
LONGER += ("--schedules", "{kl_z: [[0, 2], [3, 2], [5, 1]]}")
REAL = ("--view", "pyro_infocat.views.Affine", "--view.stretch", "0.15")
REAL += ("--weights", "{marginal_entropy: 20, consistency: 20, conditional_entropy: 2}")

STUDIES = {
    "parts": Study(
        preset="digits.yaml",
        document="docs/parts.md",
        results=benchmark.RESULTS / "parts",
        rows={
            "digits preset": [],
            "prior: Simplex": ["--prior", "models.priors.Simplex"],
            "prior: Gaussian (a plain VAE)": ["--prior", "models.priors.Gaussian"],
            "prior: Mixture": ["--prior", "models.priors.Mixture"],
            "prior: Vamp": ["--prior", "models.priors.Vamp"],
            "prior: learned p(c)": ["--prior.learn_weights", "true"],
            "encoder: Convolutional": ["--encoder", "guides.encoders.Convolutional"],
            "encoder: Recurrent": ["--encoder", "guides.encoders.Recurrent"],
            "decoder: Convolutional": ["--decoder", "models.decoders.Convolutional"],
            "decoder: Recurrent": ["--decoder", "models.decoders.Recurrent"],
            "guide: Bayes": ["--guide", "guides.Bayes", "--kl", "sampled"],
            "guide: Bayes, prior: Mixture (VaDE)": [
                *("--guide", "guides.Bayes", "--kl", "sampled"),
                *("--prior", "models.priors.Mixture"),
            ],
            "guide: SoftCode": ["--guide", "guides.SoftCode"],
            "guide: Gumbel": [
                *("--guide", "guides.Gumbel"),
                *("--schedules", "{temperature: [[0, 1], [80, 0.3]]}"),
            ],
            "KL: sampled": ["--kl", "sampled"],
            "5 particles": ["--particles", "5"],
            "2 likeliest categories decoded and one drawn": ["--decoded", "2"],
            "likelihood: Gaussian, learned scale": ["--likelihood.learn_scale", "true"],
            "likelihood: Bernoulli": ["--likelihood", "models.likelihoods.Bernoulli"],
            "likelihood: ContinuousBernoulli": [
                *("--likelihood", "models.likelihoods.ContinuousBernoulli")
            ],
            "likelihood: DiscretisedLogistic": [
                *("--likelihood", "models.likelihoods.DiscretisedLogistic")
            ],
            "authors' code": [
                *("--guide", "guides.SoftCode", "--guide.quirks", "true"),
                *("--likelihood", "models.likelihoods.GreyBernoulli"),
                *("--information_weight", "0.78", "--weights", "{}", "--prior.scale", "2"),
            ],
        },
    ),
    "decoded": Study(
        preset="mnist-paper.yaml",
        document="docs/cost.md",
        results=benchmark.RESULTS / "decoded",
        rows={
            "1 likeliest and one drawn": ["--decoded", "1"],
            "2 likeliest and one drawn": ["--decoded", "2"],
            "3 likeliest and one drawn": ["--decoded", "3"],
            "all ten categories": ["--decoded", "0"],
        },
        always=BRIEF,
    ),
    "ablation": Study(
        preset="mnist-paper.yaml",
        document="docs/results.md",
        results=benchmark.RESULTS / "ablation",
        rows={
            "InfoCatVAE": [],
            "CatVAE": ["--information_weight", "0"],
            "InfoCatVAE, real data": REAL,
            "CatVAE, real data": [*REAL, "--information_weight", "0"],
            "InfoCatVAE, lambda 1": ["--prior.scale", "1"],
            "InfoCatVAE, lambda 2": ["--prior.scale", "2"],
            "InfoCatVAE, lambda 3": ["--prior.scale", "3"],
            "InfoCatVAE, delta 1": ["--prior.delta", "1"],
            "InfoCatVAE, delta 4": ["--prior.delta", "4"],
            "InfoCatVAE, soft code": ["--guide", "guides.SoftCode"],
        },
        always=LONGER,
    ),
    "rivals": Study(
        preset="mnist-paper.yaml",
        document="README.md",
        results=benchmark.RESULTS,
        rows={
            # Shu 2016; Jiang et al. 2017. Fully connected, no information, modes that are learned.
            "GMVAE on MNIST": [],
            "VaDE on MNIST": ["--guide", "guides.Bayes", "--kl", "sampled"],
        },
        always=(
            *("--starts", "1", "--epochs", "20", "--schedules", "{}"),
            *("--information_weight", "0", "--prior", "models.priors.Mixture"),
            *("--encoder", "guides.encoders.MLP", "--encoder.hidden", "[500, 500]"),
            *("--decoder", "models.decoders.MLP", "--decoder.hidden", "[500, 500]"),
        ),
    ),
}


def document(name: str) -> tuple[Path, str]:
    """The document that holds a study's table, and its text with the table as the results are."""
    study = STUDIES[name]
    path = ROOT / study.document
    mark = "results" if study.results == benchmark.RESULTS else name
    return path, benchmark.with_table(path.read_text(), benchmark.table(study.results), mark)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--out", type=Path, default=Path("runs/studies"))
    parser.add_argument("--only", nargs="+", help="names of rows")
    options = parser.parse_args()
    name = options.study
    study = STUDIES[name]
    for row in options.only or study.rows:
        command = [str(ROOT / "runs" / study.preset), "--name", row, "--seeds", *options.seeds]
        command += ["--jobs", str(options.jobs), "--out", str(options.out / name)]
        command += ["--results", str(study.results), *study.always, *study.rows[row]]
        benchmark.main(command)
    path, text = document(name)
    path.write_text(text)


if __name__ == "__main__":
    main()
