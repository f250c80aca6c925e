"""The command ``tune``: what it searches, how it goes on, and what it refuses."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_infocat import tune
from pyro_infocat.cli import run_flags
from pyro_infocat.run import main as run_main
from pyro_infocat.settings import HISTORY, METRICS
from pyro_infocat.storage.configuration import read_file
from tests.brief import ROOT, SMALL, wait_for
from tests.runs import history, timeless

optuna = pytest.importorskip("optuna")

pytestmark = pytest.mark.usefixtures("alone")

STORAGE = "sqlite:///study.db"
COMMAND = ["digits", "--storage", STORAGE, *SMALL, "--epochs", "2"]
SPACE = ["--space", "prior.scale: [1, 10]", "guide.hidden: [8, 24]"]
PLACE = Path("runs", "tune", "digits")
# The space has the guide's size.
HIDDEN = COMMAND.index("--guide.hidden")
del COMMAND[HIDDEN : HIDDEN + 2]


def study(name: str = "digits") -> Any:
    return optuna.load_study(study_name=name, storage=STORAGE)


def states() -> list[str]:
    return [trial.state.name for trial in study().trials]


def search(space: dict[str, Any], *flags: str, by: str = "elbo") -> tune.Search:
    """The search that a command line asks for."""
    return tune.Search(run_flags.read(["--data", "digits", *flags]).resolver, by, space)


# What it trains, with real runs.


@pytest.mark.slow
def test_a_search_from_its_first_trial_to_its_preset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune.main([*COMMAND, *SPACE, "--trials", "2"]) == 0
    first = [(trial.number, trial.params, trial.value) for trial in study().trials]
    assert tune.main([*COMMAND, *SPACE, "--trials", "4"]) == 0
    trials = study().trials
    assert [(one.number, one.params, one.value) for one in trials][:2] == first
    assert states() == ["COMPLETE"] * 4
    for trial in trials:
        folder = PLACE / f"trial{trial.number}"
        rows = history(folder)
        assert trial.value == rows[-1]["validation_elbo"]
        assert trial.intermediate_values == {1: rows[0]["validation_elbo"], 2: trial.value}
        # Neither labels nor the test split are looked at.
        assert not (folder / METRICS).exists()
        assert not (folder / "figures").exists()
        config = read_file(folder / "config.yaml")
        assert config["prior"]["init_args"]["scale"] == trial.params["prior.scale"]
        assert config["guide"]["init_args"]["hidden"] == trial.params["guide.hidden"]
    best = max(trials, key=lambda trial: trial.value)
    said = capsys.readouterr().out.splitlines()
    lines = [line for line in said if line.startswith("trial ")]
    assert [int(line.split()[1].rstrip(":")) for line in lines] == [0, 1, 2, 3]
    assert lines[best.number].startswith(
        f"trial {best.number}: elbo {best.value:.2f} after epoch 2; "
        f"guide.hidden {best.params['guide.hidden']}, prior.scale "
    )
    assert said[-2].startswith(f"best: trial {best.number}, elbo {best.value:.2f}; ")
    assert said[-1] == "python -m pyro_infocat.run --config best.yaml --patience 0"

    # The file is the trial: trained again, it is the same to the last bit.
    from pyro_infocat import experiment

    run = experiment.run
    monkeypatch.setattr(experiment, "run", lambda *a, **b: run(*a, **b, measured=False))
    assert run_main(["--config", "best.yaml", "--out", "again", "--device", "cpu"]) == 0
    again, before = history("again"), history(PLACE / f"trial{best.number}")
    assert [*map(timeless, again)] == [*map(timeless, before)]


@pytest.mark.slow
def test_neither_labels_nor_the_test_split_have_a_say() -> None:
    random = np.random.default_rng(0)
    train = random.random((60, 6, 6))
    for name in ("one", "other"):
        x_test = random.random((20, 6, 6))
        y = random.integers(0, 3, 80)
        np.savez(f"{name}.npz", x_train=train, x_test=x_test, y_train=y[:60], y_test=y[60:])
        flags = ["--name", name, "--data", f"{name}.npz", "--batch_size", "30"]
        flags += ["--out", f"{name}.yaml"]
        assert tune.main([*COMMAND, *flags, "--trials", "2"]) == 0
    one, other = ([(t.params, t.value) for t in study(n).trials] for n in ("one", "other"))
    assert one == other


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    rates = "learning_rate: {choices: [0.001, 1.0e+30]}"
    assert tune.main([*COMMAND, "--space", rates, "--trials", "5"]) == 0
    rate = [json.loads(trial.params["learning_rate"]) for trial in study().trials]
    assert set(rate) == {0.001, 1e30}
    assert states() == ["COMPLETE" if one < 1 else "FAIL" for one in rate]
    lines = capsys.readouterr().out.splitlines()
    for line, one in zip(lines, rate, strict=False):
        assert one < 1 or re.search(r"failed: .*(not finite|nan|inf).*; learning_rate 1e\+30", line)


@pytest.mark.slow
def test_a_search_in_which_all_fail(capsys: pytest.CaptureFixture[str]) -> None:
    rates = "learning_rate: {choices: [1.0e+30]}"
    assert tune.main([*COMMAND, "--space", rates, "--trials", "1"]) == 1
    assert capsys.readouterr().err == (
        f"error: no trial ended well; the logs in '{PLACE}' say why\n"
    )
    assert not Path("best.yaml").exists()


def start(*flags: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "pyro_infocat.tune", *COMMAND, *SPACE, *flags],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_workers_share_the_trials_of_a_study() -> None:
    workers = [start("--trials", "6") for _ in range(2)]
    said = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    done = [re.findall(r"^trial (\d+):", out, re.MULTILINE) for out, _ in said]
    assert sorted(map(int, done[0] + done[1])) == list(range(6))
    assert states() == ["COMPLETE"] * 6
    assert len({trial.params["prior.scale"] for trial in study().trials}) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_was_stopped_goes_on(sign: signal.Signals) -> None:
    flags = ["--trials", "2", "--epochs", "60"]
    stopped = start(*flags)
    folder = PLACE / "trial0"
    wait_for(lambda: (folder / HISTORY).exists() and len(history(folder)) > 2, stopped)
    stopped.send_signal(sign)
    _, error = stopped.communicate(timeout=60)
    if sign == signal.SIGINT:
        assert stopped.returncode == 130
        assert error == "interrupted; the same command goes on\n"
    before, params = history(folder), study().trials[0].params
    assert len(before) < 60
    assert states() == ["RUNNING"]

    again = start(*flags)
    out, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    # Nothing went on in between, and nothing is trained twice: the times are the same too.
    assert history(folder)[: len(before)] == before
    assert len(history(folder)) == 60
    assert states() == ["COMPLETE"] * 2
    assert study().trials[0].params == params
    assert sorted(study().trials[0].intermediate_values) == list(range(1, 61))
    assert out.count("trial 0:") == 1


# How trials are followed, with histories that are made up.


class Trained:
    """Stands for the process of a trial: an epoch for each look, of a given gain."""

    gains: Callable[[int, int], float]
    epochs = 6
    started: list["Trained"]

    def __init__(self, target: object, args: tuple[Any, ...]) -> None:
        self.folder = Path(args[1])
        self.number = int(self.folder.name.removeprefix("trial"))
        self.rows: list[dict[str, float]] = []
        self.exitcode: int | None = None
        type(self).started.append(self)

    def start(self) -> None:
        self.folder.mkdir()

    def join(self, timeout: float | None = None) -> None:
        if timeout is None or not self.is_alive():
            return
        epoch = len(self.rows) + 1
        self.rows.append({"epoch": epoch, "validation_elbo": self.gains(self.number, epoch)})
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        (self.folder / HISTORY).write_text(text)
        self.exitcode = 0 if epoch == self.epochs else None

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.exitcode = -9 if self.exitcode is None else self.exitcode


class Forks:
    """Stands for what starts processes."""

    Process = Trained

    def set_forkserver_preload(self, modules: list[str]) -> None:
        """Nothing is imported."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> type[Trained]:
    monkeypatch.setattr(Trained, "started", [], raising=False)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: Forks())
    return Trained


