"""The sessions of SpaF: ``demo`` (the main job on real data), ``tests``, ``lint`` and ``alone``.

Run one with ``nox -s NAME``; what follows ``--`` goes to the session: options of pytest for ``tests``, the input of
``spaf-data build`` for ``demo`` (``nox -s demo -- FOLDER --tissue Lung``).
"""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["tests", "lint", "alone"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")

# In the order of their dependencies: each package needs some of those before it.
PACKAGES = ("spaf-data", "spaf-model", "spaf-train", "spaf-analysis")
NEEDS = {
    "spaf-data": (),
    "spaf-model": (),
    "spaf-train": ("spaf-data", "spaf-model"),
    "spaf-analysis": ("spaf-data", "spaf-model", "spaf-train"),
}

# OpenMP threads that spin while they wait slow each other down tenfold on a busy machine.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def install(session: nox.Session, *packages: str, editable: bool = False, groups: tuple[str, ...] = ()) -> None:
    """Install packages of ours, and dependency groups, within ``constraints.txt``."""
    paths = [argument for name in packages for argument in (*(["-e"] if editable else []), f"./packages/{name}")]
    tools = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    # Without --no-compile pip spends a third of the installation on bytecode that is mostly never imported.
    session.install("--no-compile", "-c", "constraints.txt", *paths, *tools)


@nox.session
def demo(session: nox.Session) -> None:
    """From real transcripts to ``demo/report.html``, through the four command lines."""
    install(session, *PACKAGES)
    source = session.posargs or ["--dataset", "xenium_breast_window"]
    out = ROOT / "demo"
    shutil.rmtree(out, ignore_errors=True)
    build, run, embedded = out / "build", out / "run", out / "embedded.h5ad"
    session.env.update(THREADS)
    session.run("spaf-data", "build", *source, "--out", str(build))
    session.run("spaf-train", "pretrain", "--data", str(build / "corpus"), "--out", str(run))
    (slide,) = (build / "slides").glob("*.h5ad")
    session.run("spaf-model", "embed", str(slide), "--model", str(run / "model"), "-o", str(embedded))
    session.run(
        "spaf-analysis",
        "report",
        str(embedded),
        *("--model", str(run / "model"), "--run", str(run), "--build", str(build)),
        *("-o", str(out / "report.html"), "--summary", str(out / "summary.json")),
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Every package's tests, on the CPU and without the network."""
    install(session, *PACKAGES, editable=True, groups=("test",))
    session.run("pytest", "--numprocesses", "auto", *session.posargs, env=THREADS)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and who may import whom."""
    install(session, *PACKAGES, editable=True, groups=("lint",))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy", *(f"packages/{name}/src" for name in PACKAGES))
    session.run("lint-imports")


@nox.session
@nox.parametrize("package", PACKAGES)
def alone(session: nox.Session, package: str) -> None:
    """One package with only what it declares imports, does its smallest real job, and lacks what it must not need."""
    install(session, *NEEDS[package], package)
    # From a folder of its own, so that nothing is imported from the source tree by accident.
    script = ROOT / "packages" / package / "tests" / "alone.py"
    session.chdir(session.create_tmp())
    session.run("python", "-W", "error", str(script), env=THREADS)
