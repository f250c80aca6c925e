"""What a part of a campaign counts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Ends of tries by name, and what was not as it should be.

    :ivar completed: what was tried in every way that there is.
    :ivar failures: a line or more each, which begin with the number of the try.
    """

    ends: Counter[str] = field(default_factory=Counter)
    completed: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def end(self, name: str) -> None:
        """One more try that ended as it should."""
        self.ends[name] += 1

    def fail(self, number: int, what: str, why: str) -> None:
        """A try that did not."""
        self.failures.append(f"{number}: {what}: {why}")
        print(f"FAILED {self.failures[-1]}", flush=True)
