"""What a finished run leaves for people to read: ``report.html``, and TensorBoard's summaries."""

from collections.abc import Mapping
from typing import Any

from pyro_infocat.evaluation.part import Tested
from pyro_infocat.report import board, page
from pyro_infocat.settings import Settings
from pyro_infocat.storage.folder import RunFolder


def write(tested: Tested, result: Mapping[str, Any], settings: Settings, folder: RunFolder) -> None:
    """Write both into the run's folder, of what was evaluated and of the figures there.

    :param result: what metrics.json holds.
    :raises OSError: where they cannot be written.
    """
    board.write(tested, result, settings, folder)
    page.write(tested, result, settings, folder.path)
