"""Which test runs which line, and how long each takes: the tests but for the slow ones, run once.

    python record.py TREE FOLDER TESTS...       in a process of its own

Writes FOLDER/tests.json: ``seconds`` of each test that passed, and ``lines``, by file and line the
tests that run it. Processes that tests start are measured too, under the test's name. What a
fixture of a whole module or session runs counts for every test that uses it.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

CONFIGURATION = """
[run]
source = models, guides, pyro_infocat
parallel = true
data_file = {folder}/coverage/data
context = ${{PYTEST_CURRENT_TEST-}}
"""


class Recorder:
    """A plugin of pytest that names the test, or the shared fixture, that runs."""

    def __init__(self, cover: coverage.Coverage) -> None:
        self.cover = cover
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.users: dict[str, set[str]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for name in item.fixturenames:
            self.users[f"fixture {name}"].add(item.nodeid)
        self.cover.switch_context(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest):
        shared = fixturedef.scope != "function"
        if shared:
            self.cover.switch_context(f"fixture {fixturedef.argname}")
        made = yield
        if shared:
            self.cover.switch_context(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
        return made

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)


def record(tree: Path, folder: Path, tests: list[str]) -> None:
    os.chdir(tree)
    settings = folder / "coverage.ini"
    settings.write_text(CONFIGURATION.format(folder=folder))
    # Python imports sitecustomize at its start, so in the processes that tests start too.
    startup = folder / "startup"
    startup.mkdir(exist_ok=True)
    (startup / "sitecustomize.py").write_text("import coverage\n\ncoverage.process_startup()\n")
    os.environ |= {"COVERAGE_PROCESS_START": str(settings), "PYTHONPATH": str(startup)}
    cover = coverage.Coverage(config_file=str(settings))
    recorder = Recorder(cover)
    with cover.collect():
        pytest.main(["-n", "0", "-m", "not slow", "-p", "no:cacheprovider", *tests], [recorder])
    cover.save()
    cover.combine()
    data = cover.get_data()
    passed = set(recorder.seconds) - recorder.failed

    def tests_of(context: str) -> set[str]:
        # In a process that a test started, the context ends in the phase, as " (call)".
        return recorder.users.get(context, {context.removesuffix(" (call)")})

    lines: dict[str, dict[int, list[str]]] = {}
    for file in map(Path, data.measured_files()):
        # Tests of the installation run copies elsewhere.
        if file.is_relative_to(tree):
            lines[str(file.relative_to(tree))] = {
                line: sorted(passed & set().union(*map(tests_of, contexts)))
                for line, contexts in data.contexts_by_lineno(str(file)).items()
            }
    seconds = {test: recorder.seconds[test] for test in passed}
    (folder / "tests.json").write_text(json.dumps({"seconds": seconds, "lines": lines}))
    if recorder.failed:
        print("left out, since they fail without a mutant or are skipped:")
        print(*sorted(recorder.failed), sep="\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
