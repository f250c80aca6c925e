"""Installed copies: what a wheel holds, and whose ``models`` and ``guides`` are imported."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from pyro_infocat import places
from pyro_infocat.version import __version__

HERE = Path(__file__).resolve().parents[1]
BUILT_FROM = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "requirements.txt", "README.md", "LICENSE"),
    *("pyro_infocat", "models", "guides", "runs"),
)
OUTPUTS = ("digits/seed0/config.yaml", "digits/seed0/checkpoint.pt", "digits/flags.json")
FOUND = """
import importlib.util, sys
from pyro_infocat.places import CHECKOUT, ROOT, make_importable
make_importable()
make_importable()
for name in ("models", "guides"):
    print(importlib.util.find_spec(name).origin)
"""


def python(
    *arguments: str, path: Sequence[Path | str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Python without site-packages and its .pth files, where this project may be installed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    command = [sys.executable, "-S", "-W", "error", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def printed(*arguments: str, path: Sequence[Path | str], cwd: Path) -> list[str]:
    process = python(*arguments, path=path, cwd=cwd)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def package(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    return folder


@pytest.fixture(params=["installed", "checkout"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Empty packages as they lie in an installed copy or in a checkout, and places.py."""
    folder = package(tmp_path / "copy", "pyro_infocat")
    shutil.copy(places.__file__, folder / "pyro_infocat")
    package(root(folder, request.param), "models", "guides")
    return folder


def root(copy: Path, layout: str | None = None) -> Path:
    """Where the packages are that must be imported."""
    bundled = copy / "pyro_infocat" / "bundled"
    return bundled if layout == "installed" or bundled.is_dir() else copy


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def files(copy: Path) -> list[str]:
    return [str(root(copy) / name / "__init__.py") for name in places.NAMES]


def test_a_checkout_is_recognised() -> None:
    assert places.CHECKOUT == places.ROOT == HERE
    assert (places.PRESETS / "digits.yaml").samefile(HERE / "runs" / "digits.yaml")
    for name in places.NAMES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin == str(HERE / name / "__init__.py")


def test_an_installed_copy_is_recognised(copy: Path, elsewhere: Path) -> None:
    code = "from pyro_infocat import places as p; print(p.CHECKOUT, p.ROOT, p.PRESETS, sep='\\n')"
    installed = root(copy) != copy
    assert printed("-c", code, path=[copy], cwd=elsewhere) == [
        "None" if installed else str(copy),
        str(root(copy)),
        str(copy / "pyro_infocat" / "presets" if installed else copy / "runs"),
    ]


def test_both_are_found(copy: Path, elsewhere: Path) -> None:
    assert printed("-c", FOUND, path=[copy], cwd=elsewhere) == files(copy)


def test_the_path_grows_at_its_end_and_once_at_most(copy: Path, elsewhere: Path) -> None:
    code = "import sys; before = sys.path[:]" + FOUND + "print(sys.path == before + sys.argv[1:])"
    added = [str(root(copy))] if root(copy) != copy else []
    assert printed("-c", code, *added, path=[copy], cwd=elsewhere)[-1] == "True"


def test_the_path_stays_where_both_are_imported(copy: Path, elsewhere: Path) -> None:
    code = "import sys, models, guides; before = sys.path[:]" + FOUND + "print(sys.path == before)"
    assert printed("-c", code, path=[copy, root(copy)], cwd=elsewhere)[-1] == "True"


def test_a_package_found_without_its_checkout_on_the_path_adds_it(
    copy: Path, elsewhere: Path
) -> None:
    # As a finder does, which an editable install may have put behind the path.
    code = f"import sys, pyro_infocat.places; sys.path.remove({str(copy)!r})" + FOUND
    assert printed("-c", code, path=[copy], cwd=elsewhere) == files(copy)


@pytest.mark.parametrize("name", places.NAMES)
def test_a_folder_without_init_hides_nothing(copy: Path, elsewhere: Path, name: str) -> None:
    (elsewhere / name).mkdir()
    (elsewhere / name / "priors.py").touch()
    seen = f"import importlib.util; print(importlib.util.find_spec({name!r}).origin)"
    assert printed("-c", seen, path=[], cwd=elsewhere) == ["None"]
    assert printed("-c", FOUND, path=[copy], cwd=elsewhere) == files(copy)


