"""What a run leaves behind, and that it can be repeated and continued to the bit."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pyro_infocat import build
from pyro_infocat.arguments import parse
from pyro_infocat.data import Split
from pyro_infocat.fit import check_fit
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, DATA_SETS, HISTORY, METRICS, ROOT
from pyro_infocat.train import batches
from tests.brief import SMALL, start, wait_for
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")

FIGURES = {
    "conditional_samples",
    "interpolation",
    "subspace_walk",
    "reconstructions",
    "confusion",
    "latent",
    "training",
}
SHARES = {
    "accuracy",
    "purity",
    "nmi",
    "generation_accuracy",
    "generation_accuracy_classifier",
}
METRIC_KEYS = SHARES | {
    "ari",
    "clusters_used",
    "elbo",
    "nll",
    "nll_samples",
    "generation_samples",
    "reconstruction",
    "kl_z",
    "kl_c",
    "information_bound",
    "epochs",
    "train_seconds",
    "examples_per_second",
    "device",
    "seed",
    "versions",
}
TERMS = {
    "elbo",
    "reconstruction",
    "kl_z",
    "kl_c",
    "information_bound",
    "marginal_entropy",
    "conditional_entropy",
    "consistency",
}
TIMES = {"seconds", "train_seconds", "examples_per_second"}


def metrics(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / METRICS).read_text())


def history(folder: str | Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / HISTORY).read_text().splitlines()]


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def same_run(one: str | Path, other: str | Path) -> bool:
    """Whether two runs agree to the last bit in everything but their times."""
    histories = [[timeless(row) for row in history(folder)] for folder in (one, other)]
    return timeless(metrics(one)) == timeless(metrics(other)) and histories[0] == histories[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run: two epochs of the default, but for the samples of the nll."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    flags = ["--epochs", "2", "--nll_samples", "3", "--device", "cpu", "--out", str(folder)]
    assert main(flags) == 0
    return folder


def test_the_folder_is_complete(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {CONFIG, METRICS, HISTORY, CHECKPOINT, "figures"}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"{name}.png" for name in FIGURES
    }
    for path in (finished / "figures").iterdir():
        with Image.open(path) as image:
            image.verify()


def test_metrics_hold_the_contract(finished: Path) -> None:
    found = metrics(finished)
    assert set(found) == METRIC_KEYS
    for name in SHARES:
        assert isinstance(found[name], float)
        assert 0 <= found[name] <= 1
    assert -0.5 <= found["ari"] <= 1
    assert found["accuracy"] <= found["purity"]
    assert isinstance(found["clusters_used"], int)
    assert 1 <= found["clusters_used"] <= 10
    # A multilayer perceptron on the digits; an untrained one has 0.1.
    assert found["generation_accuracy_classifier"] > 0.9
    assert found["elbo"] == pytest.approx(
        found["reconstruction"] - found["kl_z"] - found["kl_c"], abs=1e-9
    )
    # The bound with three samples is the tighter one, by far more than its noise here.
    assert -found["nll"] > found["elbo"]
    assert found["kl_z"] > 0
    assert 0 <= found["kl_c"] <= 2.31
    assert found["information_bound"] <= 2.31
    assert found["nll_samples"] == 3
    assert found["epochs"] == 2
    assert found["seed"] == 0
    assert found["device"] == "cpu"
    assert found["train_seconds"] > 0
    assert found["examples_per_second"] == pytest.approx(2 * 1297 / found["train_seconds"])
    assert found["versions"] == {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pyro": pyro.__version__,
    }


def test_history_has_a_line_an_epoch_with_every_term(finished: Path) -> None:
    rows = history(finished)
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert set(row) == TERMS | {"epoch", "seconds", "objective"}
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl_z"] - row["kl_c"])
    assert rows[1]["elbo"] > rows[0]["elbo"]
    total = sum(row["seconds"] for row in rows)
    assert metrics(finished)["train_seconds"] == pytest.approx(total)


def test_tensorboard_reads_the_terms(finished: Path) -> None:
    events = EventAccumulator(str(finished))
    events.Reload()
    watched = {f"categories/{name}" for name in ("used", "least_share", "merged")}
    assert set(events.Tags()["scalars"]) == TERMS | {"seconds", "objective"} | watched
    rows = history(finished)
    for name in TERMS:
        points = events.Scalars(name)
        assert [point.step for point in points] == [1, 2]
        assert [point.value for point in points] == pytest.approx([row[name] for row in rows])


def test_the_checkpoint_loads_without_pickles(finished: Path) -> None:
    checkpoint = torch.load(finished / CHECKPOINT, weights_only=True)
    assert set(checkpoint) == {"epoch", "model", "guide", "optimizer", "rng", "facts", "history"}
    assert checkpoint["epoch"] == 2
    assert checkpoint["history"] == history(finished)
    assert all(isinstance(value, Tensor) for value in checkpoint["model"].values())


def test_the_config_says_everything_and_reads_back(finished: Path) -> None:
    settings, out, resume = parse(["--config", str(finished / CONFIG)])
    assert settings.as_dict() == yaml.safe_load((finished / CONFIG).read_text())
    assert settings.epochs == 2
    assert settings.prior.init_args["categories"] == 10
    assert settings.guide.init_args == {"hidden": 128, "shared": False}
    assert out == Path("runs/config/seed0")
    assert not resume


def test_a_finished_run_resumes_into_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    (again / METRICS).unlink()
    flags = ["--config", str(again / CONFIG), "--out", str(again), "--resume", "true"]
    assert main(flags) == 0
    assert metrics(again) == metrics(finished)
    assert history(again) == history(finished)


# Repeated and continued.


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ctrl-C in the middle of the third epoch of a run; appends the batches of each epoch."""
    shuffled, grey = Split.shuffled, Split.grey
    begun: list[int] = []

    def epoch(self: Split) -> Tensor:
        begun.append(0)
        return shuffled(self)

    def batch(self: Split, index: Tensor | slice = slice(None)) -> Tensor:
        if begun:
            begun[-1] += 1
            if len(begun) == 3 and begun[-1] == 2:
                raise KeyboardInterrupt
        return grey(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Split, "shuffled", epoch)
        patch.setattr(Split, "grey", batch)
        yield begun


