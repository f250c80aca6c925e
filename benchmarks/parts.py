"""Each prior, guide, encoder, decoder, likelihood and estimator on real data: a row each.

    python -m benchmarks.parts [--jobs 2] [--seeds 0 1 2]

Every row is the digits preset with one part swapped by flags, as a user would. Finished rows are
kept, so the same command resumes. docs/parts.md holds the table.
"""

import argparse
from pathlib import Path

from pyro_infocat import benchmark
from pyro_infocat.settings import ROOT

PRESET = ROOT / "runs" / "digits.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "parts"
DOCUMENT = ROOT / "docs" / "parts.md"

ROWS = {
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
    "likelihood: ContinuousBernoulli": ["--likelihood", "models.likelihoods.ContinuousBernoulli"],
    "likelihood: DiscretisedLogistic": ["--likelihood", "models.likelihoods.DiscretisedLogistic"],
    "authors' code": [
        *("--guide", "guides.SoftCode", "--guide.quirks", "true"),
        *("--likelihood", "models.likelihoods.GreyBernoulli"),
        *("--information_weight", "0.78", "--weights", "{}", "--prior.scale", "2"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    options = parser.parse_args()
    for name, flags in ROWS.items():
        command = [str(PRESET), "--name", name, "--seeds", *options.seeds]
        command += ["--jobs", str(options.jobs), "--out", str(options.out)]
        benchmark.main([*command, "--results", str(RESULTS), *flags])
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(benchmark.with_table(text, benchmark.table(RESULTS)))


if __name__ == "__main__":
    main()
