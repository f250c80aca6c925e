"""A preset with one thing swapped by flags, as a user would: a row each, and a table of them.

    python -m benchmarks.studies parts      priors, guides, networks and likelihoods, on the digits
    python -m benchmarks.studies decoded    all categories decoded, or a few and one drawn, on MNIST
    python -m benchmarks.studies ablation   what information, guard and the prior's size are worth
    python -m benchmarks.studies rivals     other people's objectives with this project's parts

``--seeds 0 1 2`` says which, ``--jobs 2`` how many at once. Finished runs are kept, so the same
command resumes. The document's table is written once every row that was asked for is there.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_infocat import benchmark
from pyro_infocat.errors import UserError
from pyro_infocat.files import replace
from pyro_infocat.parser import Parser
from pyro_infocat.settings import ROOT


@dataclass(frozen=True)
class Study:
    """A table.

    :ivar preset: what every row begins with.
    :ivar document: holds the table.
    :ivar rows: the flags that make a row of the preset, by its name.
    :ivar seeds: those of the table, unless others are asked for.
    :ivar results: a file a row.
    :ivar always: flags of every row.
    """

    preset: Path
    document: Path
    rows: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    results: Path
    always: Sequence[str] = ()


RUNS = ROOT / "runs"

# One start and four epochs. KL(q(z|x,c) || p(z|c)) weighs 2 for the first half, as in the preset.
BRIEF = ("--starts", "1", "--epochs", "4", "--nll_samples", "10")
BRIEF += ("--schedules", "{kl_z: [[0, 2], [1, 2], [3, 1]]}")

RATE = "learning_rate: [[0, 0.002], [4, 0.002], [7, 0.0002]]"
LATE = ", ".join(f"{term}: [[1, 0], [2, 1]]" for term in ("reconstruction", "kl_z", "kl_c"))
NO_INFORMATION = ("--information_weight", "0")
# Without the terms on real data there is nothing for q(c|x) to learn alone.
NO_REAL_DATA = ("--weights", "{marginal_entropy: 20}", "--schedules", f"{{{RATE}}}")

STUDIES = {
    "parts": Study(
        preset=RUNS / "digits.yaml",
        document=ROOT / "docs" / "parts.md",
        seeds=range(2),
        results=benchmark.RESULTS / "parts",
        rows={
            "digits preset": [],
            # Its modes lie as far apart as the preset's.
            "prior: Simplex": ["--prior", "models.priors.Simplex", "--prior.scale", "4.025"],
            "prior: Gaussian (a plain VAE)": ["--prior", "models.priors.Gaussian"],
            "prior: Mixture": ["--prior", "models.priors.Mixture", "--prior.latent", "20"],
            "prior: Vamp": ["--prior", "models.priors.Vamp"],
            "prior: learned p(c)": ["--prior.learn_weights", "true"],
            "encoder: Convolutional": ["--encoder", "guides.encoders.Convolutional"],
            "encoder: Recurrent": ["--encoder", "guides.encoders.Recurrent"],
            "decoder: Convolutional": ["--decoder", "models.decoders.Convolutional"],
            "decoder: Recurrent": ["--decoder", "models.decoders.Recurrent"],
            "guide: Bayes": ["--guide", "guides.Bayes", "--kl", "sampled"],
            "guide: Bayes, prior: Mixture (VaDE)": [
                *("--guide", "guides.Bayes", "--kl", "sampled"),
                *("--prior", "models.priors.Mixture", "--prior.latent", "20"),
                *("--prior.learn_weights", "true"),
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
                "--likelihood",
                "models.likelihoods.ContinuousBernoulli",
            ],
            "likelihood: DiscretisedLogistic": [
                "--likelihood",
                "models.likelihoods.DiscretisedLogistic",
            ],
            "authors' code": [
                *("--guide", "guides.SoftCode", "--guide.quirks", "true"),
                *("--likelihood", "models.likelihoods.GreyBernoulli"),
                *("--information_weight", "0.78", "--weights", "{}", "--prior.scale", "2"),
            ],
        },
    ),
    "decoded": Study(
        preset=RUNS / "mnist-paper.yaml",
        document=ROOT / "docs" / "cost.md",
        seeds=range(1),
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
        preset=ROOT / "benchmarks" / "ablation.yaml",
        document=ROOT / "docs" / "results.md",
        results=benchmark.RESULTS / "ablation",
        seeds=range(5),
        rows={
            "InfoCatVAE": [],
            "InfoCatVAE, no real data": NO_REAL_DATA,
            "CatVAE": [*NO_INFORMATION, "--schedules", f"{{{RATE}, {LATE}}}"],
            "CatVAE, no real data": [*NO_INFORMATION, *NO_REAL_DATA],
            "InfoCatVAE, no guard": ["--weights", "{consistency: 100, conditional_entropy: 10}"],
            "InfoCatVAE, lambda 1": ["--prior.scale", "1"],
            "InfoCatVAE, lambda 2": ["--prior.scale", "2"],
            "InfoCatVAE, lambda 3": ["--prior.scale", "3"],
            "InfoCatVAE, delta 1": ["--prior.delta", "1"],
            "InfoCatVAE, delta 4": ["--prior.delta", "4"],
            "InfoCatVAE, soft code": ["--guide", "guides.SoftCode"],
        },
    ),
    "rivals": Study(
        preset=RUNS / "mnist-paper.yaml",
        document=benchmark.README,
        seeds=range(3),
        results=benchmark.RESULTS,
        rows={
            # Shu 2016; Jiang et al. 2017, from scratch: without the pretraining of their code.
            "GMVAE on MNIST": [],
            "VaDE on MNIST": [
                *("--guide", "guides.Bayes", "--kl", "sampled"),
                *("--prior.learn_weights", "true"),
            ],
        },
        always=(
            *("--starts", "1", "--epochs", "20", "--schedules", "{}"),
            *("--weights", "{}", "--information_weight", "0", "--decoded", "0"),
            *("--prior", "models.priors.Mixture", "--prior.latent", "10"),
            *("--encoder", "guides.encoders.MLP", "--encoder.hidden", "[500, 500]"),
            *("--encoder.norm", "false"),
            *("--decoder", "models.decoders.MLP", "--decoder.hidden", "[500, 500]"),
        ),
    ),
}


def document(name: str) -> str:
    """The text of a study's document with the table as the results are."""
    study = STUDIES[name]
    mark = "results" if study.results == benchmark.RESULTS else name
    text = study.document.read_text()
    return benchmark.with_table(text, benchmark.table(study.results), mark)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return run(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What this command was told.

    :raises UserError: for anything that the user gave wrong.
    """
    description = (__doc__ or "").split("\n")[0]
    parser = Parser(prog="python -m benchmarks.studies", description=description)
    add = parser.add_argument
    add("study", choices=STUDIES)
    add("--jobs", type=int, default=2, help="runs at once")
    add("--seeds", type=int, nargs="+", help="those of the committed table where none are given")
    add("--out", type=Path, default=Path("runs/studies"), help="the runs' folders go here")
    add("--only", nargs="+", help="names of rows")
    options = parser.parse_args(argv)
    study = STUDIES[options.study]
    for row in options.only or ():
        if row not in study.rows:
            there = ", ".join(f"'{name}'" for name in study.rows)
            raise UserError(f"--only: {options.study} has no row '{row}'; there are {there}")
    return options


def run(options: argparse.Namespace) -> int:
    """Run what is not finished; returns the first exit code that is not 0."""
    study = STUDIES[options.study]
    for row in options.only or study.rows:
        seeds = map(str, options.seeds or study.seeds)
        command = [str(study.preset), "--name", row, "--seeds", *seeds]
        command += ["--jobs", str(options.jobs), "--out", str(options.out / options.study)]
        command += ["--results", str(study.results), *study.always, *study.rows[row]]
        code = benchmark.main(command)
        if code:
            return code
    replace(study.document, document(options.study).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