def by_number(number: int, epoch: int) -> float:
    """Every trial rises; the sixth and the eighth lie below the others."""
    return epoch - (100.0 if number in (5, 7) else number / 10)


@pytest.mark.parametrize("warmup", [1, 3, 6])
def test_a_trial_below_the_median_is_stopped(
    warmup: int,
    trained: type[Trained],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trained, "gains", staticmethod(by_number), raising=False)
    assert tune.main([*COMMAND, *SPACE, "--trials", "9", "--warmup", str(warmup)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # After the last epoch there is nothing left to save.
    stopped = warmup < trained.epochs
    below = "PRUNED" if stopped else "COMPLETE"
    assert states()[:6] == ["COMPLETE"] * 5 + [below]
    assert states()[7] == below
    assert len(trained.started[5].rows) == warmup
    assert trained.started[5].exitcode == (-9 if stopped else 0)
    if stopped:
        assert lines[5].startswith(f"trial 5: stopped after epoch {warmup} at {warmup - 100}.00; ")
    assert study().best_trial.number == 0


def test_what_was_not_measured_does_not_compare(
    trained: type[Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    trained.gains = staticmethod(lambda *_: 0.0)
    assert tune.main([*COMMAND, *SPACE, "--trials", "1", "--by", "information_bound"]) == 1
    line = capsys.readouterr().out
    assert line.startswith("trial 0: failed: information_bound was not measured; ")
    assert states() == ["FAIL"]


def test_a_trial_belongs_to_one_worker_while_that_one_lives(trained: type[Trained]) -> None:
    options = tune.Options("digits", trials=2, storage=STORAGE)
    one, other = (tune.Worker(options, search({"prior.scale": [1, 10]}), "digits") for _ in "ab")
    with one.claimed() as first:
        with other.claimed() as second, one.claimed() as none:
            assert (first.number, second.number, none) == (0, 1, None)
        # Its worker went away without telling how it ended.
        with one.claimed() as again:
            assert (again.number, again.params) == (1, second.params)
    with other.claimed() as left:
        assert (left.number, left.params) == (0, first.params)
        study().tell(0, 1.0)
    with other.claimed() as left:
        assert left.number == 1


def test_draws_depend_on_the_seed_and_the_number(
    trained: type[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "gains", staticmethod(by_number), raising=False)
    drawn = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        flags = ["--name", name, "--out", f"{name}.yaml", "--trials", "3", "--seed", seed]
        assert tune.main([*COMMAND, *SPACE, *flags]) == 0
        drawn.append([trial.params for trial in study(name).trials])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_file_of_another_study_is_not_written_over(
    trained: type[Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("# Trial 0 of 'other': elbo 1.0 nats per example.\n", "mine: 1\n", ""):
        Path("best.yaml").write_text(content)
        assert tune.main([*COMMAND, *SPACE, "--name", "one", "--trials", "1"]) == 2
        said = "error: --out best.yaml: is there, and is not of the study 'one'; give another file"
        assert said in capsys.readouterr().err
        assert Path("best.yaml").read_text() == content


# What is searched, and by what.


def test_how_settings_are_drawn() -> None:
    space = {
        "prior.scale": [1, 10],
        "prior.delta": [1, 4],
        "batch_size": [10, 200],
        "learning_rate": [0.001, 0.002],
        "weights.consistency": [0, 10],
        "decoder.hidden": {"choices": [[8], [8, 8]]},
    }
    real, whole = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    assert search(space).space == {
        "prior.scale": real(1, 10, log=True),
        "prior.delta": whole(1, 4),
        "batch_size": whole(10, 200, log=True),
        "learning_rate": real(0.001, 0.002),
        "weights.consistency": real(0, 10),
        "decoder.hidden": optuna.distributions.CategoricalDistribution(["[8]", "[8, 8]"]),
    }


def test_a_class_comes_before_its_arguments() -> None:
    asked = search({"prior": {"choices": ["models.priors.Simplex"]}, "prior.scale": [2, 5]})
    prior = asked.settings({"prior.scale": 3.5, "prior": "models.priors.Simplex"}).prior
    assert (prior.class_path, prior.init_args["scale"]) == ("models.priors.Simplex", 3.5)


def test_the_usual_space_is_what_the_run_has_and_no_flag_gives() -> None:
    assert list(search({}).space) == ["learning_rate", "prior.delta", "prior.scale"]
    assert list(search({}, "--prior.scale", "3").space) == ["learning_rate", "prior.delta"]


def test_a_file_and_words_give_one_space() -> None:
    Path("space.yaml").write_text("prior.scale: [1, 2]\nprior.delta: [1, 2]\n")
    assert tune.read_space(["space.yaml", "prior.delta: [1, 3]"]) == {
        "prior.scale": [1, 2],
        "prior.delta": [1, 3],
    }


def test_a_share_is_held_out_unless_the_user_has_one() -> None:
    assert search({}).settings({}).patience == tune.NEVER
    assert search({}, "--patience", "7").settings({}).patience == 7


@pytest.mark.parametrize(
    ("by", "gain"), [("elbo", -3.0), ("information_bound", 2.0), ("information", 1.5)]
)
def test_what_an_epoch_is_worth(by: str, gain: float) -> None:
    row = {"validation_elbo": -3.0, "information_bound": 2.0, "elbo": 9.0, "objective": 9.0}
    row |= {"marginal_entropy": 2.25, "conditional_entropy": 0.75}
    asked = search({}, by=by)
    assert asked.gain(row) == gain
    assert asked.gain({"objective": 9.0}) is None


# What it refuses.


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Give the command what it must refuse before any trial; the line without ``error:``."""

    def refuse(*arguments: str) -> str:
        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(tune.Worker, "work", never)
        assert tune.main(arguments) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error.removeprefix("error: ").strip()

    return refuse


THERE = "give elbo, information_bound, information"
WRONG = {
    "a term": (
        ["digits", "--space", "weights.clarity: [1, 2]"],
        "a trial cannot begin: weights: no term 'clarity' to weigh; there are reconstruction",
    ),
    "what only building tells": (
        ["digits", "--space", "prior.delta: [-1, 2]"],
        "a trial cannot begin: prior models.priors.Orthogonal: delta must be at least 1, not -1",
    ),
    "the other end": (
        ["digits", "--space", "prior.categories: [5, 0]"],
        "--space: prior.categories: expected [LOW, HIGH] or {choices: [A, B]}, not '[5, 0]'",
    ),
    "nothing": ([], "PRESET is missing: a preset by name or file"),
    "data": (["nothing"], "--data: no data set 'nothing'"),
    "preset": (["none.yaml"], "--config: cannot read 'none.yaml'"),
    "trials": (["digits", "--trials", "0"], "--trials 0: must be at least 1"),
    "flag": (["digits", "--trial", "3"], "no such flag: --trial 3; did you mean --trials?"),
    "resume": (["digits", "--resume", "true"], "no such flag: --resume true"),
    "a run's flag": (["digits", "--epochs", "0"], "--epochs 0: must be at least 1"),
    "labels": (
        ["digits", "--by", "accuracy"],
        f"--by accuracy: needs labels, and labels must not choose; {THERE}",
    ),
    "test split": (
        ["digits", "--by", "nll"],
        f"--by nll: is of the test split, which must not choose; {THERE}",
    ),
    "categories": (["digits", "--by", "clusters_used"], "--by clusters_used: is of the test"),
    "objective": (
        ["digits", "--by", "objective"],
        f"--by objective: changes its scale with the weights; {THERE}",
    ),
    "figure": (["digits", "--by", "luck"], f"--by luck: is no figure to choose by; {THERE}"),
    "file of a space": (["digits", "--space", "no.yaml"], "--space: cannot read 'no.yaml' ("),
    "YAML": (["digits", "--space", "a: ["], "--space: cannot read 'a: [' ("),
    "no names": (["digits", "--space", "3"], "--space: expected 'SETTING: [LOW, HIGH]', not '3'"),
}
SPACES = {
    "unknown": ("epoch: [1, 2]", "epoch: no such setting; did you mean epochs?"),
    "unknown argument": (
        "prior.sale: [1, 2]",
        "prior: models.priors.Orthogonal takes no 'sale'; it takes categories",
    ),
    "one number": (
        "prior.scale: 3",
        "prior.scale: expected [LOW, HIGH] or {choices: [A, B]}, not '3'",
    ),
    "three": ("prior.scale: [1, 2, 3]", "prior.scale: expected [LOW, HIGH]"),
    "backwards": ("prior.scale: [3, 1]", "prior.scale: expected [LOW, HIGH]"),
    "words": ("prior.scale: [a, b]", "prior.scale: expected [LOW, HIGH]"),
    "truths": ("encoder.norm: [false, true]", "encoder.norm: expected [LOW, HIGH]"),
    "no choices": ("prior.scale: {choices: []}", "prior.scale: expected [LOW, HIGH]"),
    "more than choices": (
        "prior.scale: {choices: [1], log: true}",
        "prior.scale: expected [LOW, HIGH]",
    ),
    "type": ("batch_size: [1.5, 3]", "batch_size: expected a whole number"),
    "choice": ("kl: {choices: [analytic, none]}", "kl: expected one of 'analytic', 'sampled'"),
    "limit": ("learning_rate: [0, 1]", "learning_rate 0: must be above 0"),
    "class": ("prior: {choices: [models.priors.Gone]}", "prior: 'models.priors.Gone'"),
    "likelihood": (
        "likelihood.scale: [0.1, 1]",
        "likelihood.scale: must be the same in all trials of --by elbo",
    ),
    "seed": ("seed: [0, 9]", "seed: must be the same in all trials of --by elbo"),
    "data": ("data: {choices: [digits, mnist]}", "data: must be the same in all trials"),
    "patience": ("patience: [1, 9]", "patience: must be the same in all trials"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument(arguments: list[str], said: str, refuse: Refuse) -> None:
    assert refuse(*arguments).startswith(said)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("space", "said"), SPACES.values(), ids=SPACES)
def test_a_wrong_space(space: str, said: str, refuse: Refuse) -> None:
    error = refuse("digits", "--space", space)
    assert error.startswith(f"--space: {said}")
    assert not list(Path().iterdir())


def test_categories_are_the_same_where_information_chooses(refuse: Refuse) -> None:
    """log K bounds it; the bound on log p(x) compares whatever K is."""
    space = "prior.categories: [5, 20]"
    error = refuse("digits", "--by", "information", "--space", space)
    assert "prior.categories: must be the same in all trials of --by information" in error
    assert list(search({"prior.categories": [5, 20]}).space) == ["prior.categories"]


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder/a.db", "nothing", "oracle://a"])
def test_a_storage_that_cannot_be_used(url: str, refuse: Refuse) -> None:
    error = refuse("digits", "--storage", url)
    assert error.startswith(f"--storage: cannot use '{url}' (")
    assert error.endswith("); give one such as sqlite:///tune.db")


def test_a_folder_that_cannot_be_written(refuse: Refuse) -> None:
    Path("file").write_text("mine")
    assert "choose another --out or --runs" in refuse("digits", "--runs", "file")
    assert Path("file").read_text() == "mine"


def test_a_study_of_another_search(trained: type[Trained], refuse: Refuse) -> None:
    trained.gains = staticmethod(lambda *_: 0.0)
    command = [*COMMAND, "--name", "mine"]
    options = tune.Options("digits", storage=STORAGE)
    first = search({"prior.scale": [1, 10]}, *COMMAND[3:])
    tune.Worker(options, first, "mine").study.ask(first.space)
    error = refuse(*command, "--epochs", "3", "--space", "prior.scale: [1, 10]")
    assert error == "--name mine: the study has epochs 2, not 3; give another name"
    optuna.create_study(storage=STORAGE, study_name="other").ask()
    assert refuse(*COMMAND, "--name", "other").startswith("--name other: the study has --by None")


def test_without_optuna(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert refuse("digits") == (
        "a search needs the package optuna; install pyro_infocat[tune], as in pip install optuna"
    )


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        tune.main(["--help"])
    assert stop.value.code == 0
    assert "--trials N" in capsys.readouterr().out
