"""README.md and docs/: what they show runs, what is generated is up to date, links lead somewhere.

No sentence is looked at, so every text may be reworded.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from benchmarks import documents
from benchmarks.tables import TABLES
from pyro_infocat import benchmark, export, run, sample, tune
from pyro_infocat.cli.markdown import with_table
from pyro_infocat.evaluation import figures
from tests.brief import judge_little
from tests.tiny import write_tiny_mnist

ROOT = Path(__file__).resolve().parents[1]
PAGES = [str(page.relative_to(ROOT)) for page in documents.documents()]
BRIEF = ["--epochs", "1", "--nll_samples", "2"]


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def lines(page: str) -> list[str]:
    """Every documented command."""
    text = "".join(code for language, code in blocks(page) if language == "bash")
    return [line for line in text.replace("\\\n", "").splitlines() if line]


# What they show.


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_piece_of_code_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, in a folder of a reader of that page alone."""
    write_tiny_mnist(tmp_path / "data")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Most of a brief run is the classifier of generated images, and the figures of every run.
    judge_little(monkeypatch)
    draw = figures.draw
    monkeypatch.setattr(figures, "draw", lambda tested, out, own=(): own and draw(tested, out, own))
    for name, code in files(page):
        (tmp_path / name).write_text(code)
    with torch.random.fork_rng(devices=[]):
        for language, code in blocks(page):
            if language == "bash":
                for line in code.replace("\\\n", "").splitlines():
                    assert not line or execute(line, tmp_path) == 0, line
            elif language == "python" and not code.startswith("# my_"):
                exec(compile(code, page, "exec"), {})
    pyro.enable_validation(True)
    pyro.clear_param_store()


def files(page: str) -> list[tuple[str, str]]:
    """The files that a reader is told to save: their first line is a comment with their name."""
    python = (code for language, code in blocks(page) if language == "python")
    return [(code.split("\n")[0].removeprefix("# "), code) for code in python
            if code.startswith("# my_")]  # fmt: skip


def execute(line: str, folder: Path) -> int:
    """The exit code of a documented command, made brief; 0 where it is not for a test to run."""
    # What makes an environment comes first; .ci/run does that.
    words = shlex.split(line.split(" && ")[-1], comments=True)
    match words:
        case ["pyro-infocat", command, *flags]:
            return execute(shlex.join(["python", "-m", f"pyro_infocat.{command}", *flags]), folder)
        case ["python", "-m", "pyro_infocat.run", "--config", preset, *flags]:
            # A preset lies in the checkout, the config of a run that came before lies here.
            there = Path(preset).exists() or "." not in preset
            config = preset if there else str(ROOT / preset)
            return run.main(["--config", config, *flags, *BRIEF])
        case ["python", "-m", "pyro_infocat.run", *flags]:
            return run.main([*flags, *BRIEF])
        case ["python", "-m", "pyro_infocat.sample", *flags]:
            return sample.main(flags)
        case ["python", "-m", "pyro_infocat.export", *flags]:
            return export.main(flags)
        case ["python", "-m", "pyro_infocat.benchmark", preset, *flags]:
            flags = [flag for flag in flags if flag != "--readme"]
            seeds = ["--seeds", "0", "--results", str(folder / "results"), "--name", "brief"]
            return benchmark.main([str(ROOT / preset), *flags, *seeds, *BRIEF])
        case ["python", "-m", "pytest", file] if (folder / file).exists():
            return process([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file])
        case ["python", "-m", "pytest", *_] | ["ruff" | "mypy" | "git" | "cd", *_]:
            return 0
        case ["pip", "install", *what]:
            return 0 if all((ROOT / one).exists() for one in what if one[0] != "-") else 1
        case ["python", "-m", "pyro_infocat.tune", *flags]:
            return tune.main([*flags, *BRIEF, "--trials", "2"])
        case ["python", "-m", module, *_] if module.startswith(("benchmarks.", "pyro_infocat.")):
            # They write the documents, or take hours.
            return 0 if importlib.util.find_spec(module) else 1
        case ["python", "-m", module, *flags]:
            return process([sys.executable, "-m", module, *flags])
        case ["tensorboard", *flags]:
            return process(
                [str(Path(sys.executable).with_name("tensorboard")), "--inspect", *flags]
            )
        case ["torchrun", *flags]:
            # A machine of one GPU has none for the second process.
            flags = [*flags, *BRIEF, "--device", "cpu"]
            return process([str(Path(sys.executable).with_name("torchrun")), *flags])
    raise AssertionError(f"no test knows how to run: {line}")


