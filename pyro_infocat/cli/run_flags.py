"""The command line of a run: flags over a preset, in one line of error each. Without torch."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.cli.command_line import HELP, Flag, shown, usage, words
from pyro_infocat.errors import UserError
from pyro_infocat.kinds import name_of
from pyro_infocat.parts import find, in_words, own_parameters
from pyro_infocat.resolve import Given, Resolver, config_path, preset_of, read_config
from pyro_infocat.settings import CONFIG, DECLARED, ROLES, SEVERAL, TYPES, Settings, default
from pyro_infocat.storage.configuration import write_yaml

MODULE = "pyro_infocat.run"

OWN = {
    "config": Flag(str, "FILE", "a preset by name or file, or the config.yaml of a run"),
    "out": Flag(str, "DIR", "the run's folder; runs/<preset or data>/seed<seed> when not given"),
    "resume": Flag(
        bool,
        "true|false",
        "go on with the run in --out, whose settings hold but for the flags that are given",
        False,
    ),
    "trust": Flag(
        list[str], "MODULE ...", "with --resume: modules outside this project that --out may name"
    ),
    "print_config": Flag(bool, "", "print all settings as YAML and do nothing", False),
}
"""Flags that are no settings."""

AFTER = (
    f"Data sets: {', '.join(DATA_SETS)}. Without --config the data's own preset is used: "
    "runs/digits.yaml, runs/mnist.yaml or runs/fashion.yaml, of data of your own runs/images.yaml "
    "(grey), runs/colour.yaml or runs/table.yaml. The defaults above are of what neither the "
    "preset nor a flag gives. A class's arguments are flags too: --prior.scale 3; --prior.help "
    "CLASS lists them."
)


class Request(NamedTuple):
    """What the command line asks for.

    :ivar resolver: knows how each setting was given.
    :ivar name: of the preset or the data, for the default folder.
    :ivar notes: a line for each thing in a config that was passed over.
    :ivar preset: the one that was chosen by what the data are; "" where a config was given.
    """

    resolver: Resolver
    name: str
    out: Path | None
    resume: bool
    print_config: bool
    notes: list[str]
    preset: str

    def folder(self, settings: Settings) -> Path:
        """Where the run goes."""
        return self.out or Path("runs") / self.name / f"seed{settings.seed}"


def flags() -> dict[str, Flag]:
    """Every flag of a run."""
    found = dict(OWN)
    for name, declared in DECLARED.items():
        usual, help = default(declared), declared.metadata["help"]
        values = shown(TYPES[name])
        if name in ROLES:
            values = "CLASS ..." if name in SEVERAL else "CLASS"
            usual = getattr(usual, "class_path", usual)
        found[name] = Flag(TYPES[name], values, help, usual)
    return found


def read(argv: Sequence[str] | None = None) -> Request:
    """What the command line asks for, as far as that can be told without torch.

    :raises UserError: for anything given wrong but the parts.
    :raises SystemExit: after --help.
    """
    argv = sys.argv[1:] if argv is None else argv
    if set(HELP) & set(argv):
        print(usage(MODULE, "Train InfoCatVAE, evaluate it and draw what it learned.", flags(),
                    after=AFTER))  # fmt: skip
        raise SystemExit(0)
    own: dict[str, str] = {}
    trust: list[str] = []
    several: dict[str, list[str]] = {}
    configs: list[Path] = []
    given: list[Given] = []
    for name, texts in words(argv, flags()):
        if name is None:
            there = os.path.exists(texts[0])
            near = f"did you mean --data {texts[0]}? See" if there else "see"
            raise UserError(f"no such flag: {texts[0]}; {near} --help")
        if name.partition(".")[0] in ROLES and name.endswith(".help"):
            describe(name.removesuffix(".help"), texts[0])
        if name in ("config", "out") and texts[0] == "":
            what = "file" if name == "config" else "folder"
            raise UserError(f"is empty; give a {what}, or leave it out for the default", name)
        if name == "config":
            configs.append(config_path(texts[0]))
        elif name == "trust":
            trust += texts
        elif name in OWN:
            own[name] = str(texts[0])
        else:
            value: Any = texts[0]
            if name in SEVERAL:
                # --terms A --terms B are two.
                several[name] = value = [*several.get(name, []), *texts]
            given.append(Given(tuple(name.split(".")), value))
    out = own.get("out")
    notes: list[str] = []
    below: list[Given] = []
    resume = truth("resume", own)
    data = next((str(one.value) for one in reversed(given) if one.key == ("data",)), None)
    scaled, preset = True, ""
    if resume and out and not configs:
        # Where it cannot be read, the folder is refused as no run's later on.
        with suppress(UserError):
            below, notes = read_config(Path(out) / CONFIG, trusted=False)
            scaled = False
    if not configs and not below:
        # Checked before its preset is looked for.
        Resolver(given).plain()
        reader = any(one.key[0] == "reader" for one in given)
        path = preset_of(data or default(DECLARED["data"]), reader)
        below, preset = read_config(path)[0], path.stem
    for config in configs:
        found, unknown = read_config(config)
        below, notes = below + found, notes + unknown
    resolver = Resolver([*below, *given], trust=trust)
    # A resumed run's schedules are as its flags made them.
    resolver.scales = scaled
    try:
        values = resolver.plain()
    except UserError as error:
        raise UserError(error.told(resolver.origin)) from error
    name = configs[-1].stem if configs else name_of(values["data"])
    return Request(
        resolver,
        name,
        Path(out) if out else None,
        resume,
        truth("print_config", own),
        notes,
        preset,
    )


def truth(name: str, own: dict[str, str]) -> bool:
    """Whether a flag of true or false is on."""
    text = own.get(name, "false").lower()
    if text not in ("true", "false"):
        raise UserError(f"expected true or false, not '{text}'", name)
    return text == "true"


def parse(request: Request) -> tuple[Settings, Path, bool]:
    """The settings with the parts' classes looked at, the run's folder and whether to resume.

    :raises UserError: for a part given wrong.
    :raises SystemExit: after --print_config.
    """
    settings = request.resolver.settings()
    if request.print_config:
        print(write_yaml(settings.as_dict()), end="")
        raise SystemExit(0)
    for note in [*request.notes, *request.resolver.notes]:
        print(note, file=sys.stderr)
    return settings, request.folder(settings), request.resume


def describe(role: str, path: str) -> None:
    """Print the arguments of a class.

    :raises SystemExit: afterwards.
    """
    kind = find(role, path, role)
    print((kind.__doc__ or "").strip())
    for name, one in own_parameters(role, kind).items():
        usual = "" if one.default is one.empty else f" (default: {one.default})"
        print(f"  --{role}.{name}: {in_words(one.annotation)}{usual}")
    raise SystemExit(0)