@pytest.mark.parametrize("name", places.NAMES)
@pytest.mark.parametrize("file", ["{}.py", "{}/__init__.py"])
def test_another_package_in_front_is_named_in_one_line(
    copy: Path, elsewhere: Path, name: str, file: str
) -> None:
    other = elsewhere / file.format(name)
    other.parent.mkdir(exist_ok=True)
    other.touch()
    process = python("-c", FOUND, path=[elsewhere, copy], cwd=copy.parent)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        f"ImportError: another package '{name}' lies in front of pyro_infocat's on sys.path: "
        f"'{other}'; pyro_infocat's dotted paths models.* and guides.* need that name: rename the "
        "other, or start where it is not on the path"
    )


def test_another_package_behind_is_none_of_our_business(copy: Path, elsewhere: Path) -> None:
    package(elsewhere, *places.NAMES)
    path = [copy, root(copy), elsewhere]
    assert printed("-c", FOUND, path=path, cwd=copy.parent) == files(copy)


@pytest.mark.parametrize("kind", ["a package", "a folder without __init__.py", "made by hand"])
def test_another_that_is_imported_already_is_named(copy: Path, elsewhere: Path, kind: str) -> None:
    package(elsewhere, "models")
    place = elsewhere / "models" / "__init__.py"
    code = "import sys, models"
    if kind == "a folder without __init__.py":
        place.unlink()
        place = elsewhere / "models"
    if kind == "made by hand":
        place = Path("no file")
        code = "import sys, types; sys.modules['models'] = types.ModuleType('models')"
    code += f"; sys.path.remove({str(elsewhere)!r}); sys.path.append({str(copy)!r})"
    process = python("-c", code + FOUND, path=[elsewhere], cwd=copy.parent)
    assert "ImportError: another package 'models' lies in front" in process.stderr
    assert f": '{place}'; " in process.stderr


def test_a_package_without_its_companions_says_so(copy: Path, elsewhere: Path) -> None:
    shutil.rmtree(root(copy) / "guides")
    process = python("-c", FOUND, path=[copy], cwd=elsewhere)
    line = process.stderr.splitlines()[-1]
    assert line.startswith(
        f"ImportError: no package 'guides' in '{root(copy)}', where pyro_infocat"
    )