@pytest.mark.usefixtures("brief")
def test_the_config_fed_back_reproduces_the_run() -> None:
    assert main([*SMALL, "--epochs", "2", "--out", "first"]) == 0
    torch.manual_seed(5)
    assert main(["--config", f"first/{CONFIG}", "--out", "second"]) == 0
    assert same_run("first", "second")
    assert Path("first", CONFIG).read_bytes() == Path("second", CONFIG).read_bytes()
    assert main(["--config", f"first/{CONFIG}", "--seed", "1", "--out", "third"]) == 0
    first, third = metrics("first"), metrics("third")
    for name in ("elbo", "nll", "reconstruction", "kl_z", "kl_c", "information_bound"):
        assert first[name] != third[name]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--anneal", "cosine", "--schedules", "{kl_z: [[0, 0], [3, 1]]}"],
        ["--patience", "9", "--particles", "2", "--likelihood", "models.likelihoods.Bernoulli"],
        ["--encoder.norm", "true", "--prior", "models.priors.Vamp"],
        ["--guide", "guides.Bayes", "--kl", "sampled", "--prior", "models.priors.Mixture"],
    ],
    ids=["default", "annealed", "binary", "batch norm", "Bayes"],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    flags: list[str], interrupted: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*(flag for flag in SMALL if "guide" not in flag and flag != "16"), *flags]
    flags += ["--epochs", "4"]
    assert main([*flags, "--out", "stopped"]) == 130
    assert torch.load(f"stopped/{CHECKPOINT}", weights_only=True)["epoch"] == 2
    assert len(history("stopped")) == 2
    assert not Path("stopped", METRICS).exists()
    capsys.readouterr()
    assert main([*flags, "--out", "whole"]) == 0, capsys.readouterr().err
    torch.manual_seed(5)
    assert main([*flags, "--out", "stopped", "--resume", "true"]) == 0
    assert len(interrupted) == 3 + 4 + 2
    assert same_run("whole", "stopped")


@pytest.mark.usefixtures("brief")
def test_a_finished_run_is_taken_to_more_epochs() -> None:
    flags = [*SMALL, "--schedules", "{kl_z: [[0, 0], [3, 1]]}"]
    assert main([*flags, "--epochs", "2", "--out", "longer"]) == 0
    assert main([*flags, "--epochs", "4", "--out", "longer", "--resume", "true"]) == 0
    assert main([*flags, "--epochs", "4", "--out", "whole"]) == 0
    assert same_run("whole", "longer")
    assert Path("whole", CONFIG).read_bytes() == Path("longer", CONFIG).read_bytes()
    assert metrics("longer")["epochs"] == 4


