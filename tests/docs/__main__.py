"""Write the tables and the numbers of README.md, docs/ and results/reference/README.md anew.

    python -m tests.docs

After new reference records this puts their numbers where the pages claim them, and prints what is
left to do by hand: claims whose words the records contradict, and numbers that are in no claim.
"""

import sys

from tests.docs.claims import complaints, rewritten
from tests.docs.pages import pages
from tests.docs.records import ROOT


def main() -> int:
    left = []
    for name, page in pages().items():
        path, claims = ROOT / name, page.all()
        before = path.read_text(encoding="utf-8")
        after = rewritten(before, claims)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"written: {name}")
        left += complaints(name, after, claims, page.excepted)
    print(*left, sep="\n", end="\n" if left else "")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
