"""The command line and the presets: jsonargparse behind errors of one line."""

import argparse
import math
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_infocat.errors import UserError
from pyro_infocat.settings import COMPONENTS, DATA_SETS, ROOT, Component, Settings

DEFAULTS = {
    "prior": "models.priors.Orthogonal",
    "likelihood": "models.likelihoods.Bernoulli",
    "decoder": "models.decoders.MLP",
    "encoder": "guides.encoders.MLP",
    "guide": "guides.enumerated.Enumerated",
    "view": "pyro_infocat.views.Same",
}

GIVEN = {"categories", "latent", "features", "shape", "levels", "prior", "likelihood", "encoder"}
"""Constructor arguments that the run supplies from the data and from the other parts."""

LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "information_weight": 0,
    "particles": 1,
    "patience": 0,
    "nll_samples": 1,
    "seed": 0,
}
"""The least value of each number that has one."""

WORDS = {
    "<class 'float'>": "a number",
    "<class 'int'>": "a whole number",
    "<class 'bool'>": "true or false",
    "<class 'collections.abc.Sequence'>": "a list such as [400, 400]",
    "typing.Literal": "one of ",
}
"""What jsonargparse calls a type, and what a person does."""

HELP = {
    "prior": "p(c) and p(z|c)",
    "likelihood": "p(x | the decoder's output)",
    "decoder": "the network from z to x",
    "encoder": "the guide's network from x to hidden features",
    "guide": "q(c|x) and q(z|x,c)",
    "view": "a change of an example that keeps its category, for the weight of consistency",
}


def parse(argv: Sequence[str] | None = None) -> tuple[Settings, Path, bool]:
    """The settings, the output folder and whether to resume.

    :raises UserError: for anything that the user gave wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    config, data = _peek(argv)
    preset = Path(config) if config else ROOT / "runs" / f"{DATA_SETS[data].preset}.yaml"
    parser = build_parser(None if config else preset)
    try:
        with warnings.catch_warnings():
            # Arguments of a class that another replaces are dropped, as they should be.
            warnings.simplefilter("ignore")
            namespace = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(explain(str(error), config)) from error
    settings = _settings(namespace)
    out = namespace.out or f"runs/{preset.stem if config else settings.data}/seed{settings.seed}"
    return settings, Path(out), namespace.resume


def build_parser(preset: Path | None) -> ArgumentParser:
    """The parser, with a preset under the flags."""
    from guides.encoders import Encoder
    from guides.guide import Guide
    from models.decoders import Decoder
    from models.likelihoods import Likelihood
    from models.priors import Prior
    from pyro_infocat.views import View

    bases = {
        "prior": Prior,
        "likelihood": Likelihood,
        "decoder": Decoder,
        "encoder": Encoder,
        "guide": Guide,
        "view": View,
    }
    parser = ArgumentParser(
        prog="python -m pyro_infocat.run",
        description="Train InfoCatVAE, evaluate it and draw what it learned.",
        epilog=f"Data sets: {', '.join(DATA_SETS)}. Without --config the preset of the data set "
        "is used: runs/digits.yaml, runs/mnist.yaml or runs/fashion.yaml.",
        exit_on_error=False,
        allow_abbrev=False,
        default_config_files=[str(preset)] if preset and preset.exists() else None,
    )
    add = parser.add_argument
    add("--config", action="config", help="a preset, or the config.yaml of a finished run")
    add("--data", type=str, default="digits", help="digits, mnist or fashion-mnist")
    add("--data_root", type=str, default="data", help="where archives are and are downloaded to")
    add(
        "--observe",
        type=Literal["auto", "binary", "grey"],
        default="auto",
        help="what the likelihood sees: binarised pixels, grey levels, or whichever fits it",
    )
    add("--epochs", type=int, default=100, help="passes over the training split")
    add("--batch_size", type=int, default=128, help="examples in a step")
    add("--learning_rate", type=float, default=1e-3, help="of Adam")
    add(
        "--information_weight",
        type=float,
        default=1.0,
        help="gamma, weight of the information bound for each example; 0 is CatVAE",
    )
    add(
        "--anneal",
        type=Literal["constant", "cosine"],
        default="constant",
        help="how the learning rate falls over the epochs",
    )
    add(
        "--weights",
        type=dict[str, float],
        default={},
        help="weights of other terms of the objective by name, such as {consistency: 5}",
    )
    add(
        "--schedules",
        type=dict[str, list[list[float]]],
        default={},
        help="weights that change, as [epoch, weight] pairs joined by straight lines, such as "
        "{kl_z: [[0, 0], [10, 1]]}",
    )
    add(
        "--kl",
        type=Literal["analytic", "sampled"],
        default="analytic",
        help="KL(q(z|x,c) || p(z|c)) in closed form or from the samples",
    )
    add("--particles", type=int, default=1, help="draws of z for each category")
    add(
        "--patience",
        type=int,
        default=0,
        help="stop after so many epochs without a better bound on the validation share; 0: never",
    )
    add(
        "--validation",
        type=float,
        default=0.1,
        help="share of the training split held out for --patience",
    )
    add("--nll_samples", type=int, default=200, help="importance samples for the nll")
    add("--seed", type=int, default=0, help="of every random number")
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--out", type=str | None, default=None, help="default runs/<preset or data>/seed<seed>")
    add("--resume", type=bool, default=False, help="true: continue the run in --out")
    for name in COMPONENTS:
        parser.add_subclass_arguments(
            bases[name],
            name,
            skip=GIVEN - {"categories", "latent"} if name == "prior" else GIVEN,
            default={"class_path": DEFAULTS[name]},
            help=HELP[name],
        )
    return parser


def _peek(argv: Sequence[str]) -> tuple[str | None, str]:
    """--config and --data, which decide on the preset under the other flags."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    first.add_argument("--data", default="digits")
    try:
        given, _ = first.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from error
    if given.config is not None:
        _read_yaml(Path(given.config))
    if given.config is None and given.data not in DATA_SETS:
        raise UserError(_no_data_set(given.data))
    return given.config, given.data