@pytest.mark.usefixtures("brief")
def test_stopped_on_its_way_beyond_its_end_a_run_has_no_metrics_of_before(
    interrupted: list[int],
) -> None:
    assert main([*SMALL, "--epochs", "1", "--out", "out"]) == 0
    flags = [*SMALL, "--epochs", "3", "--out", "out", "--resume", "true"]
    # The third epoch in all.
    assert main(flags) == 130
    assert len(history("out")) == 2
    assert not Path("out", METRICS).exists()
    assert main(flags) == 0
    assert metrics("out")["epochs"] == 3


@pytest.mark.usefixtures("brief")
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits() -> None:
    """``kill -9`` while checkpoints are written about every 30 ms, after different delays."""
    out = Path("killed")
    flags = [*SMALL, "--epochs", "60", "--out", str(out)]
    for delay, resume in ((0.05, []), (0.27, ["--resume", "true"])):
        before = len(history(out)) if resume else 0
        process = start(*flags, *resume)
        wait_for(
            lambda before=before: (out / HISTORY).exists() and len(history(out)) > before, process
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        checkpoint = torch.load(out / CHECKPOINT, weights_only=True)
        assert before < checkpoint["epoch"] < 60
        # The history may be one epoch behind, never torn and never ahead.
        assert checkpoint["epoch"] - 1 <= len(history(out)) <= checkpoint["epoch"]
    assert main([*flags, "--resume", "true"]) == 0
    assert main([*flags[:-1], "whole"]) == 0
    assert same_run("whole", out)


@pytest.mark.usefixtures("brief")
def test_killed_before_its_first_checkpoint_a_run_can_be_begun_again() -> None:
    flags = [*SMALL, "--epochs", "1", "--out", "out"]
    assert main(flags) == 0
    config = Path("out", CONFIG).read_bytes()
    for path in Path("out").iterdir():
        path.unlink()
    Path("out", CONFIG).write_bytes(config)
    assert main([*flags, "--seed", "1"]) == 2
    assert Path("out", CONFIG).read_bytes() == config
    assert main(flags) == 0


# Ways to run.


@pytest.mark.usefixtures("brief")
def test_without_the_information_layer() -> None:
    assert main([*SMALL, "--epochs", "1", "--information_weight", "0", "--out", "out"]) == 0
    (row,) = history("out")
    # It is measured all the same.
    assert row["information_bound"] <= 2.31
    assert metrics("out")["information_bound"] <= 2.31


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("decoded", [[], ["--decoded", "2"]])
def test_a_program_of_ones_own_is_said_to_go_through_pyro(
    decoded: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_program.py").write_text(
        "import pyro\nfrom guides import Enumerated\n\n"
        "class Mine(Enumerated):\n"
        "    def forward(self, x):\n"
        "        pyro.module('guide', self)\n"
        "        category, latent = self.posterior(x)\n"
        "        with pyro.plate('batch', x.shape[0]):\n"
        "            c = pyro.sample('c', category, infer={'enumerate': 'parallel'})\n"
        "            pyro.sample('z', latent(c))\n"
    )
    monkeypatch.syspath_prepend(".")
    flags = [*SMALL, "--epochs", "1", *decoded]
    assert main([*flags, "--guide", "my_program.Mine", "--out", "mine"]) == 0
    said = (
        "--guide my_program.Mine: a Pyro program of its own, so the bound goes through Pyro, more "
        "slowly"
    )
    if decoded:
        said += "; --decoded does not apply"
    assert capsys.readouterr().out.splitlines().count(said) == 1
    assert main([*flags, "--out", "ours"]) == 0
    assert "through Pyro" not in capsys.readouterr().out


SCHEDULES: dict[str, list[list[float]]] = {
    "kl_z": [[0, 2], [4, 0.5]],
    "information_bound": [[3, 0], [4, 20]],
    "learning_rate": [[0, 0.004], [9, 0.001]],
    "kl_c": [[0, 0], [4, 0]],
}
SCALED = {
    "information_weight": (["--information_weight", "5"], {"information_bound": [[3, 0], [4, 5]]}),
    "none of it": (["--information_weight=0"], {"information_bound": [[3, 0], [4, 0]]}),
    "learning rate": (["--learning_rate", "0.008"], {"learning_rate": [[0, 0.008], [9, 0.002]]}),
    "weights": (["--weights", "{kl_z: 4}"], {"kl_z": [[0, 4], [4, 1]]}),
    "one weight": (["--weights.kl_z", "4"], {"kl_z": [[0, 4], [4, 1]]}),
    "nothing but zeros": (["--weights.kl_c", "3"], {"kl_c": [[0, 3], [4, 3]]}),
    "another weight": (["--weights.consistency", "4"], {}),
    "its own schedule": (
        ["--information_weight", "5", "--schedules.information_bound", "[[0, 7]]"],
        {"information_bound": [[0, 7]]},
    ),
}


@pytest.mark.parametrize(("flags", "changed"), SCALED.values(), ids=SCALED)
def test_a_flag_scales_what_the_preset_schedules(
    flags: list[str], changed: dict[str, list[list[float]]], tmp_path: Path
) -> None:
    preset = yaml.safe_load((ROOT / "runs/digits.yaml").read_text()) | {"schedules": SCHEDULES}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    settings, _, _ = parse(["--config", str(tmp_path / "preset.yaml"), *flags])
    assert settings.schedules == SCHEDULES | changed


@pytest.mark.parametrize("how", ["before", "after", "with a sign"])
def test_a_flag_has_the_last_word_wherever_it_stands(how: str) -> None:
    config = ["--config", str(ROOT / "runs/mnist-paper.yaml")]
    flags = ["--epochs", "7", "--prior.scale", "5"]
    argv = {
        "before": [*config, *flags],
        "after": [*flags, *config],
        "with a sign": [*flags, "=".join(config)],
    }
    settings, _, _ = parse(argv[how])
    assert settings.epochs == 7
    assert settings.prior.init_args["scale"] == 5
    assert settings.data == "mnist"


def test_anneal_takes_the_place_of_a_scheduled_rate() -> None:
    settings, _, _ = parse(["--data", "mnist", "--anneal", "cosine"])
    assert "learning_rate" not in settings.schedules
    assert "kl_z" in settings.schedules


REMARKS = {
    "--decoded 2 and --particles 3 do not apply": [
        *("--guide", "guides.SoftCode", "--decoded", "2", "--particles", "3"),
    ],
    "--kl sampled does not apply": ["--guide", "guides.Gumbel", "--kl", "sampled"],
    "--epochs 2: kl_z, kl_c will have no weight; the schedules give none before epoch 4": [
        *("--schedules", "{kl_z: [[2, 0], [3, 1]], kl_c: [[1, 0], [7, 3], [9, 0]]}"),
        *("--schedules.kl_c", "[[3, 0], [7, 3]]"),
    ],
    "--anneal cosine: does not apply, since --schedules has a learning_rate": [
        *("--anneal", "cosine", "--schedules", "{learning_rate: [[0, 0.001], [1, 0.0005]]}"),
    ],
    # A straight line is above zero as soon as it rises.
    "--epochs 2: kl_c will have no weight; the schedules give none before epoch 4": [
        *("--schedules", "{kl_c: [[2, 0], [9, 1]]}"),
    ],
}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("said", REMARKS)
def test_flags_that_do_less_than_they_seem_to(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--epochs", "2", *REMARKS[said], "--out", "out"]) == 0
    assert said in capsys.readouterr().out.splitlines()[0]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    "flags",
    [
        ["--schedules", "{kl_z: [[0, 0], [1, 1]]}"],
        ["--schedules", "{kl_z: [[0, 0]]}"],
        ["--guide", "guides.SoftCode"],
    ],
    ids=["begins in time", "never meant to", "nothing idle"],
)
def test_nothing_is_remarked_where_there_is_nothing_to_remark(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--epochs", "2", *flags, "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "apply" not in said
    assert "no weight" not in said


@pytest.mark.usefixtures("brief")
def test_a_last_batch_of_one_joins_the_one_before() -> None:
    """Batch normalisation has no variance of one example: 1,297 are 81 batches of 16 and one."""
    flags = ["--encoder.norm", "true", "--batch_size", "16", "--epochs", "1", "--nll_samples", "2"]
    assert main([*flags, "--device", "cpu", "--out", "out"]) == 0


@pytest.mark.parametrize(("number", "sizes"), [(6, [3, 3]), (7, [3, 4]), (8, [3, 3, 2]), (2, [2])])
def test_batches(number: int, sizes: list[int]) -> None:
    parts = batches(torch.arange(number), 3)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(number))


@pytest.mark.usefixtures("brief")
def test_patience_begins_with_the_bound() -> None:
    late = "reconstruction: [[3, 0], [4, 1]], kl_z: [[3, 0], [4, 1]], kl_c: [[3, 0], [4, 1]]"
    flags = ["--epochs", "7", "--patience", "1", "--schedules", f"{{{late}}}"]
    assert main([*SMALL, *flags, "--out", "out"]) == 0
    rows = history(Path("out"))
    assert len(rows) > 4
    assert ["validation_elbo" in row for row in rows[:5]] == [False] * 4 + [True]


@pytest.mark.usefixtures("brief")
def test_early_stopping_stops(capsys: pytest.CaptureFixture[str]) -> None:
    # So small a rate changes no parameter: no epoch is better than the first. Batch normalisation
    # would learn all the same.
    flags = ["--encoder.norm", "false"]
    flags += ["--learning_rate", "1e-30", "--patience", "2", "--epochs", "9"]
    assert main([*SMALL, *flags, "--out", "out"]) == 0
    assert metrics("out")["epochs"] == 3
    assert "stopped after epoch 3: 2 without a better bound" in capsys.readouterr().out
    bounds = [row["validation_elbo"] for row in history("out")]
    assert len(bounds) == 3
    assert len(set(bounds)) == 1


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_images_of_the_real_format(name: str, tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path / "archives")
    flags = ["--data", name, "--data_root", "archives", "--epochs", "1", "--nll_samples", "2"]
    # The preset's own networks are for more than 200 images.
    small = ["--encoder", "guides.encoders.MLP", "--decoder", "models.decoders.MLP"]
    assert main([*flags, *small, "--device", "cpu"]) == 0
    assert set(metrics(f"runs/{name}/seed0")) == METRIC_KEYS


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        ([], "runs/digits/seed0"),
        (["--seed", "3"], "runs/digits/seed3"),
        (["--data", "fashion-mnist"], "runs/fashion-mnist/seed0"),
        (["--config", str(ROOT / "runs/digits.yaml"), "--seed", "1"], "runs/digits/seed1"),
        (["--config", str(ROOT / "runs/mnist.yaml")], "runs/mnist/seed0"),
        (["--out", "elsewhere/run"], "elsewhere/run"),
    ],
)
def test_the_folder_that_a_run_gets(flags: list[str], out: str) -> None:
    assert parse(flags)[1] == Path(out)


