"""Folders of runs that are taken, cannot be written, or hold nothing to go on with."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY, METRICS
from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, Refuse, again, checkpoint_in, contents

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("held", [CONFIG, CHECKPOINT, HISTORY, METRICS])
def test_a_folder_that_holds_another_run(held: str, refuse: Refuse) -> None:
    Path(OUT).mkdir()
    Path(OUT, held).write_text("mine")
    error = refuse("--epochs", "1", fresh=False)
    if held == CONFIG:
        # There is nothing to go on with.
        assert f"--out: '{OUT}' holds the settings of another run, which never began" in error
        assert "delete it" in error
    else:
        assert f"--out: '{OUT}' holds another run" in error
        assert "--resume true" in error
    assert "another --out" in error
    assert contents(Path(OUT)) == {held: b"mine"}


def test_a_run_is_not_overwritten(trained: Path, refuse: Refuse) -> None:
    before = contents(trained)
    assert "holds another run" in refuse(*SMALL, "--epochs", "1", fresh=False)
    assert contents(trained) == before


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_is_a_file(out: str, refuse: Refuse) -> None:
    Path("file").write_text("mine")
    error = refuse("--out", out)
    assert f"--out: cannot write to '{out}'" in error
    assert "choose a folder that can be written" in error
    assert Path("file").read_text() == "mine"


def test_an_out_below_what_nobody_can_write(refuse: Refuse) -> None:
    """Not even whoever may do anything: the kernel makes these folders."""
    error = refuse("--out", "/proc/pyro_infocat/below")
    assert "--out: cannot write to '/proc/pyro_infocat/below'" in error
    assert "choose a folder that can be written" in error


@pytest.mark.parametrize("there", [False, True])
def test_resume_without_a_checkpoint(there: bool, refuse: Refuse) -> None:
    if there:
        Path(OUT).mkdir()
    error = refuse("--resume", "true", fresh=not there)
    assert f"--resume: no checkpoint in '{OUT}'" in error
    assert "without --resume" in error


@pytest.mark.parametrize("damage", ["epochs: [", "3", "epochs: 1", "prior: &a 3"])
def test_resume_of_a_folder_whose_config_is_damaged(
    damage: str, trained: Path, refuse: Refuse
) -> None:
    (trained / CONFIG).write_text(damage)
    error = refuse(*SMALL, "--resume", "true", fresh=False)
    assert f"'{OUT}/{CONFIG}' cannot be read" in error
    assert "give the --out of a run" in error


def test_resume_of_a_folder_without_its_config(trained: Path, refuse: Refuse) -> None:
    (trained / CONFIG).unlink()
    error = refuse(*SMALL, "--resume", "true", fresh=False)
    said = f"'{OUT}' is not the folder of a run: it has no {CONFIG}; give the --out of a run"
    assert said in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "5"], "seed 0, not 5"),
        (["--prior.scale", "2.5"], "prior.scale 4.0, not 2.5"),
        (["--weights.kl_z", "2"], "weights.kl_z None, not 2.0"),
        (
            ["--guide", "guides.SoftCode"],
            "guide.class_path guides.enumerated.Enumerated, not guides.SoftCode",
        ),
    ],
)
def test_resume_under_another_configuration(
    flags: list[str], said: str, trained: Path, refuse: Refuse
) -> None:
    before = contents(trained)
    error = refuse(*SMALL, "--epochs", "1", *flags, "--resume", "true", fresh=False)
    assert said in error
    assert f"go on with --out {OUT} --resume true, or choose another --out" in error
    assert contents(trained) == before


def test_resume_with_fewer_epochs_than_there_were(trained: Path, refuse: Refuse) -> None:
    checkpoint = checkpoint_in(trained)
    (row,) = checkpoint["history"]
    rows = [row | {"epoch": float(epoch)} for epoch in (1, 2, 3)]
    torch.save(checkpoint | {"epoch": 3, "history": rows}, trained / CHECKPOINT)
    before = contents(trained)
    error = refuse(*SMALL, "--epochs", "2", "--resume", "true", fresh=False)
    assert f"--epochs 2: '{OUT}' has had 3" in error
    assert "at least as many" in error
    assert contents(trained) == before


@pytest.mark.usefixtures("brief")
def test_resume_with_more_epochs_than_a_cosine_was_spread_over(
    trained: Path, refuse: Refuse
) -> None:
    config = trained / CONFIG
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(values | {"anneal": "cosine"}))
    before = contents(trained)
    flags = [*SMALL, "--anneal", "cosine", "--resume", "true"]
    error = refuse(*flags, "--epochs", "7", fresh=False)
    assert f"--epochs 7: the cosine learning rate of '{OUT}' was spread over 1" in error
    assert contents(trained) == before
    # Where a schedule says the rate, there is none to spread.
    schedule = ["--schedules.learning_rate", "[[0, 0.001]]"]
    values |= {"anneal": "cosine", "schedules": {"learning_rate": [[0, 0.001]]}}
    config.write_text(yaml.safe_dump(values))
    assert main([*flags, *schedule, "--epochs", "2", "--out", OUT]) == 0


def test_resume_of_a_checkpoint_of_another_model(trained: Path, refuse: Refuse) -> None:
    config = trained / CONFIG
    values = yaml.safe_load(config.read_text())
    values["decoder"]["init_args"]["hidden"] = [17]
    config.write_text(yaml.safe_dump(values))
    error = refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert "the checkpoint does not fit" in error
    assert "size mismatch" in error


@pytest.mark.usefixtures("brief")
def test_resume_on_other_images(refuse: Refuse, capsys: pytest.CaptureFixture[str]) -> None:
    """Their number or a single pixel is enough; a name or a place says nothing of them."""
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)

    def write(train: np.ndarray, test: np.ndarray) -> None:
        np.savez("mine.npz", x_train=train, x_test=test)

    write(images[:50], images[50:])
    flags = [*SMALL, "--data", "mine.npz", "--epochs"]
    assert main([*flags, "1", "--out", OUT]) == 0, capsys.readouterr().err
    before = contents(Path(OUT))
    darker = images.copy()
    darker[3, 2, 1] ^= 1
    others = [
        (255 - images[:50], images[50:]),
        (images[:50, ::-1], images[50:]),
        (darker[:50], images[50:]),
        (images[:49], images[49:]),
        (images[:50], images[50:59]),
    ]
    for train, test in others:
        write(train, test)
        error = refuse(*flags, "2", "--resume", "true", fresh=False)
        assert f"--resume: '{OUT}' was trained on other images: 50 train (" in error
        assert f"and these are {len(train)} train (" in error
        assert "give the same ones, or choose another --out" in error
        assert contents(Path(OUT)) == before
    write(images[:50], images[50:])
    assert main([*flags, "2", "--resume", "true", "--out", OUT]) == 0, capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_a_history_that_a_kill_left_behind_is_made_whole(trained: Path) -> None:
    """Also where no epoch is left that would write it."""
    whole = (trained / HISTORY).read_bytes()
    (trained / HISTORY).write_text("")
    assert main([*again(1), "--out", OUT]) == 0
    assert (trained / HISTORY).read_bytes() == whole
