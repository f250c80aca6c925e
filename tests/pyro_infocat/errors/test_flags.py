"""Flags of a run that are not there, or that cannot take what they are given."""

from collections.abc import Sequence

import numpy as np
import pytest

import pyro_infocat
from pyro_infocat import UserError
from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")

WORDS = {
    "flag": (["--epoch", "3"], ["no such flag: --epoch 3", "did you mean --epochs?"]),
    "stray word": (["5"], ["no such flag: 5"]),
    "an argument of a part": (["--categories", "3"], ["did you mean --prior.categories? See"]),
    "an argument of a part by another name": (
        ["--n_categories", "3"],
        ["no such flag: --n_categories 3; did you mean --prior.categories? See --help"],
    ),
    "a stray file": (["."], ["no such flag: .; did you mean --data .? See --help"]),
    "no value": (["--config"], ["--config: a value is missing"]),
    "no value before a flag": (
        ["--prior.scale", "--epochs", "1"],
        ["--prior.scale: a value is missing"],
    ),
    "two words": (["--epochs", "3", "4"], ["--epochs: takes one value, and '4' is another"]),
    "three words": (["--seed", "3", "4", "5"], ["--seed: takes one value, and '4' is another"]),
    "a word after a value": (["--epochs=3", "4"], ["--epochs: takes one value, and '4'"]),
    "a list as words": (
        ["--encoder.hidden", "16", "17"],
        ["--encoder.hidden: takes one value, and '17' is another", "a list is one, as in '[1, 2]'"],
    ),
    "two parts": (
        ["--prior", "models.priors.Simplex", "models.priors.Mixture"],
        ["--prior: takes one value, and 'models.priors.Mixture' is another"],
    ),
    "two answers": (["--resume", "true", "false"], ["--resume: takes one value, and 'false'"]),
    "within a number": (["--epochs.x", "3"], ["--epochs: has no 'x'; see --help"]),
    "within a word": (["--data.help", "3"], ["--data: has no 'help'"]),
    "within a file": (["--config.x", "3"], ["--config: has no 'x'"]),
    "within a folder": (["--out.x", "3"], ["--out: has no 'x'"]),
    "within an answer": (["--resume.x", "true"], ["--resume: has no 'x'"]),
    "within a weight": (["--weights.kl_z.x", "3"], ["--weights", "'x': 3"]),
    "point at the end": (["--epochs.", "3"], ["no such flag: --epochs. 3", "did you mean"]),
    "two points": (["--prior..scale", "3"], ["no such flag: --prior..scale 3"]),
    "no out": (["--out", ""], ["--out: is empty; give a folder, or leave it out"]),
    "no out after =": (["--out="], ["--out: is empty; give a folder, or leave it out"]),
    "no config": (["--config", ""], ["--config: is empty; give a file, or leave it out"]),
    "line break": (["--data", "a\nb"], [r"--data: no data set 'a\nb'"]),
    "escape sequence": (["--device", "\x1b[31m"], [r"--device: no device '\x1b[31m'"]),
}