@pytest.mark.parametrize("preset", sorted((ROOT / "runs").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_parses_and_its_parts_fit(preset: Path) -> None:
    settings, _, _ = parse(["--config", str(preset)])
    model, guide, view = build.build(settings, torch.device("cpu"))
    bound = build.objective(settings)
    seen = build.observation(settings, model.decoder.likelihood)
    facts = DATA_SETS[settings.data]
    pixels = torch.randint(facts.levels, (4, facts.features))
    split = Split(pixels, torch.zeros(4), facts.levels)
    check_fit(settings, model, guide, view, bound, split, seen)


def test_flags_go_over_the_preset() -> None:
    settings, _, _ = parse(["--prior.scale", "2.5", "--epochs", "7"])
    assert settings.prior.init_args["scale"] == 2.5
    assert settings.prior.init_args["delta"] == 2
    assert settings.epochs == 7


def test_another_prior_brings_its_own_arguments() -> None:
    settings, _, _ = parse(["--prior", "models.priors.Simplex", "--prior.latent", "12"])
    assert settings.prior.class_path == "models.priors.Simplex"
    assert settings.prior.init_args["latent"] == 12
    assert "delta" not in settings.prior.init_args
    model, _, _ = build.build(settings, torch.device("cpu"))
    assert model.prior.latent == 12


def test_the_default_is_the_digits_preset() -> None:
    default, _, _ = parse([])
    preset, _, _ = parse(["--config", str(ROOT / "runs/digits.yaml")])
    assert default == preset


def test_help_and_print_config_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--print_config"):
        with pytest.raises(SystemExit) as end:
            main([flag])
        assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "--information_weight" in printed
    assert "class_path: models.priors.Orthogonal" in printed


def test_threads_that_wait_spin_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody has said how long."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert main(["--epochs", "0"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == "5"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert main(["--epochs", "0"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize("flags", [["--help"], ["--epochs", "0"], ["--data", "nothing"]])
def test_help_and_bad_input_are_answered_without_torch(flags: list[str]) -> None:
    """In a process of its own, whose imports are listed by Python itself."""
    command = [sys.executable, "-X", "importtime", "-m", "pyro_infocat.run", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if flags == ["--help"] else 2)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "pyro_infocat.arguments" in imported
    assert not imported & {"torch", "pyro", "sklearn", "matplotlib"}
