"""A preset with one thing changed by flags, as a user would: a row each, and a table of them.

    python -m benchmarks.studies parts      priors, guides, networks and likelihoods, on the digits
    python -m benchmarks.studies decoded    all categories decoded, or a few and one drawn, on MNIST
    python -m benchmarks.studies ablation   what information, guard and the prior's size are worth
    python -m benchmarks.studies rivals     other people's objectives with this project's parts

``--seeds 0 1 2`` says which, ``--jobs 2`` how many at once. Finished runs are kept, so the same
command resumes. The document's table is written once every row that was asked for is there.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.documents import README, write
from pyro_infocat import benchmark
from pyro_infocat.cli import command_line
from pyro_infocat.errors import UserError
from pyro_infocat.places import ROOT
from pyro_infocat.settings import MOST_SEED, setting

MODULE = "benchmarks.studies"


@dataclass(frozen=True)
class Study:
    """A table.

    :ivar preset: what every row begins with.
    :ivar mark: the name of the table's place in the documents.
    :ivar rows: the flags that make a row of the preset, by its name.
    :ivar seeds: those of the table, unless others are asked for.
    :ivar results: a file a row.
    :ivar always: flags of every row.
    """

    preset: Path
    mark: str
    rows: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    results: Path
    always: Sequence[str] = ()

    def flags(self, row: str) -> list[str]:
        """What is changed of the preset in a row."""
        return [*self.always, *self.rows[row]]

    def table(self, document: Path) -> str:
        """The committed results for a document, in the README their short form.

        A row is marked where its preset or its flags have changed since.
        """
        current = {row: benchmark.recipe(self.preset, self.flags(row)) for row in self.rows}
        short = document == README
        return (benchmark.summary if short else benchmark.table)(self.results, current)


RUNS = ROOT / "runs"

# One start and four epochs; KL(q(z|x,c) || p(z|c)) has weight 2 at first, as in the preset.
BRIEF = ("--starts", "1", "--epochs", "4", "--nll_samples", "10")
BRIEF += ("--schedules", "{kl_z: [[0, 2], [1, 2], [3, 1]]}")

RATE = "learning_rate: [[0, 0.002], [4, 0.002], [7, 0.0002]]"
LATE = ", ".join(f"{term}: [[1, 0], [2, 1]]" for term in ("reconstruction", "kl_z", "kl_c"))
NO_INFORMATION = ("--information_weight", "0")
# Without the terms on real data q(c|x) has nothing to learn alone, so the bound is there at once.
NO_REAL_DATA = ("--weights", "{marginal_entropy: 20}", "--schedules", f"{{{RATE}}}")

STUDIES = {
    "parts": Study(
        preset=RUNS / "digits.yaml",
        mark="parts",
        seeds=range(2),
        results=benchmark.RESULTS / "parts",
        rows={
            "digits preset": [],
            # Modes at the same distance from each other as the preset's.
            "prior: Simplex": ["--prior", "models.priors.Simplex", "--prior.scale", "5.367"],
            "prior: Gaussian (a plain VAE)": ["--prior", "models.priors.Gaussian"],
            "prior: Mixture": ["--prior", "models.priors.Mixture", "--prior.latent", "20"],
            "prior: Vamp": ["--prior", "models.priors.Vamp"],
            "prior: learned p(c)": ["--prior.learn_weights", "true"],
            "encoder: MLP": ["--encoder", "guides.encoders.MLP"],
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
        mark="decoded",
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
        mark="ablation",
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
        mark="results",
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


@dataclass(frozen=True)
class Options:
    """A preset with one thing changed by flags: a row each, and a table of them."""

    study: str = command_line.positional(f"one of {', '.join(STUDIES)}")
    jobs: int = setting(2, "runs at once", least=1, most=1024)
    seeds: list[int] | None = setting(
        None, "those of the committed table when not given", least=0, most=MOST_SEED
    )
    out: Path = setting(Path("runs/studies"), "the runs' folders go here")
    only: list[str] | None = setting(None, "names of rows; all when not given")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return run(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> Options:
    """What this command was told.

    :raises UserError: for anything that the user gave wrong.
    """
    options, _ = command_line.parse(Options, argv, MODULE)
    if options.study not in STUDIES:
        raise UserError(f"no study '{options.study}'; there are {_quoted(STUDIES)}")
    rows = STUDIES[options.study].rows
    for row in options.only or ():
        if row not in rows:
            said = f"{options.study} has no such row; there are {_quoted(rows)}"
            raise UserError(said, "only", row)
    return options


def run(options: Options) -> int:
    """Run what is not finished; returns the first exit code that is not 0."""
    study = STUDIES[options.study]
    for row in options.only or study.rows:
        seeds = map(str, options.seeds or study.seeds)
        command = [str(study.preset), "--name", row, "--seeds", *seeds]
        command += ["--jobs", str(options.jobs), "--out", str(options.out / options.study)]
        command += ["--results", str(study.results), *study.flags(row)]
        code = benchmark.main(command)
        if code:
            return code
    write(study.mark, study.table)
    return 0


def counts(results: Path) -> str:
    """How many images and samples the figures in a folder of results are of, in two sentences."""
    images: dict[str, list[str]] = defaultdict(list)
    samples: dict[str, list[str]] = defaultdict(list)
    for row in benchmark.records(results):
        # Runs of before 20,000 images were generated do not say how many there were.
        of = {run.get("generation_samples", 1000) for run in row["runs"]
              if "generation_accuracy" in run}  # fmt: skip
        by = {run["nll_samples"] for run in row["runs"] if "nll" in run}
        for found, groups in ((of, images), (by, samples)):
            if found:
                groups[" or ".join(f"{number:,}" for number in sorted(found))].append(row["name"])
    return (
        f"Generation accuracy is of {_grouped(images, 'generated images', 'of')}. "
        f"The NLL is by {_grouped(samples, 'importance samples', 'by')}."
    )


def _grouped(groups: Mapping[str, Sequence[str]], what: str, word: str) -> str:
    """The number of most rows, and the rows of each other one."""
    usual = max(groups, key=lambda number: len(groups[number]))
    others = [
        f", but {word} {number} in the rows of {', '.join(rows[:-1])}"
        f"{' and ' if rows[:-1] else ''}{rows[-1]}"
        for number, rows in groups.items()
        if number != usual
    ]
    return f"{usual} {what}{''.join(others)}"


def _quoted(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)


if __name__ == "__main__":
    sys.exit(main())
