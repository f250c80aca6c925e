"""Presets and configs that cannot be read, or that hold what they must not."""

import tracemalloc
from pathlib import Path

import pytest

from pyro_infocat.run import main
from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")

CONFIGS = {
    "unknown key": ("epoch: 3", ["no such key 'epoch'", "did you mean epochs?"]),
    "not YAML": ("epochs: [1", ["is not YAML"]),
    "not text": ("\0", ["is not YAML"]),
    "list": ("- epochs: 3", ["must hold keys with values", "not a list"]),
    "word alone": ("epochs", ["must hold keys with values", "not a str"]),
    "empty": ("", ["must hold keys with values", "not nothing"]),
    "type": ("epochs: many", ["epochs: expected a whole number or 'auto', not 'many'"]),
    "type of a list": ("weights: [1]", ["weights: expected names with values", "'[1]'"]),
    "type of a part": ("prior: 3", ["prior: '3' is no class", "models.priors.Orthogonal"]),
    "type of several parts": ("terms: {a: 3}", ["terms: expected a class path", "{'a': 3}"]),
    "type of one of several parts": ("terms: [3]", ["terms: '3' is no class"]),
    "argument of a part": (
        "prior: {class_path: models.priors.Orthogonal, init_args: {sale: 3}}",
        ["prior: models.priors.Orthogonal takes no 'sale'", "scale"],
    ),
    "type of a part's argument": (
        "prior: {class_path: models.priors.Orthogonal, init_args: {scale: x}}",
        ["prior.scale: expected a number, not 'x'"],
    ),
    "key beside a part's own": (
        "prior: {class_path: models.priors.Orthogonal, arguments: {}}",
        ["prior: expected a class path", "init_args", "'arguments'"],
    ),
    "null character": ('data_root: "a\\0"', ["data_root: holds a null character", "leave it out"]),
    "null character further in": ('weights: {"a\\0": 1}', ["weights: holds a null character"]),
    "null character in a part": (
        'encoder: {class_path: guides.encoders.MLP, init_args: {hidden: ["\\0"]}}',
        ["encoder.hidden: holds a null character"],
    ),
    "word": ("data_root: [a]", ["data_root: expected a word, not '['a']'"]),
}

STRICT = {
    "anchor": ("epochs: &many 3\nseed: *many", ["anchors (&name)", "line 1"]),
    "alias": ("epochs: *many", ["aliases (*name) are not read", "line 1"]),
    "aliases that double": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", ["anchors (&name)"]),
    "merge key": ("<<: {epochs: 3}", ["no such key '<<'"]),
    "merge key further in": ("weights: {<<: {kl_z: 3}}", ["weights.<<: expected a number"]),
    "key twice": ("seed: 1\nepochs: 3\nseed: 2", ["the key 'seed' stands here twice", "line 3"]),
    "key twice further in": (
        "prior:\n  class_path: models.priors.Orthogonal\n  init_args: {scale: 1, scale: 2}",
        ["the key 'scale' stands here twice", "line 3"],
    ),
    "list for a key": ("? [seed]\n: 3", ["a key must be a word"]),
    "date": ("seed: 2024-01-01", ["seed: expected a whole number, not '2024-01-01'"]),
    "time": ("epochs: 12:30:45", ["epochs: expected a whole number or 'auto', not '12:30:45'"]),
    "yes": ("graph: yes", ["graph: expected true or false, not 'yes'"]),
    "octal": ("seed: 0o17", ["seed: expected a whole number, not '0o17'"]),
    "thousands of digits": (f"seed: {'9' * 5000}", ["a number of 5000 characters", "line 1"]),
    "thousands of decimals": (f"learning_rate: .{'9' * 5000}", ["a number of 5001 characters"]),
    "hundreds of digits": (f"learning_rate: {'9' * 399}", ["finite"]),
    "deep list": (f"weights: {'[' * 5000}{']' * 5000}", ["nested deeper than 20 levels"]),
    "deep names": (f"weights: {'{a: ' * 5000}1{'}' * 5000}", ["nested deeper than 20 levels"]),
    "deep lines": ("- " * 20_000, ["nested deeper than 20 levels"]),
    "deep and allowed": (f"weights: {'[' * 18}{']' * 18}", ["expected names with values, not '[["]),
    "object": ("seed: !!python/object/apply:os.mkdir [made]", ["could not determine", "os.mkdir"]),
    "tag of one's own": ("seed: !mine 3", ["could not determine", "'!mine'"]),
    "tag without a number": ("epochs: !!int", ["is not YAML (it cannot be read (IndexError))"]),
    "tag of another word": ("graph: !!bool x", ["is not YAML (it cannot be read (KeyError))"]),
    "tag of no date": ("seed: !!timestamp x", ["is not YAML (it cannot be read (AttributeError))"]),
    "bytes": ("seed: !!binary aGVsbG8=", ["seed: config.yaml cannot hold a bytes"]),
    "set": ("weights: !!set {kl_z}", ["weights: config.yaml cannot hold a set"]),
    "two documents": ("seed: 1\n---\nseed: 2", ["expected a single document"]),
}