def _read_yaml(path: Path) -> None:
    """Refuse a config that jsonargparse would speak of without naming the file."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(
            f"--config: cannot read '{path}' ({error.strerror}); give a YAML file such as "
            "runs/digits.yaml"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: '{path}' is not YAML ({_one_line(str(error))})") from error
    if not isinstance(content, dict):
        raise UserError(
            f"--config: '{path}' must hold keys with values, as runs/digits.yaml does, "
            f"not {type(content).__name__}"
        )


def _no_data_set(name: str) -> str:
    return f"--data: no data set '{name}'; choose from {', '.join(DATA_SETS)}"


def _settings(namespace: Namespace) -> Settings:
    values = namespace.as_dict()
    parts = {
        name: Component(values[name]["class_path"], values[name].get("init_args", {}))
        for name in COMPONENTS
    }
    names = {field.name for field in fields(Settings)}
    settings = Settings(**({k: v for k, v in values.items() if k in names} | parts))
    if settings.data not in DATA_SETS:
        raise UserError(_no_data_set(settings.data))
    for name, least in LEAST.items():
        if not getattr(settings, name) >= least:
            raise UserError(f"--{name} {values[name]}: must be at least {least}")
    if not 0 < settings.learning_rate < math.inf:
        raise UserError(f"--learning_rate {settings.learning_rate}: must be above 0")
    if not 0 < settings.validation < 1:
        raise UserError(f"--validation {settings.validation}: must lie between 0 and 1")
    for name, points in settings.schedules.items():
        if not points or any(len(point) != 2 for point in points):
            raise UserError(
                f"--schedules: {name} is {points}; give [epoch, weight] pairs, such as "
                "[[0, 0], [10, 1]]"
            )
    return settings


def explain(message: str, config: str | None) -> str:
    """jsonargparse's message as one line that names the flag, the value and what would be right."""
    line = _one_line(message)
    where = f" (in {config} or on the command line)" if config else ""
    if match := re.match(r"Unrecognized arguments?: (.*)", line):
        return f"no such flag: {match[1]}; see --help"
    if match := re.match(r"Option '(.+?)' is not accepted", line):
        return f"{config or 'preset'}: no such key '{match[1]}'; see --help for those there are"
    if match := re.match(r'Parser key "(.+?)":? ?(.*)', line):
        key, rest = match[1], match[2]
        part = key.split(".")[0]
        rest = re.sub(r"- Expected a path but .*? not accessible or invalid ?-? ?", "", rest)
        rest = re.sub(r"Parser key \"(.+?)\": ", r"\1: ", rest)
        for kind, word in WORDS.items():
            rest = rest.replace(kind, word)
        rest = re.sub(r"Expected a (.*?)\. Got value: (.*)", r"expected \1, not '\2'", rest)
        if part in COMPONENTS and ("import path" in rest or "no attribute" in rest):
            rest += f"; give a class such as {DEFAULTS[part]}, or your own as my_file.MyClass"
        return f"--{key}: {rest}{where}"
    return line + where


def _one_line(text: str) -> str:
    return " ".join(text.split())
