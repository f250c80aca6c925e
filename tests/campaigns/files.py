"""Files that are damaged, cut short, extended or others: one line, or exactly right.

Where a file is taken though it was changed, what is read is either what was read before, and then
the result is the same to the bit, or a legitimate other value: a pixel, a setting.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import torch
import yaml
from PIL import Image

import pyro_infocat
from pyro_infocat import categorise, export, run, sample
from pyro_infocat.errors import UserError
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY, METRICS
from tests.campaigns import children, damage, data, evil
from tests.campaigns.data import OF_TABLE
from tests.campaigns.folders import TINY
from tests.campaigns.kills import PRESET
from tests.campaigns.tally import Tally
from tests.runs import timeless
from tests.tiny import write_tiny_mnist

USUAL = 2000
"""Files of a campaign."""

LONGEST = 120.0
"""Seconds after which a command hangs."""

RUN, RESULT = "run", "result.json"
OF_FOLDER = "run-of-folder"
"""A run that ``categorise`` is given pictures for."""

PASSED_OVER = re.compile("is no setting of this version and was passed over|it was passed over")
"""What may be said beside a result: it is documented of a config of another version."""

IMAGES = "MNIST/raw/train-images-idx3-ubyte"


QUICK = ("load", "sample", "history", "metrics", "reconstruct", "interpolate")
"""Reads that take a moment, which are tried more often."""


class Read(NamedTuple):
    """A file, and a command that reads it.

    :ivar file: relative to the folder of a try.
    :ivar work: returns the exit code, and writes what came out to RESULT.
    :ivar kind: which of the ways of changing it there are.
    """

    name: str
    file: str
    work: Callable[[], int]
    kind: str = "binary"


def result(value: object) -> int:
    """Write what came out."""
    Path(RESULT).write_text(json.dumps(value, default=str))
    return 0


def in_python(work: Callable[[], object]) -> Callable[[], int]:
    """Something in Python that raises UserError, as a command."""

    def command() -> int:
        try:
            value = work()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return result(value)

    return command


def weights(folder: str | Path) -> Any:
    """A number that stands for a run's weights, and its settings."""
    held = pyro_infocat.load(folder)
    content = io.BytesIO()
    for part in (held.model, held.guide):
        for value in part.state_dict().values():
            content.write(value.numpy().tobytes())
    return hashlib.md5(content.getvalue()).hexdigest(), held.facts


def sampled(*flags: str) -> Callable[[], int]:
    """``sample`` with these flags, and a number that stands for its arrays."""

    def command() -> int:
        code = sample.main([RUN, "--device", "cpu", "--out", "made", *(flags or ["--number", "2"])])
        if code:
            return code
        (path,) = Path("made").glob("*.npz")
        with np.load(path) as arrays:
            return result({name: _digest(arrays[name].tobytes()) for name in arrays.files})

    return command


def trained(*flags: str, out: str = "out") -> Callable[[], int]:
    """``run`` with these flags, and its history and figures."""

    def command() -> int:
        children.hurried(drawn=False)
        code = run.main([*flags, "--out", out])
        if code:
            return code
        rows = [timeless(json.loads(row)) for row in Path(out, HISTORY).read_text().splitlines()]
        return result([rows, timeless(json.loads(Path(out, METRICS).read_text()))])

    return command


def categorised(folder: str, examples: str) -> Callable[[], int]:
    """``categorise`` of some data by a run, and its table."""

    def command() -> int:
        few = ("--nll_samples", "1", "--device", "cpu", "--out", "made.csv")
        return categorise.main([folder, examples, *few]) or result(Path("made.csv").read_text())

    return command


def exported(folder: str) -> Callable[[], int]:
    """``export`` of a run, and a number that stands for what the program makes of examples."""

    def command() -> int:
        if code := export.main([folder, "--out", "made.pt2"]):
            return code
        with warnings.catch_warnings():
            # What PyTorch deprecates in itself.
            warnings.simplefilter("ignore")
            program = torch.export.load("made.pt2")
        made = program.module()(*program.example_inputs[0])
        return result([_digest(one.detach().numpy().tobytes()) for one in made])

    return command


def of_data(file: str, *flags: str) -> Callable[[], int]:
    """A run of an epoch on a file, or on the folder that it is in."""
    return trained(*TINY, *flags, "--data", file.partition("/")[0], *ONE)


