"""The command line and the presets: jsonargparse behind errors of one line."""

import argparse
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_infocat.errors import UserError, reason
from pyro_infocat.parts import BASES, COMPONENTS, DEFAULTS, GIVEN_TO, HELP, named
from pyro_infocat.settings import (
    ARCHIVE,
    DATA_SETS,
    KL,
    MOST_SEED,
    OWN_PRESET,
    ROOT,
    Anneal,
    Component,
    Observe,
    Precision,
    Settings,
    no_data_set,
)
from pyro_infocat.wording import explain, given_as, typed, users_line, where

LEAST = {
    "epochs": 1,
    "batch_size": 1,
    "information_weight": 0,
    "particles": 1,
    "decoded": 0,
    "starts": 1,
    "start_epochs": 1,
    "patience": 0,
    "nll_samples": 1,
    "seed": 0,
}
"""The least value of each number that has one."""


def parse(argv: Sequence[str] | None = None) -> tuple[Settings, Path, bool]:
    """The settings, the output folder and whether to resume.

    :raises UserError: for anything that the user gave wrong.
    """
    argv = _config_first(sys.argv[1:] if argv is None else argv)
    config, data = _peek(argv)
    _check_plain(argv, config)
    preset = Path(config) if config else _preset(data)
    parser = build_parser(None if config else preset)
    try:
        with warnings.catch_warnings():
            # Arguments of a class that another replaces are dropped, as they should be.
            warnings.simplefilter("ignore")
            namespace = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        said = explain(str(error), config, argv)
        raise UserError(said + users_line(error)) from error
    except Exception as error:
        raise UserError(
            f"a class that was asked for cannot be imported: {where(error)}; mend its file"
        ) from error
    settings = _settings(namespace, config, argv)
    name = preset.stem if config else Path(settings.data).stem
    out = namespace.out or f"runs/{name}/seed{settings.seed}"
    return settings, Path(out), namespace.resume


def as_given(message: str, argv: Sequence[str]) -> str:
    """An error that begins with a flag, with the file in its place that said so."""
    begins = re.match(r"--(\w+)", message)
    if begins and begins[1] in {field.name for field in fields(Settings)}:
        flag = begins[1]
        if not typed(flag, argv):
            return given_as(flag, _given(argv)[0], argv) + message.removeprefix(f"--{flag}")
    return message


def _config_first(argv: Sequence[str]) -> list[str]:
    """The command line with --config in front, so that every flag has the last word."""
    configs: list[str] = []
    others: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--config":
            configs += [word, *islice(words, 1)]
        else:
            (configs if word.startswith("--config=") else others).append(word)
    return configs + others


