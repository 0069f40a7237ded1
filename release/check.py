"""Say whether a tag may be released, and print its package.

    python release/check.py NAME-vVERSION

The tag, the package's version, its dated changelog and the ranges of the packages above it must agree.
"""

import re
import sys
import tomllib
from pathlib import Path

PACKAGES = Path(__file__).parent.parent / "packages"


def metadata(name: str) -> dict:
    """Return the project table of a package."""
    return tomllib.loads((PACKAGES / name / "pyproject.toml").read_text())["project"]


def problems(tag: str) -> list[str]:
    """Return what stands against a release, in sentences."""
    names = sorted(path.parent.name for path in PACKAGES.glob("*/pyproject.toml"))
    found = re.fullmatch(r"([a-z-]+)-v(\d+\.\d+\.\d+)", tag)
    if found is None or found[1] not in names:
        return [f"{tag} is no NAME-vMAJOR.MINOR.PATCH with a NAME of {', '.join(names)}."]
    name, version = found.groups()
    told = []
    if metadata(name)["version"] != version:
        told.append(f"pyproject.toml of {name} has the version {metadata(name)['version']}.")
    heading = re.compile(rf"^## {re.escape(version)} \(\d{{4}}-\d{{2}}-\d{{2}}\)$", re.MULTILINE)
    if not heading.search((PACKAGES / name / "CHANGELOG.md").read_text()):
        told.append(f"CHANGELOG.md of {name} has no heading '## {version} (YYYY-MM-DD)'.")
    major, minor, _ = version.split(".")
    wanted = f"{name}>={major}.{minor},<{major}.{int(minor) + 1}"
    for other in names:
        ranges = [one for one in metadata(other)["dependencies"] if re.match(rf"{name}\b", one)]
        told += [f"{other} asks for {one}, and a release of {version} for {wanted}." for one in ranges if one != wanted]
    return told


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if told := problems(sys.argv[1]):
        sys.exit("\n".join(told))
    sys.stdout.write(sys.argv[1].rpartition("-v")[0] + "\n")
