"""What pyproject.toml cannot say: where a wheel holds models/, guides/ and the presets.

Not at the top of site-packages, where pip would write them over another distribution's packages
of the same name, but within pyro_infocat; ``pyro_infocat/places.py`` finds them there.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

WITHIN = {
    "pyro_infocat.bundled.models": "models",
    "pyro_infocat.bundled.guides": "guides",
    "pyro_infocat.presets": "runs",
}
"""The package in a wheel, and the folder in the checkout."""


class BuildPy(build_py):
    """Packages as in the checkout, and those of :data:`WITHIN` under their other names.

    Here, not in the distribution's ``packages``: an editable install takes these, and is a
    plain line on the path as long as all of them lie where their names say.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.package_dir = {**self.package_dir, **WITHIN}
        self.packages = list(self.packages)
        for package, folder in WITHIN.items():
            self.packages += [package, *(f"{package}.{sub}" for sub in find_packages(folder))]


setup(cmdclass={"build_py": BuildPy})