@pytest.mark.parametrize(("text", "said"), (CONFIGS | STRICT).values(), ids=CONFIGS | STRICT)
def test_a_wrong_config(text: str, said: list[str], refuse: Refuse) -> None:
    Path("mine.yaml").write_text(text)
    error = refuse("--config", "mine.yaml")
    assert "mine.yaml" in error
    assert len(error) < 600
    for part in said:
        assert part in error
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"epochs: \xff", "is not UTF-8 text"), (b"epochs: \x07", "special characters")],
)
def test_bytes_that_are_no_text(content: bytes, said: str, refuse: Refuse) -> None:
    Path("mine.yaml").write_bytes(content)
    assert said in refuse("--config", "mine.yaml")


def test_an_enormous_file_is_not_read_as_a_whole(refuse: Refuse) -> None:
    """Of 3 GB, none of which is on the disk."""
    with Path("huge.yaml").open("wb") as file:
        file.truncate(3_000_000_000)
    tracemalloc.start()
    try:
        error = refuse("--config", "huge.yaml")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.startswith("--config: 'huge.yaml' is not YAML")
    assert "a config has a thousand" in error
    assert most < 10_000_000


def test_dates_and_answers_are_words_where_a_word_is_due(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word in ("2024-01-01", "12:30:45", "yes", "0o17"):
        Path("mine.yaml").write_text(f"data_root: {word}")
        with pytest.raises(SystemExit) as ended:
            main(["--config", "mine.yaml", "--print_config"])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert f"data_root: {word}" in printed.replace("'", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs:", "mine.yaml: epochs has no value; leave the key out"),
        ("prior:\nseed: 1", "mine.yaml: prior has no value"),
        ("terms:\nseed: 1", "mine.yaml: terms has no value"),
        ("data: cifar", "mine.yaml: data: no data set 'cifar'"),
        ("information_weight: .inf", "mine.yaml: information_weight inf: must be a finite number"),
        ("batch_size: 0", "mine.yaml: batch_size 0: must be at least 1"),
        ("weights: {foo: 1}", "mine.yaml: weights: no term 'foo' to weigh"),
        ("device: gpu", "mine.yaml: device: no device 'gpu'; choose auto"),
        (
            "prior: {class_path: models.priors.Orthogonal, init_args: {delta: 0}}",
            "mine.yaml: prior models.priors.Orthogonal: delta must be at least 1",
        ),
        ("schedules: {kl_z: []}", "mine.yaml: schedules: kl_z is []; give [epoch, weight] pairs"),
        (
            "prior:\n  class_path: models.priors.Orthogonal\n  init_args: {scale: .nan}",
            "mine.yaml: prior.scale nan: must be a finite number",
        ),
    ],
)
def test_a_wrong_value_in_a_config(text: str, said: str, refuse: Refuse) -> None:
    Path("mine.yaml").write_text(text)
    assert said in refuse("--config", "mine.yaml")


def test_a_flag_over_a_config_is_named_as_a_flag(refuse: Refuse) -> None:
    Path("mine.yaml").write_text("epochs: 3")
    error = refuse("--config", "mine.yaml", "--epochs", "many")
    assert error == "--epochs: expected a whole number or 'auto', not 'many'"


def test_a_flag_beside_a_config_is_named_as_a_flag(refuse: Refuse) -> None:
    Path("mine.yaml").write_text("epochs: 3")
    error = refuse("--config", "mine.yaml", "--device", "gpu")
    assert error.startswith("--device: no device 'gpu'")


def test_a_flag_over_what_is_wrong_in_a_config(refuse: Refuse) -> None:
    """Of a run whose images have moved, say."""
    Path("mine.yaml").write_text("data: gone.npz\nweights: {kl_z: .nan}\nepochs: 0")
    flags = ["--config", "mine.yaml", "--data", "digits", "--weights.kl_z", "1"]
    assert refuse(*flags) == "mine.yaml: epochs 0: must be at least 1"
    assert refuse(*flags, "--epochs", "-1") == "--epochs -1: must be at least 1"
    error = refuse("--config", "mine.yaml", "--epochs", "1", "--weights.kl_z", "1")
    assert error.startswith("mine.yaml: data: no file 'gone.npz'")
