"""Sampling a run whose config names a reader of its maker's own: code like any other."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from pyro_infocat.sample import main
from pyro_infocat.settings import CONFIG

OLD = Path(__file__).resolve().parents[2] / "old_run" / "run"

READER = """
from pyro_infocat import Reader
from pyro_infocat.data.readers import digits

class Sent(Reader):
    def read(self):
        return digits()
"""


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run's folder with a reader that lies beside it."""
    shutil.copytree(OLD, tmp_path / "run")
    (tmp_path / "sent_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sent_reader", raising=False)
    config = tmp_path / "run" / CONFIG
    reader = {"class_path": "sent_reader.Sent", "init_args": {}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"reader": reader}))
    return str(tmp_path / "run")


def test_the_reader_is_not_imported(sent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sent, "--device", "cpu", "--reconstruct", "test"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "error: --reader: 'sent_reader.Sent' is code outside this project and was not imported; if "
        "you trust its author, say so: --trust sent_reader or trust=['sent_reader']\n"
    )
    assert "sent_reader" not in sys.modules


def test_a_trusted_reader_reads(sent: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--device", "cpu", "--reconstruct", "test", "--number", "3"]
    assert main([sent, *flags, "--trust", "sent_reader"]) == 0
    assert capsys.readouterr().out == f"{Path(sent, 'samples', 'reconstructions')}.png and .npz\n"


def test_what_reads_no_data_needs_no_trust(sent: str) -> None:
    assert main([sent, "--device", "cpu", "--number", "1"]) == 0
    assert "sent_reader" not in sys.modules