def test_the_version_is_told_alike() -> None:
    citation = yaml.safe_load((HERE / "CITATION.cff").read_text())
    first = re.search(r"^## \[(.*)\] - (.*)$", (HERE / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first.groups() == (__version__, str(citation["date-released"]))
    assert citation["version"] == __version__


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a copy is built from, in a folder named like the package.

    With a package in each package, and with a run's outputs.
    """
    folder = tmp_path_factory.mktemp("clones") / "pyro_infocat"
    folder.mkdir()
    for name in BUILT_FROM:
        if (HERE / name).is_file():
            shutil.copy(HERE / name, folder)
        elif name == "runs":
            shutil.copytree(HERE / name, folder / name, ignore=lambda at, _: _folders(Path(at)))
        else:
            shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pyc*"))
    for name in ("pyro_infocat", "models", "guides"):
        package(folder / name, "deeper")
    for name in OUTPUTS:
        (folder / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "runs" / name).touch()
    return folder


def _folders(at: Path) -> list[str]:
    return [path.name for path in at.iterdir() if path.is_dir()]


def build(hook: str, source: Path, out: Path) -> Path:
    """A distribution by one of the hooks that pip calls too."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [made] = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(out), str(source)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    [made] = out.iterdir()
    return made


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def all_packages(unpacked: Path) -> list[Path | str]:
    """A path with an unpacked wheel, and with what it depends on."""
    return [unpacked, *(one for one in sys.path if one and Path(one).resolve() != HERE)]


def described(unpacked: Path, file: str) -> str:
    [folder] = unpacked.glob("*.dist-info")
    return (folder / file).read_text()


@pytest.mark.slow
def test_a_wheel_holds_the_packages_and_the_presets_and_nothing_else(
    source: Path, unpacked: Path
) -> None:
    within = {
        "pyro_infocat": "pyro_infocat",
        "models": "pyro_infocat/bundled/models",
        "guides": "pyro_infocat/bundled/guides",
    }
    expected = {
        f"{to}/{file.relative_to(source / name).as_posix()}"
        for name, to in within.items()
        for file in (source / name).rglob("*")
        if file.is_file()
    }
    expected |= {f"pyro_infocat/presets/{file.name}" for file in (HERE / "runs").glob("*.yaml")}
    held = {file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*") if file.is_file()}
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert described(unpacked, "licenses/LICENSE") == (HERE / "LICENSE").read_text()


@pytest.mark.slow
def test_a_wheel_says_what_it_needs(unpacked: Path) -> None:
    metadata = message_from_string(described(unpacked, "METADATA"))
    lines = (HERE / "requirements.txt").read_text().splitlines()
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    needed = [line for line in metadata.get_all("Requires-Dist") or () if "extra ==" not in line]
    assert needed == [line for line in lines if line[:1] not in ("", "#")]
    assert metadata.get_all("Provides-Extra") == ["parquet", "cluster", "tune", "export"]


@pytest.mark.slow
def test_a_source_distribution_holds_no_outputs(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build("build_sdist", source, tmp_path)) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    presets = {f"runs/{file.name}" for file in (HERE / "runs").glob("*.yaml")}
    assert {name for name in names if name.startswith("runs/")} == presets
    assert {"models/priors.py", "guides/encoders.py", "requirements.txt", "LICENSE"} <= names


@pytest.mark.slow
def test_an_editable_install_is_the_checkout_from_any_folder(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("build_editable", source, tmp_path / "made")) as archive:
        archive.extractall(tmp_path)
    code = f"import site; site.addsitedir({str(tmp_path)!r})" + FOUND
    code += "import pyro_infocat; print(CHECKOUT, pyro_infocat.__file__, sep='\\n')"
    # The folder that the checkout lies in has a folder pyro_infocat, which is not the package.
    for cwd in (tmp_path, source.parent):
        expected = [*files(source), str(source), str(source / "pyro_infocat" / "__init__.py")]
        assert printed("-c", code, path=[], cwd=cwd) == expected


@pytest.mark.slow
def test_an_installed_copy_imports_its_own_models(unpacked: Path, elsewhere: Path) -> None:
    (elsewhere / "models").mkdir()
    code = (
        "import importlib.util, pyro_infocat, pyro_infocat.places as p; p.make_importable();"
        "print(importlib.util.find_spec('models.priors').origin)"
    )
    process = python("-W", "default", "-c", code, path=all_packages(unpacked), cwd=elsewhere)
    assert process.stdout.strip() == str(unpacked / "pyro_infocat/bundled/models/priors.py")


@pytest.mark.slow
def test_an_installed_copy_trains_from_any_folder(unpacked: Path, elsewhere: Path) -> None:
    flags = ("--epochs", "1", "--nll_samples", "2", "--device", "cpu")
    command = ("-W", "default", "-m", "pyro_infocat.run", *flags)
    process = python(*command, path=all_packages(unpacked), cwd=elsewhere)
    assert process.returncode == 0, process.stderr
    assert (elsewhere / "runs" / "digits" / "seed0" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "sample", "benchmark"])
def test_the_console_command_knows(command: str, unpacked: Path, elsewhere: Path) -> None:
    code = (
        "import sys; from importlib.metadata import entry_points;"
        "[one] = entry_points(group='console_scripts', name='pyro-infocat');"
        "sys.exit(one.load()(sys.argv[1:]))"
    )
    arguments = ("-W", "default", "-c", code, command, "--help")
    lines = printed(*arguments, path=all_packages(unpacked), cwd=elsewhere)
    assert lines[0].startswith("usage:")
    assert command in lines[0]