RESUME = ("--resume", "true", "--epochs", "2", "--device", "cpu", "--nll_samples", "1")
ONE = ("--epochs", "1", "--starts", "1")
LABELLED = ("--data_label", "kind")
ON_DISK = ("--data_on", "disk")
FOLDER = data.flags("folder")
PNG, JPEG = "photos/a/000.png", "photos/b/other.jpg"

READS = (
    Read("load", f"{RUN}/{CHECKPOINT}", in_python(lambda: weights(RUN)), "checkpoint"),
    Read("sample", f"{RUN}/{CHECKPOINT}", sampled(), "checkpoint"),
    Read("resume", f"{RUN}/{CHECKPOINT}", trained(*RESUME, out=RUN), "checkpoint"),
    Read("load", f"{RUN}/{CONFIG}", in_python(lambda: weights(RUN)), "config"),
    Read("sample", f"{RUN}/{CONFIG}", sampled(), "config"),
    Read("resume", f"{RUN}/{CONFIG}", trained(*RESUME, out=RUN), "config"),
    Read("--config", "tiny.yaml", trained("--config", "tiny.yaml", *ONE), "config"),
    Read("history", f"{RUN}/{HISTORY}", in_python(lambda: pyro_infocat.load(RUN).history), "text"),
    Read("metrics", f"{RUN}/{METRICS}", in_python(lambda: pyro_infocat.load(RUN).metrics), "text"),
    Read("resume", f"{RUN}/{HISTORY}", trained(*RESUME, out=RUN), "text"),
    Read("--data", "own.npz", trained(*TINY, "--data", "own.npz", *ONE)),
    Read("reconstruct", "some.npz", sampled("--reconstruct", "some.npz")),
    Read("reconstruct", "some.npy", sampled("--reconstruct", "some.npy")),
    Read("reconstruct", "some.png", sampled("--reconstruct", "some.png")),
    Read("interpolate", "some.png", sampled("--interpolate", "0", "some.png")),
    Read("mnist", f"data/{IMAGES}", trained(*TINY, "--data", "mnist", *ONE)),
    Read("mnist", f"data/{IMAGES.replace('images-idx3', 'labels-idx1')}",
         trained(*TINY, "--data", "mnist", *ONE)),
    Read("mnist", f"data/{IMAGES}.gz", trained(*TINY, "--data", "mnist", *ONE)),
    Read("--data", "table.csv", of_data("table.csv", *LABELLED), "table"),
    Read("--data", "table.tsv", of_data("table.tsv", *LABELLED), "table"),
    Read("--data", "table.parquet", of_data("table.parquet", *LABELLED)),
    Read("--data", "table.npy", of_data("table.npy")),
    Read("from disk", "table.parquet", of_data("table.parquet", *LABELLED, *ON_DISK)),
    Read("from disk", "table.npy", of_data("table.npy", *ON_DISK)),
    Read("--data", PNG, of_data("photos", *FOLDER, "--data_on", "memory")),
    Read("--data", JPEG, of_data("photos", *FOLDER, "--data_on", "memory")),
    Read("from disk", PNG, of_data("photos", *FOLDER)),
    Read("from disk", JPEG, of_data("photos", *FOLDER)),
    Read("categorise", "table.csv", categorised(OF_TABLE, "table.csv"), "table"),
    Read("categorise", "table.tsv", categorised(OF_TABLE, "table.tsv"), "table"),
    Read("categorise", "table.parquet", categorised(OF_TABLE, "table.parquet")),
    Read("categorise", "some.npy", categorised(RUN, "some.npy")),
    Read("categorise", PNG, categorised(OF_FOLDER, "photos")),
    Read("categorise", JPEG, categorised(OF_FOLDER, "photos")),
    Read("categorise", JPEG, categorised(OF_FOLDER, JPEG)),
    Read("categorise", f"{RUN}/{CHECKPOINT}", categorised(RUN, "some.npy"), "checkpoint"),
    Read("categorise", f"{OF_TABLE}/{CHECKPOINT}", categorised(OF_TABLE, "table.csv"),
         "checkpoint"),
    Read("export", f"{RUN}/{CHECKPOINT}", exported(RUN), "checkpoint"),
    Read("export", f"{OF_TABLE}/{CHECKPOINT}", exported(OF_TABLE), "checkpoint"),
)  # fmt: skip

