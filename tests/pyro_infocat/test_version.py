"""Which version and commit made a run, as far as anybody can tell."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

import pyro_infocat
from pyro_infocat import version
from pyro_infocat.version import CODE, __version__, made_by

Git = Callable[..., str]


@pytest.fixture(autouse=True)
def asked_again() -> Iterator[None]:
    """A process asks once; here each test does."""
    made_by.cache_clear()
    yield
    made_by.cache_clear()


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """A checkout with one commit; runs git there."""
    checkout = tmp_path / "checkout"
    for package in CODE:
        (checkout / package).mkdir(parents=True)
        (checkout / package / "__init__.py").write_text("")
    monkeypatch.setattr(version, "CHECKOUT", checkout)

    def git(*words: str) -> str:
        # Whatever this machine's settings are.
        who = ["-c", "user.name=Somebody", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(checkout), *who, *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "Begin")
    return git


def test_the_version_is_the_packages() -> None:
    assert pyro_infocat.__version__ == __version__ == made_by()["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_a_clean_checkout(git: Git) -> None:
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    assert made_by() == {"version": __version__, "commit": commit, "clean": True}


@pytest.mark.parametrize("package", CODE)
@pytest.mark.parametrize("how", ["changed", "added", "deleted", "staged"])
def test_a_checkout_with_other_code(how: str, package: str, git: Git) -> None:
    folder = version.CHECKOUT / package
    if how == "deleted":
        (folder / "__init__.py").unlink()
    else:
        name = "new.py" if how == "added" else "__init__.py"
        (folder / name).write_text("x = 1")
    if how == "staged":
        git("add", ".")
    commit = git("rev-parse", "HEAD")
    assert made_by() == {"version": __version__, "commit": commit, "clean": False}


def test_other_files_do_not_change_the_code(git: Git) -> None:
    (version.CHECKOUT / "README.md").write_text("new")
    (version.CHECKOUT / "runs").mkdir()
    (version.CHECKOUT / "runs" / "mine.yaml").write_text("epochs: 3")
    assert made_by()["clean"] is True


def test_a_process_asks_once(git: Git) -> None:
    """What it has imported does not change."""
    before = made_by()
    (version.CHECKOUT / "models" / "__init__.py").write_text("x = 1")
    git("commit", "-q", "-a", "-m", "Change")
    assert made_by() is before


def distribution(origin: object) -> Callable[[str], object]:
    """What pip wrote beside an installed copy; None for nothing."""

    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    def distribution(name: str) -> Distribution:
        assert name == "pyro-infocat"
        return Distribution()

    return distribution


ORIGINS = {
    "registry": (None, None),
    "folder": ({"url": "file:///somewhere", "dir_info": {}}, None),
    "repository": ({"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}, "c"),
}


@pytest.mark.parametrize("no_checkout", [True, False], ids=["installed", "unpacked"])
@pytest.mark.parametrize(("origin", "letter"), ORIGINS.values(), ids=ORIGINS)
def test_a_copy_without_git(
    origin: object,
    letter: str | None,
    no_checkout: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Installed, or a checkout's files without its history."""
    monkeypatch.setattr(version, "CHECKOUT", None if no_checkout else tmp_path)
    monkeypatch.setattr(metadata, "distribution", distribution(origin))
    commit = letter and letter * 40
    assert made_by() == {"version": __version__, "commit": commit, "clean": None}


def nobody(name: str) -> None:
    raise metadata.PackageNotFoundError(name)


def test_a_copy_that_pip_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "CHECKOUT", None)
    monkeypatch.setattr(metadata, "distribution", nobody)
    assert made_by() == {"version": __version__, "commit": None, "clean": None}


@pytest.mark.parametrize("kind", ["no git", "no commit"])
def test_a_checkout_that_git_cannot_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no git, or the folder is no repository of it."""
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    monkeypatch.setattr(metadata, "distribution", nobody)
    if kind == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert made_by() == {"version": __version__, "commit": None, "clean": None}
