"""What TensorBoard reads of a finished run beside its curves."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.tensorboard import SummaryWriter

from pyro_infocat.evaluation import Tested
from pyro_infocat.report import board
from pyro_infocat.storage.folder import RunFolder
from tests.pyro_infocat.report.pieces import SETTINGS, examined, result, sure

FIGURE = (31, 22)


@pytest.fixture
def ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tested:
    """A run of two epochs with the curves of training and a figure."""
    monkeypatch.chdir(tmp_path)
    with SummaryWriter("run") as curves:
        curves.add_scalar("elbo", -3.0, 1)
        curves.add_scalar("elbo", -2.0, 2)
    Path("run/figures").mkdir()
    Image.new("L", FIGURE, 100).save("run/figures/latent.png")
    q = sure([n % 3 for n in range(30)], 3)
    of = examined(q, [n % 2 for n in range(30)], ["on\te", "two\nlines"])
    of.history.extend([{"epoch": 1.0}, {"epoch": 2.0}])
    return of


def read() -> Any:
    events = EventAccumulator("run")
    events.Reload()
    return events


def test_figures_are_images_at_the_last_epoch(ordinary: Tested) -> None:
    board.write(ordinary, result(ordinary), SETTINGS, RunFolder(Path("run")))
    events = read()
    assert events.Tags()["images"] == ["figures/latent"]
    (image,) = events.Images("figures/latent")
    assert (image.step, image.width, image.height) == (2, *FIGURE)
    assert image.encoded_image_string == Path("run/figures/latent.png").read_bytes()


def test_metrics_stand_beside_the_curves_which_stay(ordinary: Tested) -> None:
    found = result(ordinary)
    board.write(ordinary, found, SETTINGS, RunFolder(Path("run")))
    events = read()
    assert [(one.step, one.value) for one in events.Scalars("elbo")] == [(1, -3.0), (2, -2.0)]
    for name in ("accuracy", "elbo", "own"):
        (point,) = events.Scalars(f"metrics/{name}")
        assert (point.step, point.value) == (2, pytest.approx(found[name]))
    names = {name for name in events.Tags()["scalars"] if name.startswith("metrics/")}
    assert not names & {"metrics/seed", "metrics/device", "metrics/versions"}
    # A run of its own beside this one would have no curves.
    assert not [path for path in Path("run").iterdir() if path.is_dir()
                and path.name not in ("figures", "projector")]  # fmt: skip


def of_the_plugin(tag: str) -> Any:
    metadata = read().SummaryMetadata(tag)
    return HParamsPluginData.FromString(metadata.plugin_data.content)


def test_hyperparameters_are_the_settings_and_name_the_metrics(ordinary: Tested) -> None:
    board.write(ordinary, result(ordinary), SETTINGS, RunFolder(Path("run")))
    begun = of_the_plugin("_hparams_/session_start_info").session_start_info
    assert begun.hparams["prior.class_path"].string_value == "models.priors.Orthogonal"
    assert begun.hparams["learning_rate"].number_value == 1e-3
    assert not begun.hparams["compile"].bool_value
    assert not {"device", "data_root"} & set(begun.hparams)
    experiment = of_the_plugin("_hparams_/experiment").experiment
    named = {info.name.tag for info in experiment.metric_infos}
    assert named == {name for name in read().Tags()["scalars"] if name.startswith("metrics/")}


def lines(name: str) -> list[list[str]]:
    return [line.split("\t") for line in Path("run/projector", name).read_text().splitlines()]


def config() -> Any:
    text = Path("run/projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, ProjectorConfig()).embeddings
    return embedding


def test_the_projector_has_z_with_categories_labels_and_pictures(ordinary: Tested) -> None:
    board.write(ordinary, result(ordinary), SETTINGS, RunFolder(Path("run")))
    embedding = config()
    for path in (embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path):
        assert Path("run", path).is_file()
    z = torch.tensor([[float(word) for word in line] for line in lines("z.tsv")])
    torch.testing.assert_close(z, ordinary.z, rtol=1e-5, atol=1e-6)
    head, *rows = lines("metadata.tsv")
    assert head == ["example", "category", "q", "label"]
    assert rows == [[str(n), str(n % 3), "0.980", ["on e", "two lines"][n % 2]] for n in range(30)]
    width, height = embedding.sprite.single_image_dim
    with Image.open(Path("run", embedding.sprite.image_path)) as sheet:
        # As the projector cuts it: as many pictures across as down.
        across = sheet.width // width
        assert across**2 >= 30
        for n in (0, 7, 29):
            left, top = n % across * width, n // across * height
            cut = sheet.crop((left, top, left + width, top + height))
            assert list(cut.tobytes()) == (255 - ordinary.data.test.pixels[n]).tolist()


def test_of_many_examples_some_from_everywhere_are_shown(
    ordinary: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "MOST_POINTS", 4)
    board.write(ordinary, result(ordinary), SETTINGS, RunFolder(Path("run")))
    assert [row[0] for row in lines("metadata.tsv")[1:]] == ["0", "9", "19", "29"]
    assert len(lines("z.tsv")) == 4


def test_evaluated_again_a_run_has_one_projection(ordinary: Tested) -> None:
    """A resumed run writes into the same folder."""
    for _ in range(2):
        board.write(ordinary, result(ordinary), SETTINGS, RunFolder(Path("run")))
    assert config().tensor_name == "z"
    assert len(lines("z.tsv")) == 30


def test_what_is_no_image_has_no_picture(ordinary: Tested) -> None:
    from tests.pyro_infocat.report.test_page import rows

    board.write(rows((), torch.zeros(2, 3)), result(ordinary), SETTINGS, RunFolder(Path("run")))
    assert not config().HasField("sprite")
    assert lines("metadata.tsv")[0] == ["example", "category", "q"]


def test_a_colour_picture_keeps_its_colours() -> None:
    from pyro_infocat.report.thumbnails import pictures, sprite

    # A red dot and a green one: all of a channel lies together in x.
    (both,) = pictures(torch.tensor([[1.0, 0, 0, 1, 0, 0]]), (3, 1, 2))
    red, green = (255, 0, 0), (0, 255, 0)
    assert (both.getpixel((0, 0)), both.getpixel((1, 0))) == (red, green)
    content = io.BytesIO()
    sprite([both, both]).save(content, "png")
    with Image.open(content) as sheet:
        assert sheet.size == (4, 2)
        assert (sheet.getpixel((3, 0)), sheet.getpixel((0, 1))) == (green, (255, 255, 255))
