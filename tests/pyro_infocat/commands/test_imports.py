"""``--help`` and whatever can be refused without torch are answered without it."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_infocat.__main__ import main
from tests.brief import ROOT

HEAVY = {"torch", "torchvision", "pyro", "numpy", "scipy", "sklearn", "matplotlib"}


@dataclass(frozen=True)
class Answer:
    """How a command ended, what it said, and what it imported."""

    code: int
    out: str
    err: str
    imported: set[str]


def ask(*words: str) -> Answer:
    """A command in a process of its own, whose imports are listed by Python itself."""
    command = [sys.executable, "-X", "importtime", "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    listed = [line for line in lines if line.startswith("import time:")]
    imported = {line.split("|")[-1].strip() for line in listed}
    said = "\n".join(line for line in lines if line not in listed)
    return Answer(done.returncode, done.stdout, said, imported)


COMMANDS = {
    "pyro_infocat.run": "--information_weight",
    "pyro_infocat.sample": "--temperature",
    "pyro_infocat.export": "--given",
    "pyro_infocat.benchmark": "--seeds",
    "pyro_infocat.tune": "--trials",
    "pyro_infocat run": "--information_weight",
    "pyro_infocat sample": "--temperature",
    "pyro_infocat benchmark": "--seeds",
    "pyro_infocat": "run|sample|categorise|export|benchmark|tune",
}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "flag"), COMMANDS.items(), ids=COMMANDS)
def test_help(command: str, flag: str) -> None:
    answer = ask(*command.split(), "--help")
    assert (answer.code, answer.err) == (0, "")
    assert flag in answer.out
    assert "pyro_infocat.cli.command_line" in answer.imported
    assert not answer.imported & HEAVY


WRONG = {
    "limit": ("run --epochs 0", "error: --epochs 0: must be at least 1"),
    "data": ("run --data nothing", "error: --data: no data set 'nothing'; choose from digits"),
    "flag": ("run --epoch 3", "error: no such flag: --epoch 3; did you mean --epochs?"),
    "preset": ("run --config none.yaml", "error: --config: cannot read 'none.yaml'"),
    "sample's limit": ("sample a --temperature -1", "error: --temperature -1"),
    "sample's pair": (
        "sample a --reconstruct test --interpolate 0 1",
        "error: --reconstruct: does not go with --interpolate",
    ),
    "sample's number": (
        "sample runs/none --number many",
        "error: --number: expected a whole number, not 'many'",
    ),
    "no run": ("sample runs/none", "error: 'runs/none' is not the folder of a run: it has no"),
    "sample without a run": ("sample", "error: RUN is missing: the folder of a run; see --help"),
    "export's ending": (
        "export a --out a.txt",
        "error: --out a.txt: give a name that ends in .pt2 or .onnx",
    ),
    "benchmark's limit": ("benchmark runs/digits.yaml --jobs 0", "error: --jobs 0"),
    "a run's limit": (
        "benchmark runs/digits.yaml --name a --epochs 0",
        "error: --epochs 0: must be at least 1",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_without_torch(line: str, said: str) -> None:
    command, *flags = line.split()
    answer = ask(f"pyro_infocat.{command}", *flags)
    assert answer.code == 2
    assert answer.err.startswith(said)
    assert "\n" not in answer.err
    assert answer.out == ""
    assert "pyro_infocat.cli.command_line" in answer.imported
    assert not answer.imported & HEAVY


@pytest.mark.slow
def test_no_command_and_another() -> None:
    """Of the one command that an installed copy has."""
    none, other = ask("pyro_infocat"), ask("pyro_infocat", "train")
    assert (none.code, other.code) == (2, 2)
    there = "give one of run, sample, categorise, export, benchmark, tune"
    assert none.err == f"error: a command is missing; {there}"
    assert other.err == f"error: no command 'train'; {there}"
    assert not (none.imported | other.imported) & HEAVY


def test_the_commands_of_an_installed_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: which one is called, and with what."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--epochs", "0"]) == 2
    assert main(["sample", "a", "--seed", "-1"]) == 2
    assert main(["benchmark", "--jobs", "0"]) == 2
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "error: --epochs 0: must be at least 1",
        "error: --seed -1: must be at least 0",
        "error: --jobs 0: must be at least 1",
    ]
    commands = "run|sample|categorise|export|benchmark|tune"
    assert captured.out == f"usage: pyro-infocat {commands} ...; each has its own --help\n"
    # Classes of the user's own lie where the command is typed.
    assert sys.path.count(str(tmp_path)) == 1