def process(command: list[str]) -> int:
    """The exit code of a process that does not start in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    return done.returncode


def test_there_are_commands_and_code_to_run() -> None:
    assert any("pyro_infocat.run" in line for line in lines("README.md"))
    assert any(language == "python" for language, _ in blocks("README.md"))
    assert len(files("docs/parts.md")) > 3


def test_a_command_that_nobody_knows_is_no_command(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no test knows how to run: make tea"):
        execute("make tea", tmp_path)
    assert execute("python -m benchmarks.no_such_module", tmp_path) == 1
    assert execute("python3 -m venv .venv && pip install -r no_such_file.txt", tmp_path) == 1


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [line for line in lines("README.md") if line.endswith("python -m pytest")]
    assert command in (ROOT / ".ci/run").read_text()


# What is generated.


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_what_is_committed_and_declared(page: str) -> None:
    """Those of results, of studies, of measurements, and docs/settings.md.

    A mark is no difference: who edits a preset need not write the tables anew. That a row is
    marked then is for tests/test_studies.py and the benchmark's own tests.
    """
    text = (ROOT / page).read_text()
    for name in documents.names(ROOT / page):
        now = with_table(text, TABLES[name](ROOT / page), name)
        assert unmarked(now) == unmarked(text), f"{page}: {name}; run python -m benchmarks.tables"


def test_every_table_has_a_place() -> None:
    assert {name for page in PAGES for name in documents.names(ROOT / page)} == set(TABLES)


MARKS = f"{benchmark.CHANGED}{benchmark.MIXED}"


def unmarked(text: str) -> str:
    """A document without the marks in its tables, and without what they mean."""
    return re.sub(f" [{MARKS}](?= )", "", re.sub(f"\n\n[{MARKS}] .*(?=\n<!--)", "", text))


def test_a_mark_is_no_difference_and_a_figure_is_one() -> None:
    row, note = "| mnist | 10 | 0.991 |", benchmark.NOTES[benchmark.CHANGED]
    marked = row.replace("mnist", f"mnist {benchmark.CHANGED} {benchmark.MIXED}")
    explained = f"{marked}\n\n{benchmark.CHANGED} {note}."
    before, after = (with_table("<!-- results: begin --><!-- results: end -->", text)
                     for text in (row, explained))  # fmt: skip
    assert before != after
    assert unmarked(before) == unmarked(after)
    assert unmarked(before) != unmarked(before.replace("0.991", "0.992"))


# Their form.


def test_code_that_writes_a_part_is_short() -> None:
    for name, code in files("docs/parts.md"):
        assert len(code.splitlines()) < 30, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


def test_every_requirement_is_accounted_for() -> None:
    """Each is the first cell of a row of a table in docs/architecture.md, or one word of it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"[\w-]+", " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)))
    required = [line for line in (ROOT / "requirements.txt").read_text().splitlines()
                if line and not line.startswith("#")]  # fmt: skip
    assert len(required) > 5
    assert {re.split(r"[><=]", line)[0] for line in required} <= set(named)


LINKED = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if not link.startswith("http"):
            assert leads_somewhere(ROOT / page, link), f"{page}: {link}"


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not heading or heading in headings(target))


def headings(page: Path) -> list[str]:
    """What links call the headings of a page, as GitHub does."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found]


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Of `q(c|x)`, twice\n\n```bash\n# a comment\n```\n")
    assert leads_somewhere(page, "#of-qcx-twice")
    assert leads_somewhere(page, "page.md")
    assert not leads_somewhere(page, "page.md#a-comment")
    assert not leads_somewhere(page, "other.md#of-qcx-twice")
