"""What a difference is, and what explains one: a row with a test of the two outcomes.

The tests are narrow: a row that explained whatever a method answers would hide the next difference.
"""

import json
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Row:
    server: str
    # Cells of the table: what is asked, what the two answer, and why we answer so.
    what: str
    ours: str
    theirs: str
    why: str
    # Whether it explains a difference, given as a `Case`.
    test: Callable
    # Whether every comparison meets it; the others depend on timing or chance.
    always: bool = True


class Case:
    """A difference: the question, and two outcomes."""

    def __init__(self, version, method, params, our, their):
        self.version, self.method, self.params, self.our, self.their = version, method, params, our, their
        self.name = method.rpartition(".")[2]

    def errors(self, code):
        """Both are errors of this code, so the words are what differs."""
        return self.our[:2] == self.their[:2] == ("error", code)

    def asks(self, *names):
        return self.version != "line" and self.method in names

    def we_refuse(self, code):
        return self.our[:2] == ("error", code) and self.their[0] == "result"

    def line(self):
        return json.loads(self.method) if self.version == "line" else None