ORDER = tuple(read for read in READS for _ in range(3 if read.name in QUICK else 1))
"""The reads of the tries, in turn."""


def prepare(place: Path) -> Path:
    """A folder with a whole file of each kind."""
    whole = children.emptied(place / "whole")
    random = np.random.default_rng(0)
    bytes_ = random.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    np.savez(whole / "some.npz", bytes_ % 17)
    np.save(whole / "some.npy", random.random((4, 8, 8)))
    Image.fromarray(bytes_[0]).save(whole / "some.png")
    pixels = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(whole / "own.npz", x_train=pixels, y_train=labels, classes=["a", "b", "c"])
    (whole / "tiny.yaml").write_text(PRESET)
    write_tiny_mnist(whole / "data", 60, 30)
    children.must(lambda: data.write(Path()), whole)
    table = [*LABELLED, "--data", "table.csv"]
    for out, flags in ((RUN, []), (OF_TABLE, table), (OF_FOLDER, FOLDER)):
        arguments = [*TINY, *flags, "--epochs", "1", "--out", out]
        children.must(lambda arguments=arguments: run.main(arguments), whole)
    return whole


def pack(whole: Path) -> None:
    """Let torchvision know the tiny archives by their checksums, instead of the real ones."""
    from torchvision import datasets

    resources = []
    for file, _ in datasets.MNIST.resources:
        unpacked = whole / "data" / "MNIST" / "raw" / file.removesuffix(".gz")
        content = gzip.compress(unpacked.read_bytes(), mtime=0)
        (unpacked.parent / file).write_bytes(content)
        resources.append((file, hashlib.md5(content).hexdigest()))
    datasets.MNIST.resources = resources


def campaign(
    place: Path, numbers: range, random_of: Callable[[int], Random], until: float
) -> Tally:
    """Change a file and have it read, so many times or until the time is over."""
    tally, whole = Tally(), prepare(place)
    pack(whole)
    others = [path.read_bytes() for path in sorted(whole.rglob("*")) if path.is_file()]
    others += [
        b"",
        b"\0" * 1000,
        b"PK\5\6" + b"\0" * 18,
        b"\x1f\x8b",
        b"\x89PNG\r\n\x1a\n",
        b"\x80\2.",
    ]
    alone: dict[Read, Any] = {}
    for number in numbers:
        if time.monotonic() > until:
            break
        read = ORDER[number % len(ORDER)]
        if read not in alone:
            ended = children.done(read.work, _copy(place, whole, read), longest=LONGEST)
            if ended.code or children.wrong(ended):
                raise RuntimeError(f"{read.name} of {read.file}: {ended.tail()}")
            alone[read] = json.loads((place / "try" / RESULT).read_text())
        one(place, whole, read, random_of(number), others, alone[read], number, tally)
    return tally


def _copy(place: Path, whole: Path, read: Read) -> Path:
    """A folder of its own for a try."""
    shutil.rmtree(place / "try", ignore_errors=True)
    shutil.copytree(whole, place / "try")
    evil.bait(place / "try")
    if read.file.endswith(".gz"):
        for path in (place / "try" / "data").rglob("*-ubyte"):
            path.unlink()
    elif read.name == "mnist":
        for path in (place / "try" / "data").rglob("*.gz"):
            path.unlink()
    return place / "try"


def one(
    place: Path,
    whole: Path,
    read: Read,
    random: Random,
    others: list[bytes],
    alone: Any,
    number: int,
    tally: Tally,
) -> None:
    """Change a file, have it read, and see."""
    folder = _copy(place, whole, read)
    path = folder / read.file
    content, kind = path.read_bytes(), read.kind
    ways: list[Callable[[bytes, Random], bytes]] = [
        *(damage.flipped, damage.flipped, damage.cut, damage.extended, damage.block),
        damage.another(others),
    ]
    if kind == "table":
        ways += [damage.refilled] * 6
    if kind in ("text", "config"):
        ways += [damage.reworded] * 6
    if kind == "config":
        ways += [malicious] * 6
    if kind == "checkpoint":
        ways += [other_values] * 6
    way = random.choice(ways)
    changed = way(content, random)
    path.write_bytes(changed)
    what = f"{read.name} of {read.file} {getattr(way, '__name__', 'replaced')}"
    ended = children.done(read.work, folder, longest=LONGEST)
    # A file given by --config is the user's own word: its modules are imported.
    own_word = read.name == "--config" and evil.MODULE.encode() in changed
    if (traces := evil.called(folder)) and not own_word:
        tally.fail(number, what, traces)
        return
    if complaint := children.wrong(ended):
        tally.fail(number, what, complaint)
        return
    if ended.code == 2:
        tally.end("refused")
        return
    if more := [line for line in ended.complained.splitlines() if not PASSED_OVER.search(line)]:
        tally.fail(number, what, f"said beside the result: {more}")
        return
    same = json.loads((folder / RESULT).read_text()) == alone
    if not same and alike(content, changed, read, folder):
        tally.fail(number, what, "the same values gave another result")
        return
    tally.end("taken, the same" if same else "taken as another value")


