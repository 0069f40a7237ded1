"""Write the recipes for conda-forge from the packages' metadata; ``--check`` says whether they are up to date.

python release/recipes.py [--check]
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path
from string import Template

HERE = Path(__file__).parent
PACKAGES = HERE.parent / "packages"
OTHER_NAMES = {"torch": "pytorch"}  # what conda-forge calls differently

RECIPE = Template("""\
# For conda-forge, made by recipes.py. INDEX, SHA256 and OWNER are known with the first release (RELEASING.md).
schema_version: 1

context:
  version: "$version"
  python_min: "$python"

package:
  name: $name
  version: $${{ version }}

source:
  url: https://INDEX/packages/source/${letter}/$name/$module-$${{ version }}.tar.gz
  sha256: SHA256

build:
  number: 0
  noarch: python
  script: $${{ PYTHON }} -m pip install . -vv --no-deps --no-build-isolation
  python:
    entry_points:
      - $command = $target

requirements:
  host:
    - python $${{ python_min }}.*
    - pip
$host
  run:
    - python >=$${{ python_min }}
$run

tests:
  - python:
      imports: [$module]
      python_version: $${{ python_min }}.*
  - script: [$command --help]

about:
  summary: "$description"
  license: $license
  license_file: LICENSE
  homepage: https://github.com/OWNER/spaf
  documentation: https://OWNER.github.io/spaf

extra:
  recipe-maintainers: [OWNER]
""")


def conda_requirement(requirement: str) -> str:
    """Return a requirement as conda writes it: a space between name and versions."""
    name, versions = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", requirement).groups()
    return f"{OTHER_NAMES.get(name, name)} {versions}".strip()


def recipe(folder: Path) -> str:
    """Return the recipe of a package."""
    content = tomllib.loads((folder / "pyproject.toml").read_text())
    project = content["project"]
    ((command, target),) = project["scripts"].items()

    def listed(requirements: list[str]) -> str:
        return "\n".join(f"    - {conda_requirement(one)}" for one in requirements)

    return RECIPE.substitute(
        name=project["name"],
        module=project["name"].replace("-", "_"),
        letter=project["name"][0],
        version=project["version"],
        python=project["requires-python"].removeprefix(">="),
        command=command,
        target=target,
        host=listed(content["build-system"]["requires"]),
        run=listed(project["dependencies"]),
        description=project["description"],
        license=project["license"],
    )


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for folder in sorted(path for path in PACKAGES.iterdir() if (path / "pyproject.toml").is_file()):
        file, text = HERE / "conda" / f"{folder.name}.yaml", recipe(folder)
        if not check:
            file.write_text(text)
        elif not file.is_file() or file.read_text() != text:
            sys.exit(f"{file.relative_to(HERE.parent)} is not what the metadata says; run python release/recipes.py.")


if __name__ == "__main__":
    main()
