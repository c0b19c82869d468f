"""Writes the tables of the README that are made from the code, or with ``--check`` tells which are out of date.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; NAME is a class of config.py.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depth_pose_ros import config  # noqa: E402

PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def updated(text: str) -> str:
    """``text`` with every table made anew."""
    return PLACE.sub(lambda m: m[1] + "\n" + config.markdown_table(getattr(config, m[2])) + "\n" + m[3], text)


def main() -> int:
    """Update, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when a table is out of date")
    check = parser.parse_args().check
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if (new := updated(text)) != text:
            stale += 1
            print(
                f"{path.relative_to(ROOT)}: {'out of date; run python tools/update_tables.py' if check else 'updated'}"
            )
            if not check:
                path.write_text(new, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