VALUES = {
    "data set": (["--data", "cifar"], ["--data", "'cifar'", "digits, mnist, fashion-mnist"]),
    "config that is not there": (
        ["--config", "none.yaml"],
        ["--config", "'none.yaml'", "No such file", "runs/digits.yaml"],
    ),
    "config of too long a name": (["--config", "a" * 300], ["--config", "File name too long"]),
    "config that is a folder": (["--config", "."], ["--config", "'.'", "Is a directory"]),
    "epochs": (["--epochs", "0"], ["--epochs 0", "at least 1"]),
    "epochs in words": (
        ["--epochs", "many"],
        ["--epochs: expected a whole number or 'auto', not 'many'"],
    ),
    "no epochs": (["--epochs="], ["--epochs: expected a whole number or 'auto', not ''"]),
    "half an epoch": (
        ["--epochs", "1.5"],
        ["--epochs: expected a whole number or 'auto', not '1.5'"],
    ),
    "an answer for epochs": (
        ["--epochs", "true"],
        ["--epochs: expected a whole number or 'auto', not"],
    ),
    "batch size": (["--batch_size", "-3"], ["--batch_size -3", "at least 1"]),
    "large batch": (["--batch_size", "2147483648"], ["2147483648", "at most 2147483647"]),
    "particles": (["--particles", "0"], ["--particles 0", "at least 1"]),
    "many particles": (["--particles", "10001"], ["--particles 10001", "at most 10000"]),
    "decoded": (["--decoded", "-1"], ["--decoded -1", "at least 0"]),
    "nll samples": (["--nll_samples", "0"], ["--nll_samples 0", "at least 1"]),
    "many samples": (["--nll_samples", "1000001"], ["--nll_samples 1000001", "at most 1000000"]),
    "patience": (["--patience", "-1"], ["--patience -1", "at least 0"]),
    "starts": (["--starts", "0"], ["--starts 0", "at least 1"]),
    "many starts": (["--starts", "10001"], ["--starts 10001", "at most 10000"]),
    "start epochs": (["--start_epochs", "0"], ["--start_epochs 0", "at least 1"]),
    "precision": (["--precision", "half"], ["--precision", "'half'", "float32", "bfloat16"]),
    "graph": (["--graph", "maybe"], ["--graph", "'maybe'", "true or false"]),
    "compile": (["--compile", "maybe"], ["--compile", "'maybe'", "true or false"]),
    "validation": (["--validation", "1"], ["--validation 1", "must be below 1"]),
    "no validation": (["--validation", "0"], ["--validation 0", "must be above 0"]),
    "gamma": (["--information_weight", "-1"], ["--information_weight -1", "at least 0"]),
    "gamma nan": (["--information_weight", ".nan"], ["--information_weight nan", "finite"]),
    "gamma inf": (["--information_weight", ".inf"], ["--information_weight inf", "finite"]),
    "gamma in words": (
        ["--information_weight", "nan"],
        ["--information_weight: expected a number, not 'nan'"],
    ),
    "learning rate": (["--learning_rate", "0"], ["--learning_rate 0", "above 0"]),
    "learning rate inf": (["--learning_rate", ".inf"], ["--learning_rate inf", "finite"]),
    "learning rate beyond floats": (["--learning_rate", "1e400"], ["--learning_rate inf"]),
    "negative seed": (["--seed", "-1"], ["--seed -1", "at least 0"]),
    "large seed": (["--seed", "4294967296"], ["--seed 4294967296", "at most 4294967295"]),
    "observe": (["--observe", "dark"], ["--observe", "'auto', 'binary', 'grey'", "'dark'"]),
    "resume": (["--resume", "perhaps"], ["--resume: expected true or false, not 'perhaps'"]),
    "print_config": (["--print_config", "5"], ["--print_config: expected true or false, not '5'"]),
    "device": (["--device", "gpu"], ["--device", "'gpu'", "auto, cpu, cuda, cuda:N or mps"]),
    "weights": (["--weights", "3"], ["--weights: expected names with values", "'3'"]),
    "grey Bernoulli": (
        ["--observe", "grey", "--likelihood", "models.likelihoods.Bernoulli"],
        ["--observe grey", "models.likelihoods.Bernoulli", "ContinuousBernoulli"],
    ),
    "Bayes with an analytic KL": (
        ["--guide", "guides.Bayes"],
        ["--guide guides.Bayes", "analytic KL", "use --kl sampled"],
    ),
    "batch normalisation of one": (
        ["--batch_size", "1", "--encoder.norm", "true"],
        ["--batch_size 1: must be at least 2; batch normalisation needs 2 examples in each"],
    ),
}


@pytest.mark.parametrize(("flags", "said"), WORDS.values(), ids=WORDS)
def test_words_that_are_no_flags_with_values(
    flags: list[str], said: list[str], refuse: Refuse
) -> None:
    error = refuse(*flags)
    for part in said:
        assert part in error


@pytest.mark.parametrize(("flags", "said"), VALUES.values(), ids=VALUES)
def test_a_wrong_value(flags: list[str], said: list[str], refuse: Refuse) -> None:
    error = refuse(*flags)
    for part in said:
        assert part in error


@pytest.mark.parametrize("flags", [["--epochs", "9" * 5000], ["--data", "x" * 5000]])
def test_a_long_word_is_not_repeated_as_a_whole(flags: Sequence[str], refuse: Refuse) -> None:
    error = refuse(*flags)
    assert error.startswith(f"{flags[0]}: ")
    assert " ... " in error
    assert len(error) < 2100


def test_the_information_weight_has_one_place(refuse: Refuse) -> None:
    message = refuse("--weights", "{information_bound: 3}")
    assert message == "--weights: information_bound has a flag of its own, --information_weight"


def test_a_share_that_leaves_nothing_takes_no_folder(refuse: Refuse) -> None:
    np.savez("three.npz", x_train=np.eye(4).reshape(4, 1, 4))
    flags = ["--data", "three.npz", "--patience", "1", "--validation"]
    assert refuse(*flags, "0.9") == (
        "--validation 0.9: leaves 0 examples to train on; at least 2 are needed, 2 in each process"
    )


@pytest.mark.parametrize("name", ["epochs", "start_epochs"])
def test_no_run_has_epochs_without_end(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} 1000001: must be at most 1000000"):
        pyro_infocat.check_parts("digits", **{name: 10**6 + 1})


def test_more_epochs_than_there_is_time_for_are_not_counted_through() -> None:
    parts = pyro_infocat.check_parts("digits", epochs=10**6, schedules={"kl_z": [[0, 1], [5, 2]]})
    assert parts.bound.weights["kl_z"] == 1