def build_parser(preset: Path | None, light: bool = False) -> ArgumentParser:
    """The parser, with a preset under the flags.

    :param light: describe the parts without importing their classes, and so without torch.
    """
    parser = ArgumentParser(
        prog="python -m pyro_infocat.run",
        description="Train InfoCatVAE, evaluate it and draw what it learned.",
        epilog=f"Data sets: {', '.join(DATA_SETS)}. Without --config the preset of the data set "
        "is used: runs/digits.yaml, which a file of your own has too, runs/mnist.yaml or "
        "runs/fashion.yaml. The defaults above are of what neither it nor a flag says.",
        exit_on_error=False,
        allow_abbrev=False,
        default_config_files=[str(preset)] if preset else None,
    )
    add = parser.add_argument
    add("--config", action="config", help="a preset, or the config.yaml of a finished run")
    add("--data", type=str, default="digits", help="digits, mnist, fashion-mnist or an .npz file")
    add("--data_root", type=str, default="data", help="where archives are and are downloaded to")
    add(
        "--observe",
        type=Observe,
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
        type=Anneal,
        default="constant",
        help="how the learning rate falls over the epochs",
    )
    add(
        "--weights",
        type=dict[str, float],
        default={},
        help="weights of other terms of the objective by name: {consistency: 5} in the place of "
        "the preset's, --weights.consistency 5 beside them",
    )
    add(
        "--schedules",
        type=dict[str, list[list[float]]],
        default={},
        help="weights that change, as [epoch, weight] pairs joined by straight lines, such as "
        "{kl_z: [[0, 0], [10, 1]]}; so do learning_rate, temperature and moves. A preset's is "
        "scaled where --information_weight, --learning_rate or --weights.TERM says its largest",
    )
    add(
        "--kl",
        type=KL,
        default="analytic",
        help="KL(q(z|x,c) || p(z|c)) in closed form or from the samples",
    )
    add("--particles", type=int, default=1, help="draws of z for each category")
    add(
        "--decoded",
        type=int,
        default=0,
        help="decode so many likeliest categories of an example and one other drawn by chance, "
        "without bias; 0: all",
    )
    add(
        "--precision",
        type=Precision,
        default="float32",
        help="what the networks compute in while training; the bound is in float32 always",
    )
    add(
        "--starts",
        type=int,
        default=1,
        help="train so many beginnings and go on with the one of the largest objective",
    )
    add("--start_epochs", type=int, default=3, help="epochs of each beginning of --starts")
    add("--compile", type=bool, default=False, help="true: compile the networks (torch.compile)")
    add(
        "--graph",
        type=bool,
        default=True,
        help="on a GPU, record a step as a CUDA graph and replay it; false: step by step",
    )
    add(
        "--patience",
        type=int,
        default=0,
        help="stop after so many epochs without a better bound on the validation share, with what "
        "the last one learned; 0: never",
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
    add("--resume", type=bool, default=False, help="true: go on with the run in --out")
    for name in COMPONENTS:
        if light:
            text = f"{HELP[name]}; --{name}.ARGUMENT sets one of its arguments, --{name}.help CLASS"
            default = DEFAULTS[name]
            add(f"--{name}", metavar="CLASS", default=default, help=f"{text} lists them")
        else:
            parser.add_subclass_arguments(
                named(BASES[name]),
                name,
                skip=GIVEN_TO[name],
                default={"class_path": DEFAULTS[name]},
                help=HELP[name],
            )
    return parser


def _check_plain(argv: Sequence[str], config: str | None) -> None:
    """Answer --help and refuse wrong plain settings before torch is imported."""
    parser = build_parser(None, light=True)
    if {"-h", "--help"} & set(argv):
        parser.parse_args(["--help"])
    try:
        if config:
            content = yaml.safe_load(Path(config).read_text())
            # A flag has the last word: what it replaces need not be right.
            plain = {
                key: value
                for key, value in content.items()
                if key not in COMPONENTS and not typed(key, argv)
            }
            _refuse(parser.parse_object(plain).as_dict(), config, [])
        _refuse(parser.parse_args(_without_parts(argv)).as_dict(), None, argv)
    except argparse.ArgumentError as error:
        raise UserError(explain(str(error), config, argv)) from error


def _without_parts(argv: Sequence[str]) -> list[str]:
    """The command line without --config, the parts and their arguments."""
    heavy = "|".join(("config", "print_config", *COMPONENTS))
    kept, skip = [], False
    for word in argv:
        if re.match(rf"--({heavy})(\.|=|$)", word):
            skip = "=" not in word and word != "--print_config"
        elif skip and not word.startswith("--"):
            skip = False
        else:
            kept.append(word)
            skip = False
    return kept


def _peek(argv: Sequence[str]) -> tuple[str | None, str]:
    """--config and --data, which decide on the preset under the other flags."""
    try:
        config, data = _given(argv)
    except argparse.ArgumentError as error:
        raise UserError(explain(str(error), None, argv)) from error
    if config is None:
        _refuse_data(data)
    else:
        _read_yaml(Path(config))
    return config, data


def _given(argv: Sequence[str]) -> tuple[str | None, str]:
    """--config and --data as the command line has them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    first.add_argument("--data", default="digits")
    given, _ = first.parse_known_args(argv)
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
        raise UserError(f"--config: '{path}' is not YAML ({reason(error)})") from error
    if not isinstance(content, dict):
        raise UserError(
            f"--config: '{path}' must hold keys with values, as runs/digits.yaml does, "
            f"not {'nothing' if content is None else f'a {type(content).__name__}'}"
        )
    for key, value in content.items():
        # --print_config writes an empty out.
        if value is None and key != "out":
            raise UserError(f"{path}: {key} has no value; leave the key out for the default")


def _refuse_data(name: str, flag: str = "--data") -> None:
    if name.endswith(ARCHIVE):
        if not Path(name).is_file():
            raise UserError(f"{flag}: no file '{name}'; give an {ARCHIVE} of your own images")
    elif name not in DATA_SETS:
        raise UserError(no_data_set(name, flag))


def _preset(data: str) -> Path:
    """What a data set is trained with where no --config is given."""
    name = DATA_SETS[data].preset if data in DATA_SETS else OWN_PRESET
    path = ROOT / "runs" / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"--data {data}: its preset '{path}' is missing; give one by --config")
    return path


def _settings(namespace: Namespace, config: str | None, argv: Sequence[str]) -> Settings:
    values = namespace.as_dict()
    _refuse(values, config, argv)
    values["schedules"] = _scaled(values, argv)
    parts = {
        name: Component(
            values[name]["class_path"],
            {
                key: _plain(value, given_as(f"{name}.{key}", config, argv))
                for key, value in values[name].get("init_args", {}).items()
            },
        )
        for name in COMPONENTS
    }
    names = {field.name for field in fields(Settings)}
    return Settings(**({k: v for k, v in values.items() if k in names} | parts))


def _plain(value: Any, given: str) -> Any:
    """A part's argument as config.yaml holds it, so that a run and what is read back agree.

    :param given: how it was given, for the error.
    :raises UserError: for what no YAML holds.
    """
    if isinstance(value, dict) and "class_path" in value:
        raise UserError(
            f"{given}: is a class, and nothing makes one of a part's argument; let the constructor "
            "take its name and make it"
        )
    if isinstance(value, dict):
        return {key: _plain(inner, given) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, given) for inner in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UserError(
        f"{given}: config.yaml cannot hold a {type(value).__name__}; let the constructor take a "
        "number, a word, true or false, or lists or names with values of them"
    )


def _scaled(values: dict[str, Any], argv: Sequence[str]) -> dict[str, list[list[float]]]:
    """The schedules, where the command line gives a flag for what the preset schedules.

    Such a schedule keeps its form, and its largest value becomes the flag's; --anneal takes the
    place of the learning rate's.
    """
    flags = {match[1] for word in argv if (match := re.match(r"--([\w.]+)", word))}
    schedules = dict(values["schedules"])
    said = {flag: values[flag] for flag in ("learning_rate", "information_weight") if flag in flags}
    if "information_weight" in said:
        said["information_bound"] = said.pop("information_weight")
    for term, weight in values["weights"].items():
        if flags & {"weights", f"weights.{term}"}:
            said[term] = weight
    for name, most in said.items():
        if name in schedules and not flags & {"schedules", f"schedules.{name}"}:
            top = max(value for _, value in schedules[name])
            schedules[name] = [
                [epoch, most * (value / top if top > 0 else 1.0)]
                for epoch, value in schedules[name]
            ]
    if "anneal" in flags and not flags & {"schedules", "schedules.learning_rate"}:
        schedules.pop("learning_rate", None)
    return schedules


def _refuse(values: dict[str, Any], config: str | None, argv: Sequence[str]) -> None:
    """Refuse settings of the right type that no run can have.

    :param config: the preset given.
    :param argv: the command line, which tells a flag from a key of the preset.
    :raises UserError: naming the first.
    """

    def at(name: str) -> str:
        return given_as(name, config, argv)

    for name in (field.name for field in fields(Settings)):
        for key, number in _numbers(name, values[name]):
            if not math.isfinite(number):
                raise UserError(f"{at(key)} {number}: must be a finite number")
    _refuse_data(values["data"], at("data"))
    for name, least in LEAST.items():
        if not values[name] >= least:
            raise UserError(f"{at(name)} {values[name]}: must be at least {least}")
    if values["seed"] > MOST_SEED:
        raise UserError(f"{at('seed')} {values['seed']}: must be at most {MOST_SEED}")
    if not values["learning_rate"] > 0:
        raise UserError(f"{at('learning_rate')} {values['learning_rate']}: must be above 0")
    if not 0 < values["validation"] < 1:
        raise UserError(f"{at('validation')} {values['validation']}: must lie between 0 and 1")
    for name, points in values["schedules"].items():
        here = f"{at('schedules')}: {name}"
        if not points or any(len(point) != 2 for point in points):
            raise UserError(
                f"{here} is {points}; give [epoch, weight] pairs, such as [[0, 0], [10, 1]]"
            )
        if any(before >= after for (before, _), (after, _) in pairwise(points)):
            raise UserError(f"{here} is {points}; its epochs must rise, as in [[0, 0], [10, 1]]")
        if name == "learning_rate" and min(rate for _, rate in points) <= 0:
            raise UserError(f"{here} is {points}; every value must be above 0")


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number with a point, however deep a setting holds it, by the flag that sets it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(key if name == "init_args" else f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(key, inner)
    elif isinstance(value, float):
        yield key, value
