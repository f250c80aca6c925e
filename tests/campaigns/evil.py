"""Class paths that no config may have called: each would leave a trace that is looked for."""

from pathlib import Path
from random import Random
from typing import Any

from pyro_infocat.settings import ROLES, SEVERAL

CANARY, TREASURE, MODULE = "canary", "treasure", "evil_module"

CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("os.system", {"command": f"touch {CANARY}"}),
    ("subprocess.Popen", {"args": f"touch {CANARY}", "shell": True}),
    ("subprocess.getoutput", {"cmd": f"touch {CANARY}"}),
    ("builtins.open", {"file": CANARY, "mode": "w"}),
    ("builtins.exec", {"source": f"open('{CANARY}', 'w')"}),
    ("io.FileIO", {"file": CANARY, "mode": "w"}),
    ("pathlib.Path.touch", {"self": CANARY}),
    ("shutil.rmtree", {"path": TREASURE}),
    ("os.rmdir", {"path": TREASURE}),
    ("logging.FileHandler", {"filename": CANARY}),
    ("torch.load", {"f": CANARY}),
    ("pyro_infocat.places.sys.modules", {}),
    ("pyro_infocat.seeds.subprocess.Popen", {"args": ["touch", CANARY]}),
    ("pyro_infocat.storage.files.os.system", {"command": f"touch {CANARY}"}),
    (f"{MODULE}.Touch", {}),
)


def bait(folder: Path) -> None:
    """Put what must not be touched, and a module that must not be imported, into a folder."""
    (folder / TREASURE).mkdir()
    (folder / f"{MODULE}.py").write_text(
        f"open({str(folder / CANARY)!r}, 'w').close()\nimport pyro_infocat.priors_of_nobody\n"
    )


def called(folder: Path) -> str | None:
    """What shows that something was called that must not be."""
    if list(folder.rglob(CANARY)):
        return "something a config named was executed: the canary is there"
    if not (folder / TREASURE).is_dir():
        return "something a config named was executed: the treasure is gone"
    return None


def part(random: Random) -> tuple[str, Any]:
    """A role, and what a config could give it."""
    path, arguments = random.choice(CALLS)
    role = random.choice(list(ROLES))
    given: Any = {"class_path": path, "init_args": arguments}
    if random.random() < 0.2:
        given = path
    return role, [given] if role in SEVERAL else given
