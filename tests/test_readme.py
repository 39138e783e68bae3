"""The README's tree is the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "client", "host", "models", "store", "worker")
ONE_LINE = ("app/static", "app/console/vendor", "store/migrations")  # folders without their files


def files_of_the_tree() -> set[str]:
    """Return the paths that the README prints, put together from its indentation."""
    readme = (ROOT / "README.md").read_text()
    tree = readme.split("## The tree\n")[1].split("\n## ")[0]
    found: set[str] = set()
    folders: list[str] = []
    for line in filter(str.strip, tree.splitlines()):
        indent, name = re.fullmatch(r"    ( *)(\S+) +\S.*", line).groups()
        folders = [*folders[: len(indent) // 2], name]
        if not name.endswith("/"):
            found.add("".join(folders))
    return found


def test_the_tree_has_a_line_for_each_file_of_the_packages():
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for suffix in ("py", "js")
        for path in (ROOT / package).rglob(f"*.{suffix}")
        if path.name != "__init__.py"
    }
    there = {path for path in there if not path.startswith(ONE_LINE)}
    listed = {path for path in files_of_the_tree() if path.startswith(PACKAGES)}
    assert there - listed == set()


def test_every_line_of_the_tree_is_a_file():
    assert {path for path in files_of_the_tree() if not (ROOT / path).is_file()} == set()
