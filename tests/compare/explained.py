"""The differences from other servers that have a reason, and the table of them in `docs/protocol.md`."""

import of_electrs
import of_electrumx
from difference import Case

TABLE = [*of_electrumx.ROWS, *of_electrs.ROWS]


def reason_of(server, *difference):
    """The row that explains a difference; `None` when none does."""
    case = Case(*difference)
    for row in TABLE:
        if row.server == server and row.test(case):
            return row
    return None


BEGIN, END = "<!-- differences -->\n", "<!-- end of differences -->\n"


def table():
    lines = ["| server | asked for | peerdex | it | why |", "|---|---|---|---|---|"]
    lines += [f"| {row.server} | {row.what} | {row.ours} | {row.theirs} | {row.why} |" for row in TABLE]
    return "\n".join(lines) + "\n"


def write_table(path):
    with open(path) as page:
        head, _, rest = page.read().partition(BEGIN)
    _, _, tail = rest.partition(END)
    with open(path, "w") as page:
        page.write(head + BEGIN + table() + END + tail)


def is_documented(path):
    with open(path) as page:
        return BEGIN + table() + END in page.read()
