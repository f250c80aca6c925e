"""Random command lines, made from the declared settings: exit code 0, or 2 with a line that tells.

Values are legitimate, at their limits, beyond them, of other types, or nonsense; flags are missing,
given twice or misspelt. What is legitimate is small, so that a run that is accepted takes a moment.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from pyro_infocat import benchmark, categorise, export, run, sample
from pyro_infocat.cli import run_flags
from pyro_infocat.settings import CHECKPOINT, CONFIG, DECLARED, HISTORY, METRICS, ROLES, Settings
from tests.brief import ROOT
from tests.campaigns import children, data, evil
from tests.campaigns.data import OF_TABLE
from tests.campaigns.folders import TINY, torn
from tests.campaigns.kills import PRESET
from tests.campaigns.tally import Tally

USUAL = 500
"""Command lines of a campaign."""

LONGEST = 240.0
"""Seconds after which a command hangs."""

NONSENSE = (
    *("", " ", "nan", "-inf", "1e400", "-1", "0", "9" * 30, "9" * 5000, "0x10", "1_000", "½", "٣"),
    *("\u202e", "a b", "a\nb", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
    *("null", "~", "true", "[]", "{}", "[1", "{a: 1}", "{a: {b: 1}}", "[[0, 1], [0, 2]]", "- 1"),
    *("&a 1", "*a", "!!python/object/apply:os.system [ls]", "x" * 3000, "/dev/zero", "/dev/null"),
    *("..", "/", "~", "nobody/there", "-", "--", "=", "%s", "{}{}", "$(touch canary)", "'", "\\"),
    *("3.7", "1e-320", "-0.0", "1e308", "cuda:99", "mps", "digits", "own.npz", "auto"),
    *("table.csv", "table.npy", "grey", "kind", "-kind", "[]", "[-]", "[:]"),
)
"""Words that fit few flags."""

LARGE = {"epochs", "steps", "start_epochs", "starts", "particles", "nll_samples", "jobs", "number"}
"""What takes as long as it is large: never legitimately large here."""

TABLES = ("table.csv", "table.tsv", "table.parquet", "table.npy")

OF_COLUMNS = (
    *("--data_label kind", "--data_label tame", "--data_columns [length, visits]"),
    *("--data_columns [-animal, -kind]", "--data_columns [visits:category, length]"),
)
FITTING: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((name, OF_COLUMNS) for name in TABLES[:-1]),
    (TABLES[-1], ("--data_columns [x0, x3:real]", "--data_columns [-x1]")),
    ("grey", ("--data_size 8", "--data_size 16")),
)
"""Data, and flags that fit them."""

SMALL: dict[str, tuple[str, ...]] = {
    "epochs": ("1", "2", "auto"),
    "steps": ("1", "20"),
    "start_epochs": ("1",),
    "starts": ("1", "2"),
    "particles": ("1", "2"),
    "nll_samples": ("1", "3"),
    "jobs": ("1", "2"),
    "number": ("1", "2", "7"),
    "batch_size": ("400", "1000", str(2**31 - 1), "auto"),
    "data": ("digits", "own.npz", *TABLES, "grey"),
    "data_size": ("8", "16"),
    "data_label": ("kind", "tame"),
    "data_columns": (
        *("[length, visits]", "[-kind]", "[-animal, -kind]", "[length:count]", "[visits:category]"),
        *("[x0, x3:real]", "[-x1]", "[kind]", "[length, length]", "[nobody]"),
    ),
    "data_on": ("auto", "memory", "disk"),
    "data_root": ("data", "."),
    "device": ("auto", "cpu"),
    "weights": ("{}", "{kl_z: 2}", "{marginal_entropy: 1.5}"),
    "schedules": ("{}", "{kl_z: [[0, 0], [1, 1]]}", "{learning_rate: [[0, 0.01]]}"),
    "compile": ("false",),
    "prior": ("models.priors.Orthogonal", "models.priors.Learned"),
    "likelihood": ("models.likelihoods.Gaussian", "models.likelihoods.ContinuousBernoulli"),
    "decoder": ("models.decoders.MLP",),
    "encoder": ("guides.encoders.MLP",),
    "guide": ("guides.enumerated.Enumerated", "guides.SoftCode"),
    "view": ("pyro_infocat.views.Same", "pyro_infocat.views.Affine"),
    "model": ("models.generative.CatVAE",),
    "reader": ("null",),
    "terms": ("[]",),
    "metrics": ("[]",),
    "figures": ("[]",),
    "config": ("digits", "tiny.yaml"),
    "out": ("out", "out/below"),
    "resume": ("false",),
    "trust": ("os", "mine"),
    "print_config": ("true", "false"),
    "categories": ("0", "3", "9"),
    "reconstruct": ("test", "some.npy"),
    "interpolate": ("0", "9"),
    "seeds": ("0", "1"),
    "results": ("results",),
    "name": ("a row",),
    "readme": ("false",),
    "temperature": ("0", "0.5", "1e6"),
}
"""Legitimate values, where they do not follow from the type."""

ARGUMENTS = (
    *("prior.categories", "prior.delta", "prior.scale", "prior.weights", "encoder.hidden"),
    *("encoder.norm", "decoder.hidden", "guide.hidden", "likelihood.scale", "view.shift"),
    *("weights.kl_z", "weights.consistency", "schedules.kl_z", "prior.nobody", "seed.a"),
)
"""Flags with a point in them."""

SAMPLE, BENCHMARK, CATEGORISE, EXPORT = "sample", "benchmark", "categorise", "export"


def campaign(
    place: Path, numbers: range, random_of: Callable[[int], Random], until: float
) -> Tally:
    """Give so many command lines, or until the time is over."""
    tally, whole = Tally(), _prepare(place)
    for number in numbers:
        if time.monotonic() > until:
            break
        one(place, whole, random_of(number), number, tally)
    return tally


def _prepare(place: Path) -> Path:
    whole = children.emptied(place / "whole")
    (whole / "tiny.yaml").write_text(PRESET.replace("epochs: 12", "epochs: 1\nsteps: 20"))
    random = np.random.default_rng(0)
    np.savez(whole / "own.npz", x_train=random.integers(0, 256, (60, 8, 8), dtype=np.uint8))
    np.save(whole / "some.npy", random.random((4, 8, 8)))
    children.must(lambda: data.write(Path()), whole)
    table = ["--data", "table.csv"]
    for out, flags in (("run", []), (OF_TABLE, table)):
        arguments = [*TINY, *flags, "--epochs", "1", "--out", out]
        children.must(lambda arguments=arguments: run.main(arguments), whole)
    return whole


def one(place: Path, whole: Path, random: Random, number: int, tally: Tally) -> None:
    """Give a command line and see."""
    shutil.rmtree(place / "try", ignore_errors=True)
    shutil.copytree(whole, folder := place / "try")
    evil.bait(folder)
    before = set(folder.rglob("*"))
    command = random.choice((*("run",) * 4, SAMPLE, BENCHMARK, CATEGORISE, CATEGORISE, EXPORT))
    arguments, work = COMMANDS[command](random)
    what = f"{command} {' '.join(map(repr, arguments))}"[:1500]

    def environment() -> None:
        os.environ["PYTHONPATH"] = str(ROOT)
        children.hurried(drawn=False)

    ended = children.done(lambda: work(arguments), folder, environment, LONGEST)
    # What the command line names is the user's own word: its modules are imported.
    own_word = any(evil.MODULE in word for word in arguments)
    if (traces := evil.called(folder)) and not own_word:
        tally.fail(number, what, traces)
        return
    # A benchmark whose run failed says where the run's own words are.
    if command == BENCHMARK and ended.code == 1 and "says why" in ended.complained:
        log = "".join(path.read_text() for path in folder.rglob("seed*.log"))
        if "Traceback" in log or log.count("error: ") == 0:
            tally.fail(number, what, f"a run of it: {log[-600:]}")
        else:
            tally.end("1, a run of a benchmark refused")
        return
    if complaint := children.wrong(ended):
        tally.fail(number, what, complaint)
        return
    after = [
        path for path in folder.rglob("*") if path not in before and path.name != "__pycache__"
    ]
    if ended.code == 2:
        if not names_a_flag(ended.complained, arguments):
            tally.fail(number, what, f"names no flag: {ended.tail()}")
        elif after and command == "run":
            tally.fail(number, what, f"left {after}: {ended.tail()}")
        else:
            tally.end("2")
        return
    complaint = half_made(folder, after, command)
    if complaint:
        tally.fail(number, what, complaint)
    else:
        tally.end("0")


def half_made(folder: Path, after: list[Path], command: str) -> str | None:
    """What is missing or torn of a run that is said to be done."""
    if found := torn(folder):
        return f"torn: {found}"
    for config in after:
        if config.name == CONFIG and "starts" not in config.parts and command == "run":
            wanted = (CHECKPOINT, HISTORY, METRICS)
            missing = [name for name in wanted if not (config.parent / name).exists()]
            if missing:
                return f"{config.parent} lacks {missing}"
    return None


def names_a_flag(line: str, arguments: list[str]) -> bool:
    """Whether a line of error says which of the arguments it is about, or which is missing."""
    flags = {word.partition("=")[0].partition(".")[0] for word in arguments if word[:2] == "--"}
    words = [word for word in arguments if word and word[:2] != "--"]
    told = re.sub(r"\s+", " ", line)
    return (
        any(flag in told for flag in flags)
        or any(word[:40] in told or repr(word)[1:40] in told for word in words)
        or "is missing" in told
        or "must be given" in told
    )


def _of_run(random: Random) -> tuple[list[str], Callable[[list[str]], int]]:
    kinds = get_type_hints(Settings)
    own = dict.fromkeys(run_flags.OWN, str)
    arguments = [*TINY, "--epochs", "1", "--steps", "20"]
    if random.random() < 0.4:
        arguments += _of_data(random)
    arguments += _flags(random, {**kinds, **own})
    if random.random() < 0.9:
        arguments += ["--out", "out"]
    if random.random() < 0.1:
        arguments += ["--out", "run", "--resume", "true"]
    return arguments, run.main


def _of_data(random: Random) -> list[str]:
    """A table or a folder, and what a run may be told of it."""
    name, told = random.choice(FITTING)
    place = random.choice(("auto", "memory", "disk"))
    more = [word for words in told if random.random() < 0.5 for word in words.split(maxsplit=1)]
    return ["--data", name, *more, *(["--data_on", place] if random.random() < 0.5 else [])]


def _of_sample(random: Random) -> tuple[list[str], Callable[[list[str]], int]]:
    kinds = get_type_hints(sample.Options)
    kinds.pop("run")
    return [*_place(random), *_flags(random, kinds)], sample.main


def _place(random: Random) -> list[str]:
    """The folder of a run, or what is none; seldom nothing."""
    if random.random() < 0.03:
        return []
    return [random.choice(NONSENSE if random.random() < 0.1 else ("run", "run", OF_TABLE))]


def _of_categorise(random: Random) -> tuple[list[str], Callable[[list[str]], int]]:
    kinds = get_type_hints(categorise.Options)
    del kinds["run"], kinds["data"]
    place = _place(random)
    fitting = TABLES[:-1] if place == [OF_TABLE] else ("own.npz", "some.npy", "digits", "grey")
    examples = random.choice(fitting if random.random() < 0.8 else (*NONSENSE, *TABLES, "grey"))
    return [*place, examples, *_made(random, ".csv", kinds)], categorise.main


def _of_export(random: Random) -> tuple[list[str], Callable[[list[str]], int]]:
    kinds = get_type_hints(export.Options)
    del kinds["run"]
    return [*_place(random), *_made(random, ".pt2", kinds)], export.main


def _made(random: Random, ending: str, kinds: Mapping[str, Any]) -> list[str]:
    """Flags of a command that writes a file: which, more often than others, and some more."""
    endings = (ending, ending, ".tsv", ".npz", ".onnx", "", ".new")
    out = f"out/made{random.choice(endings)}"
    return [*(["--out", out] if random.random() < 0.6 else []), *_flags(random, kinds)]


def _of_benchmark(random: Random) -> tuple[list[str], Callable[[list[str]], int]]:
    kinds = get_type_hints(benchmark.Options)
    kinds.pop("preset")
    preset = random.choice(("tiny.yaml",) * 6 + ("digits", "", "nobody.yaml", "own.npz"))
    others = [*("--results", "results", "--out", "runs", "--seeds", "0"), *_flags(random, kinds)]
    if random.random() < 0.4:
        others += _flags(random, get_type_hints(Settings))
    return [preset, *others, "--readme", "false"], benchmark.main


COMMANDS: Mapping[str, Callable[[Random], tuple[list[str], Callable[[list[str]], int]]]] = {
    "run": _of_run,
    SAMPLE: _of_sample,
    BENCHMARK: _of_benchmark,
    CATEGORISE: _of_categorise,
    EXPORT: _of_export,
}


def _flags(random: Random, kinds: Mapping[str, Any]) -> list[str]:
    """A few flags with values."""
    words: list[str] = []
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 5))):
        name = random.choice(list(kinds))
        if "seed" in kinds and random.random() < 0.15:
            name = random.choice(ARGUMENTS)
        value = _value(random, name, kinds.get(name))
        if random.random() < 0.04:
            name = random.choice((name[:-1], name + "s", name.upper(), "", ".", name + ".", "é"))
        how = random.random()
        if how < 0.1:
            words.append(f"--{name}={value}")
        elif how < 0.93:
            words += [f"--{name}", *([value, value] if random.random() < 0.03 else [value])]
        else:
            words.append(random.choice((f"--{name}", value, f"-{name}")))
    return words


def _value(random: Random, name: str, kind: Any) -> str:
    """A legitimate value, one at a limit or beyond it, or nonsense."""
    how = random.random()
    if how < 0.3:
        return random.choice(NONSENSE)
    if name in ROLES and how < 0.45:
        _, given = evil.part(random)
        return json.dumps(given) if random.random() < 0.5 else random.choice(evil.CALLS)[0]
    if name in DECLARED and how < 0.6:
        limits = DECLARED[name].metadata["limits"]
        edges = [limit for limit in limits.values() if limit < 1e6 and name not in LARGE]
        edges += [limit - 1 for key, limit in limits.items() if key in ("least", "above")]
        edges += [limit + 1 for key, limit in limits.items() if key in ("most", "below")]
        if edges:
            return f"{random.choice(edges):.12g}"
    if name in SMALL:
        return random.choice(SMALL[name])
    kinds = get_args(kind) if get_origin(kind) is not None else (kind,)
    if kinds and all(isinstance(one, str) for one in kinds):
        return random.choice(kinds)
    if bool in kinds:
        return random.choice(("true", "false"))
    return random.choice(("1", "2", "0.5", "0.1", "3", "[8]"))
