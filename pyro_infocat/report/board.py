"""What TensorBoard shows of a finished run: figures, hyperparameters beside metrics, and z.

Shapes: N test examples, D latent dimensions.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from pyro_infocat.evaluation.part import Tested
from pyro_infocat.report.thumbnails import pictures, sprite
from pyro_infocat.report.words import ELSEWHERE
from pyro_infocat.settings import MACHINE, Settings
from pyro_infocat.storage.files import replace
from pyro_infocat.storage.folder import RunFolder, flat
from pyro_infocat.training.loop import board_of

MOST_POINTS = 2000
"""Test examples in the projector, evenly taken from all."""

PROJECTOR, PROJECTOR_CONFIG = "projector", "projector_config.pbtxt"


def write(tested: Tested, result: Mapping[str, Any], settings: Settings, folder: RunFolder) -> None:
    """Write it into a run's folder, beside the curves of training.

    :param result: what metrics.json holds.
    :raises OSError: where it cannot be written.
    """
    epochs = len(tested.history)
    with board_of(folder, epochs) as board:
        if board is None:
            return
        for file in sorted((folder.path / "figures").glob("*.png")):
            _figure(board, file, epochs)
        _hyperparameters(board, settings, result, epochs)
    _embedding(tested, folder.path)


def _figure(board: SummaryWriter, file: Path, epoch: int) -> None:
    # add_image would decode the file and encode it anew.
    content = file.read_bytes()
    width, height = Image.open(io.BytesIO(content)).size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
    value = Summary.Value(tag=f"figures/{file.stem}", image=image)
    board._get_file_writer().add_summary(Summary(value=[value]), epoch)


def _hyperparameters(
    board: SummaryWriter, settings: Settings, result: Mapping[str, Any], epoch: int
) -> None:
    """The table of runs. ``add_hparams`` would make a folder of its own, a run without curves."""
    given = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in flat(settings.as_dict()).items()
        if name.partition(".")[0] not in MACHINE and value is not None
    }
    numbers = {
        f"metrics/{name}": value
        for name, value in result.items()
        if name not in ELSEWHERE and isinstance(value, int | float)
    }
    writer = board._get_file_writer()
    for summary in hparams(given, numbers):
        writer.add_summary(summary)
    for name, value in numbers.items():
        board.add_scalar(name, value, epoch)


def _embedding(tested: Tested, out: Path) -> None:
    """z with category and label of each example, and the examples' pictures where they are images.

    ``add_embedding`` would add to what an earlier evaluation of the run left.
    """
    number = min(len(tested.z), MOST_POINTS)
    index = torch.linspace(0, len(tested.z) - 1, number).long()
    facts, there = tested.data.facts, index.to(tested.z.device)
    q = tested.logits[there].softmax(-1).max(-1).values.tolist()
    columns = [index.tolist(), tested.category[there].tolist(), [f"{one:.3f}" for one in q]]
    names = ["example", "category", "q"]
    if facts.classes:
        names.append("label")
        columns.append([_word(facts.classes[y]) for y in tested.labels[there].tolist()])
    place = out / PROJECTOR
    place.mkdir(exist_ok=True)
    lines = (map(str, one) for one in (names, *zip(*columns, strict=True)))
    _write_lines(place / "metadata.tsv", lines)
    _write_lines(place / "z.tsv", ((f"{v:.6g}" for v in z) for z in tested.z[there].tolist()))
    config = ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = "z"
    embedding.tensor_path = f"{PROJECTOR}/z.tsv"
    embedding.metadata_path = f"{PROJECTOR}/metadata.tsv"
    if facts.images:
        images = pictures(tested.data.test.grey(there), facts.shape)
        content = io.BytesIO()
        sprite(images).save(content, "png")
        replace(place / "sprite.png", content.getvalue())
        embedding.sprite.image_path = f"{PROJECTOR}/sprite.png"
        embedding.sprite.single_image_dim.extend(images[0].size)
    # Last, since it names the others.
    replace(out / PROJECTOR_CONFIG, text_format.MessageToString(config).encode())


def _write_lines(path: Path, rows: Any) -> None:
    replace(path, "".join("\t".join(row) + "\n" for row in rows).encode())


def _word(name: str) -> str:
    """A name without what ends a column or a line."""
    return " ".join(name.split())
