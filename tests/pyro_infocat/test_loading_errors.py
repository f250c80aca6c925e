"""What is no run, or a damaged or changed one, is refused in one line and nothing is executed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pyro_infocat
from pyro_infocat import experiment
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.errors import UserError
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG
from tests.brief import SMALL

pytestmark = pytest.mark.usefixtures("alone")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch; never to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(experiment, "evaluate", interrupt)
        assert main([*SMALL, "--epochs", "1", "--out", str(folder)]) == 130
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The run in a folder that may be changed."""
    return shutil.copytree(finished, tmp_path / "run")


class Malice:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path("executed"),)


def refused(folder: Path, trust: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        pyro_infocat.load(folder, "cpu", trust)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.mark.parametrize("whole", [True, False])
def test_no_pickle_is_executed(whole: bool, copy: Path) -> None:
    path = copy / CHECKPOINT
    torch.save(Malice() if whole else torch.load(path) | {"more": Malice()}, path)
    message = refused(copy)
    assert "is corrupt or no checkpoint of this project" in message
    assert not Path("executed").exists()
    torch.load(path, weights_only=False)
    assert Path("executed").exists()


def test_no_object_of_a_config_is_made(copy: Path) -> None:
    text = "!!python/object/apply:os.mkdir [executed]"
    (copy / CONFIG).write_text(text)
    assert "is not the folder of a run" in refused(copy)
    assert not Path("executed").exists()
    yaml.unsafe_load(text)
    assert Path("executed").exists()


def change(folder: Path, part: str, **values: object) -> None:
    """Give a part of a run's config other values."""
    config = yaml.safe_load((folder / CONFIG).read_text())
    config[part] |= values
    (folder / CONFIG).write_text(yaml.safe_dump(config))


USED = ["prior", "likelihood", "decoder", "encoder", "guide", "model"]
"""The parts that are loaded. A view is none of them."""

CALLABLES = {
    "os.system": {"command": "touch executed"},
    "os.mkdir": {"path": "executed"},
    "builtins.open": {"file": "executed", "mode": "w"},
    "subprocess.Popen": {"args": ["touch", "executed"]},
    "pathlib.Path": {},
}


@pytest.mark.parametrize("part", ["prior", "likelihood", "guide"])
@pytest.mark.parametrize("path", CALLABLES)
def test_what_a_config_names_is_called_only_where_it_is_a_class_of_its_role(
    path: str, part: str, copy: Path
) -> None:
    change(copy, part, class_path=path, init_args=CALLABLES[path])
    module = path.partition(".")[0]
    message = refused(copy)
    assert f"'{path}' is code outside this project and was not imported" in message
    assert f"--trust {module} or trust=['{module}']" in message
    base = {"prior": "Prior", "likelihood": "Likelihood", "guide": "Guide"}[part]
    assert f"{part}: '{path}' is no {base}" in refused(copy, trust=(module,))
    assert not Path("executed").exists()


@pytest.mark.parametrize("package", ["", "inner."])
def test_a_module_outside_this_project_is_imported_only_where_it_is_trusted(
    package: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    folder = Path(package.rstrip("."))
    folder.mkdir(exist_ok=True)
    name = f"sent_{len(package)}"
    (folder / f"{name}.py").write_text(
        "from pathlib import Path\nfrom models.priors import Orthogonal\n"
        "Path('imported').touch()\nclass Mine(Orthogonal): pass\n"
    )
    change(copy, "prior", class_path=f"{package}{name}.Mine")
    for trust in ((), ("models",), (f"{name}.Mine",), (name[:-1],)):
        message = refused(copy, trust)
        assert f"prior: '{package}{name}.Mine' is code outside this project" in message
        assert f"--trust {package}{name} or trust=['{package}{name}']" in message
        assert not Path("imported").exists()
    run = pyro_infocat.load(copy, trust=[f"{package}{name}"])
    assert type(run.model.prior).__name__ == "Mine"
    assert Path("imported").exists()
    # One name alone is no list of letters.
    assert type(pyro_infocat.load(copy, trust=f"{package}{name}").model.prior) is type(
        run.model.prior
    )


def test_a_trusted_package_holds_its_modules(copy: Path) -> None:
    change(copy, "guide", class_path="tests.users_parts.guide_program.Mine")
    assert "--trust tests.users_parts.guide_program" in refused(copy)
    run = pyro_infocat.load(copy, trust=["tests"])
    assert type(run.guide).__name__ == "Mine"


def test_resuming_imports_no_class_that_the_folder_alone_names(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(".")
    Path("sent_to_resume.py").write_text(
        "from pathlib import Path\nfrom models.priors import Orthogonal\n"
        "Path('imported').touch()\nclass Mine(Orthogonal): pass\n"
    )
    change(copy, "prior", class_path="sent_to_resume.Mine")
    flags = [*SMALL, "--epochs", "1", "--out", str(copy), "--resume", "true"]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert f"{copy / CONFIG}: prior: 'sent_to_resume.Mine' is code outside this project" in error
    assert "--trust sent_to_resume" in error
    assert error.count("\n") == 1
    # Another class in its place is not that of the run.
    assert main([*flags, "--prior", "models.priors.Orthogonal"]) == 2
    error = capsys.readouterr().err
    assert "prior.class_path sent_to_resume.Mine, not models.priors.Orthogonal" in error
    assert error.count("\n") == 1
    assert not Path("imported").exists()


@pytest.mark.parametrize(
    "named", [["--prior", "sent_and_named.Mine"], ["--trust", "sent_and_named"]]
)
def test_resuming_imports_a_class_that_the_user_names(
    named: list[str], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    text = "from models.priors import Orthogonal\nclass Mine(Orthogonal): pass\n"
    Path("sent_and_named.py").write_text(text)
    change(copy, "prior", class_path="sent_and_named.Mine")
    assert main([*SMALL, "--epochs", "1", "--out", str(copy), "--resume", "true", *named]) == 0


@pytest.mark.parametrize("part", USED)
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone.Mine", "No module named 'gone'"),
        ("models.gone.Mine", "No module named 'models.gone'"),
        ("models.priors.Gone", "'models.priors.Gone': 'models.priors' has no 'Gone'"),
        ("Mine", "'Mine' is no class; give a class such as "),
        ("models.CatVAE.Mine", "No module named 'models.CatVAE'"),
    ],
)
def test_a_class_that_has_gone(part: str, path: str, said: str, copy: Path) -> None:
    change(copy, part, class_path=path)
    message = refused(copy, trust=("gone",))
    assert f"'{copy / CONFIG}' cannot be built ({part}: " in message
    assert said in message
    assert "classes that it names can be imported" in message


@pytest.mark.parametrize("part", [*USED, "view"])
@pytest.mark.parametrize(
    "values", [{"class_path": 3}, {"init_args": [1]}, {"more": 1}], ids=["path", "list", "key"]
)
def test_a_part_that_is_none(part: str, values: dict[str, object], copy: Path) -> None:
    change(copy, part, **values)
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be read as one (TypeError)" in message


@pytest.mark.parametrize("part", USED)
def test_a_config_without_a_class(part: str, copy: Path) -> None:
    config = yaml.safe_load((copy / CONFIG).read_text()) | {part: None}
    (copy / CONFIG).write_text(yaml.safe_dump(config))
    assert "cannot be read as one (TypeError)" in refused(copy)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epochs", "many", "epochs: expected a whole number or 'auto', not 'many'"),
        ("observe", "colour", "observe: expected one of 'auto', 'binary', 'grey', not 'colour'"),
        ("seed", -1, "seed -1: must be at least 0"),
        ("weights", {"consistency": "much"}, "weights.consistency: expected a number, not 'much'"),
        ("learning_rate", float("inf"), "learning_rate inf: must be a finite number"),
    ],
)
def test_a_setting_of_another_type(name: str, value: object, said: str, copy: Path) -> None:
    config = yaml.safe_load((copy / CONFIG).read_text()) | {name: value}
    (copy / CONFIG).write_text(yaml.safe_dump(config))
    assert refused(copy) == f"{copy / CONFIG}: {said}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scale": -1.0}, "prior models.priors.Orthogonal: scale must be"),
        ({"scale": "wide"}, "prior.scale: expected a number, not 'wide'"),
    ],
)
def test_an_argument_that_a_class_refuses(
    arguments: dict[str, object], said: str, copy: Path
) -> None:
    change(copy, "prior", init_args=arguments)
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be built ({said}" in message


def test_a_class_whose_file_is_broken(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text("mode = 1 / 0")
    monkeypatch.syspath_prepend(".")
    change(copy, "prior", class_path="broken.Mine")
    message = refused(copy, trust=("broken",))
    assert "broken.Mine cannot be imported: ZeroDivisionError: division by zero" in message
    assert f"({Path('broken.py').resolve()}, line 1)" in message


def test_a_checkpoint_from_before_it_knew_its_data(copy: Path) -> None:
    old = torch.load(copy / CHECKPOINT, weights_only=True)
    del old["facts"]
    torch.save(old, copy / CHECKPOINT)
    assert pyro_infocat.load(copy).facts == DATA_SETS["digits"]
    # Nothing says what an unknown data set was like.
    config = yaml.safe_load((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(yaml.safe_dump(config | {"data": "cifar"}))
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be built (data: no data set 'cifar'; choose from" in message


FACTS: dict[str, object] = {
    "a word": "digits",
    "no shape": {"preset": "digits", "levels": 17, "classes": ()},
    "another key": {"preset": "digits", "shape": (8, 8), "levels": 17, "classes": (), "more": 1},
    "a shape of words": {"preset": "digits", "shape": ("8", 8), "levels": 17, "classes": ()},
    "an empty shape": {"preset": "digits", "shape": (0, 8), "levels": 17, "classes": ()},
    "no axes": {"preset": "digits", "shape": (), "levels": 17, "classes": ()},
    "columns that are none": {
        **{"preset": "table", "shape": (1,), "levels": 0, "classes": (), "columns": ("age",)}
    },
    "a column of no kind": {
        **{"preset": "table", "shape": (1,), "levels": 0, "classes": ()},
        "columns": ({"name": "age", "kind": "word"},),
    },
    "a column without spread": {
        **{"preset": "table", "shape": (1,), "levels": 0, "classes": ()},
        "columns": ({"name": "age", "kind": "real", "scale": 0.0},),
    },
    "fewer columns than numbers": {
        **{"preset": "table", "shape": (2,), "levels": 0, "classes": ()},
        "columns": ({"name": "age", "kind": "real"},),
    },
    "a binary column of no values": {
        **{"preset": "table", "shape": (1,), "levels": 0, "classes": ()},
        "columns": ({"name": "tame", "kind": "binary"},),
    },
    "a real column of words": {
        **{"preset": "table", "shape": (1,), "levels": 0, "classes": ()},
        "columns": ({"name": "age", "kind": "real", "values": ("no", "yes")},),
    },
    "a value twice": {
        **{"preset": "table", "shape": (2,), "levels": 0, "classes": ()},
        "columns": ({"name": "animal", "kind": "category", "values": ("cat", "cat")},),
    },
    "two columns of one name": {
        **{"preset": "table", "shape": (2,), "levels": 0, "classes": ()},
        "columns": ({"name": "age", "kind": "real"}, {"name": "age", "kind": "count"}),
    },
    "columns of images": {
        **{"preset": "table", "shape": (1,), "levels": 256, "classes": ()},
        "columns": ({"name": "age", "kind": "real"},),
    },
    "one level": {"preset": "digits", "shape": (8, 8), "levels": 1, "classes": ()},
    "classes that are numbers": {
        **{"preset": "digits", "shape": (8, 8), "levels": 17, "classes": (0, 1)}
    },
}


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_facts_that_are_none(facts: object, copy: Path) -> None:
    path = copy / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {"facts": facts}, path)
    assert f"'{path}' is corrupt or no checkpoint of this project (facts are none" in refused(copy)


MISFITS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "swapped": lambda old: old | {"model": old["guide"], "guide": old["model"]},
    "no parameters": lambda old: old | {"guide": {}},
    "parameters by number": lambda old: old | {"model": {0: torch.zeros(1)}},
    "one less": lambda old: old | {"model": dict(list(old["model"].items())[1:])},
    "no tensors": lambda old: old | {"model": dict.fromkeys(old["model"], 3)},
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_a_checkpoint_that_does_not_fit(
    misfit: Callable[[dict[str, Any]], dict[str, Any]], copy: Path
) -> None:
    path = copy / CHECKPOINT
    torch.save(misfit(torch.load(path, weights_only=True)), path)
    message = refused(copy)
    assert "its checkpoint does not fit its config.yaml" in message
    assert "one of the two was replaced" in message


def test_a_number_instead_of_parameters(copy: Path) -> None:
    path = copy / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {"model": 3}, path)
    message = refused(copy)
    assert f"'{path}' is corrupt" in message
    assert "(model is no dictionary of tensors)" in message


def test_a_checkpoint_of_other_shapes(copy: Path) -> None:
    change(copy, "decoder", init_args={"hidden": [17]})
    message = refused(copy)
    assert "its checkpoint does not fit its config.yaml" in message
    assert "size mismatch" in message


def test_a_list_instead_of_a_checkpoint(copy: Path) -> None:
    torch.save([1, 2], copy / CHECKPOINT)
    message = refused(copy)
    assert "is corrupt or no checkpoint of this project" in message
    assert "(it lacks epoch, model, guide, optimizer, rng, history)" in message


def test_a_device_that_is_none(finished: Path) -> None:
    with pytest.raises(UserError, match="device: no device 'gpu'; choose auto, cpu"):
        pyro_infocat.load(finished, "gpu")