def malicious(content: bytes, random: Random) -> bytes:
    """A config that names what it must not."""
    values = yaml.safe_load(content)
    role, given = evil.part(random)
    return yaml.safe_dump(values | {role: given}).encode()


def other_values(content: bytes, random: Random) -> bytes:
    """A checkpoint with another value somewhere, as torch would write it."""
    held = torch.load(io.BytesIO(content), weights_only=True)
    place: Any = held
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = random.choice(keys)
        if not (isinstance(place[key], dict | list) and place[key] and random.random() < 0.9):
            break
        place = place[key]
    if isinstance(place, tuple):
        return damage.flipped(content, random)
    if isinstance(place[key], torch.Tensor) and random.random() < 0.8:
        place[key] = _other_tensor(place[key], random)
    else:
        place[key] = random.choice(
            (None, -1, 10**9, 10**400, 0.5, float("nan"), "a\0", "", [], {}, (1, 2), True, 2j,
             torch.zeros(0), torch.zeros(3), b"a")
        )  # fmt: skip
    to = io.BytesIO()
    torch.save(held, to)
    return to.getvalue()


def _other_tensor(value: torch.Tensor, random: Random) -> torch.Tensor:
    kinds = (
        *(torch.complex64, torch.bool, torch.float16, torch.float64, torch.int64, torch.uint8),
        *(torch.bfloat16, torch.complex128),
    )
    changed = value.clone()
    if changed.numel() and random.random() < 0.3:
        number = random.choice((float("nan"), float("inf"), -1.0, 1e30, 0.0))
        if not changed.is_floating_point():
            number = 1
        changed.view(-1)[random.randrange(changed.numel())] = number
        return changed
    return random.choice((
        lambda: value.to(random.choice(kinds)),
        lambda: value.reshape(-1),
        lambda: value.unsqueeze(0),
        lambda: value[..., :1] if value.dim() else value,
        lambda: value.to_sparse() if value.dim() else value,
        lambda: torch.zeros(1).expand(value.shape),
        lambda: value.T if value.dim() == 2 else value,
        lambda: torch.empty(value.shape, device="meta"),
    ))()  # fmt: skip


def alike(one: bytes, other: bytes, read: Read, folder: Path) -> bool:
    """Whether two files say the same. A child looks, which what reads them may end."""
    return not children.done(lambda: meaning(one, read) != meaning(other, read), folder).code


def meaning(content: bytes, read: Read) -> Any:
    """What a file says, by another reader than the project's; None where it says nothing."""
    try:
        return _meaning(content, read)
    except Exception:
        return None


def _meaning(content: bytes, read: Read) -> Any:
    suffix = Path(read.file).suffix
    if suffix == ".yaml":
        return repr(yaml.safe_load(content))
    if suffix in (".npz", ".npy"):
        held = np.load(io.BytesIO(content))
        named = dict(held) if suffix == ".npz" else {"": held}
        return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in named.items()}
    if suffix in (".png", ".jpg"):
        with Image.open(io.BytesIO(content)) as image:
            said = dict(image.getexif()), image.info.get("transparency")
            return image.mode, image.size, image.tobytes(), said
    if suffix in (".csv", ".tsv"):
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        return list(csv.reader(text, delimiter="\t" if suffix == ".tsv" else ","))
    if suffix == ".parquet":
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        return repr((table.schema, table.schema.metadata, table.to_pydict()))
    if suffix == ".pt":
        held = torch.load(io.BytesIO(content), weights_only=True)
        return _digest(repr(_listed(held)).encode())
    if suffix == ".gz":
        return gzip.decompress(content)
    return content


def _listed(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return [(key, _listed(one)) for key, one in value.items()]
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _digest(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()
