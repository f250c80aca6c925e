"""Every command and every piece of code in README.md and docs/ runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import estimators, growth, step_time, studies
from pyro_infocat import benchmark, run, sample
from tests.tiny import write_tiny_mnist

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BRIEF = ["--epochs", "1", "--nll_samples", "2"]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(document: str) -> list[str]:
    return [line for block in blocks(document, "bash") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: the archives are small ones of the real format."""
    folder = tmp_path_factory.mktemp("reader")
    write_tiny_mnist(folder / "data")
    return folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_piece_of_code_runs(
    document: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for code in blocks(document, "python"):
        if code.startswith("# my_"):
            name = code.split("\n")[0].removeprefix("# ")
            (folder / name).write_text(code)
    for command in commands(document):
        assert execute(command, folder) == 0, command
    for code in blocks(document, "python"):
        if not code.startswith("# my_"):
            exec(compile(code, document, "exec"), {})


def execute(command: str, folder: Path) -> int:
    """The exit code of a documented command, made brief."""
    if command.startswith("python3 -m venv"):
        # .ci/run does what comes before the last part, as it stands in the README.
        command = command.split(" && ")[-1]
    words = shlex.split(command)
    match words:
        case ["python", "-m", "pyro_infocat.run", "--config", preset, *flags]:
            # A preset lies in the checkout, the config of a run that came before lies here.
            config = preset if Path(preset).exists() else str(ROOT / preset)
            return run.main(["--config", config, *flags, *BRIEF])
        case ["python", "-m", "pyro_infocat.run", *flags]:
            return run.main([*flags, *BRIEF])
        case ["python", "-m", "pyro_infocat.sample", *flags]:
            return sample.main(flags)
        case ["python", "-m", "pyro_infocat.benchmark", preset, *flags]:
            flags = [flag for flag in flags if flag != "--readme"]
            seeds = ["--seeds", "0", "--results", str(folder / "results"), "--name", "brief"]
            return benchmark.main([str(ROOT / preset), *flags, *seeds, *BRIEF])
        case ["python", "-m", "pytest"]:
            return 0  # This is it.
        case ["python", "-m", module, *flags]:
            whole = [sys.executable, "-m", module, *flags]
            return subprocess.run(whole, check=False, env=found()).returncode
        case ["tensorboard", *flags]:
            whole = [str(Path(sys.executable).with_name("tensorboard")), "--inspect", *flags]
            return subprocess.run(whole, check=False, capture_output=True).returncode
        case ["torchrun", *flags]:
            # A machine of one GPU has none for the second process.
            flags = [*flags, *BRIEF, "--device", "cpu"]
            whole = [str(Path(sys.executable).with_name("torchrun")), *flags]
            return subprocess.run(whole, check=False, env=found()).returncode
    raise AssertionError(f"no test knows how to run: {command}")


def found() -> dict[str, str]:
    """The environment of a process that does not start in the repository."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_ci_runs_the_readmes_test_command() -> None:
    test_command = next(line for line in commands("README.md") if line.endswith("pytest"))
    assert test_command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("name", studies.STUDIES)
def test_tables_of_studies_are_the_committed_results(name: str) -> None:
    assert studies.document(name) == studies.STUDIES[name].document.read_text()


def committed() -> list[tuple[str, str, str]]:
    """Each committed row of a preset: its name, what it was made with, and what is run now."""
    rows = []
    for study in studies.STUDIES.values():
        for file in study.results.glob("*.json"):
            row = json.loads(file.read_text())
            if not isinstance(row, dict) or row.get("preset") in (None, "benchmarks.rivals"):
                continue
            preset, flags = study.preset, [*study.always, *study.rows.get(row["name"], [])]
            if row["name"] not in study.rows:
                preset, flags = ROOT / "runs" / f"{row['name']}.yaml", []
            rows.append((row["name"], row["recipe"], benchmark.recipe(preset, flags)))
    return rows


def test_the_readme_says_how_many_images_and_samples_a_figure_is_of() -> None:
    text = (ROOT / "README.md").read_text()

    def named(before: str, after: str) -> list[str]:
        (rows,) = re.findall(f"{before} in the rows of (.*?), and {after} in the others", text)
        return re.split(", | and ", rows)

    judged, sampled = named("20,000 of them", "1,000"), named("1,000 importance samples", "by 200")
    records = [json.loads(file.read_text()) for file in benchmark.RESULTS.glob("*.json")]
    rows = {record["name"]: record["runs"] for record in records if "runs" in record}
    assert {*judged, *sampled} <= rows.keys()
    for row, runs in rows.items():
        for figures in runs:
            # Runs of before do not say of how many.
            if "generation_accuracy" in figures:
                images = figures.get("generation_samples", 1000)
                assert images == (20_000 if row in judged else 1000), row
            if "nll" in figures:
                assert figures["nll_samples"] == (1000 if row in sampled else 200), row


def test_committed_rows_are_of_the_presets_and_flags_as_they_stand() -> None:
    assert committed()
    for name, made_with, now in committed():
        assert made_with == now, name


def test_tables_of_estimators_and_steps_are_the_committed_results() -> None:
    for document, content in estimators.documents().items():
        text = document.read_text()
        assert text == benchmark.with_table(text, content, "estimators")
    text = step_time.DOCUMENT.read_text()
    assert text == benchmark.with_table(text, step_time.table(), "steps")
    assert text == benchmark.with_table(text, growth.table(), "growth")


def test_code_in_the_documents_is_short() -> None:
    for code in blocks("docs/parts.md", "python"):
        assert len(code.splitlines()) < 30


def test_every_requirement_earns_its_place_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text().split("## What it stands on")[1]
    earned = re.findall(r"[\w-]+", " ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.split(r"[><=]", line)[0] in earned


@pytest.mark.parametrize(
    ("package", "others"),
    [("models", ("guides", "pyro_infocat")), ("guides", ("models", "pyro_infocat"))],
)
def test_models_and_guides_know_nothing_of_each_other(
    package: str, others: tuple[str, ...]
) -> None:
    for file in (ROOT / package).glob("*.py"):
        for line in file.read_text().splitlines():
            imported = re.match(r"\s*(?:import|from) (\w+)", line)
            assert imported is None or imported[1] not in others, f"{file}: {line}"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for link in re.findall(r"\]\(([^)#]+)", text):
            if not link.startswith("http"):
                assert (ROOT / document).parent.joinpath(link).exists(), link
