"""Write every generated table of the documents anew, from the committed results and declarations.

    python -m benchmarks.tables

Nothing is run. Needed where a table changed without a run: a preset was edited, so that its row is
marked, or a setting was declared.
"""

from benchmarks import defaults, estimators, growth, large_data, step_time, studies, wall
from benchmarks.documents import Table, write
from pyro_infocat.cli.reference import classes, reference

TABLES: dict[str, Table] = {
    **{study.mark: study.table for study in studies.STUDIES.values()},
    "classes": lambda document: classes(),
    "counts": lambda document: studies.counts(studies.STUDIES["rivals"].results),
    "defaults": lambda document: defaults.table(defaults.RESULTS),
    "estimators": lambda document: estimators.committed(),
    "growth": lambda document: growth.table(),
    "large-data": lambda document: large_data.table(),
    "settings": lambda document: reference(),
    "steps": lambda document: step_time.table(),
    "wall": lambda document: wall.table(),
}
"""Each generated table by the name of its place."""

if __name__ == "__main__":
    for name, table in TABLES.items():
        write(name, table)
