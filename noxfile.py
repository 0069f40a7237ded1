"""The sessions of SpaF.

``demo`` is the main job on real data, ``benchmark`` judges models beside baselines on them; ``tests`` (with the
examples of docstrings), ``lint`` and ``alone`` are what a change must pass; ``lowest`` and ``newest`` are ``alone``
with the lowest versions that are declared, and with the newest; ``docs`` builds the site, and ``build`` makes and
checks what an index would be given.

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

# Tutorials that train, or compile kernels: `nox -s docs -- quick` shows their code and does not run it.
LONG_TUTORIALS = [
    f"tutorials/{name}.md"
    for name in (
        "annotation",
        "cells_together",
        "corpus",
        "embedding",
        "finetuning",
        "gene_pairs",
        "imputation",
        "integration",
        "interactions",
        "pretraining",
        "report",
    )
]

# OpenMP threads that spin while they wait slow each other down tenfold on a busy machine.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}


def install(session: nox.Session, *packages: str, editable: bool = False, groups: tuple[str, ...] = ()) -> None:
    """Install packages of ours, and dependency groups, within ``constraints.txt``."""
    paths = [argument for name in packages for argument in (*(["-e"] if editable else []), f"./packages/{name}")]
    tools = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    # Without --no-compile pip spends a third of the installation on bytecode that is mostly never imported.
    session.install("--no-compile", "-c", "constraints.txt", *paths, *tools)


def built(session: nox.Session, *packages: str) -> list[str]:
    """Return wheels of packages of ours, each of which is built once for all sessions of a run."""
    folder = Path(session.cache_dir) / "wheels"
    missing = [name for name in packages if name not in _BUILT]
    for name in missing:
        for old in folder.glob(f"{name.replace('-', '_')}-*.whl"):
            old.unlink()
    if missing:
        session.run(
            "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), *(f"./packages/{name}" for name in missing)
        )
    for name in missing:
        (_BUILT[name],) = map(str, folder.glob(f"{name.replace('-', '_')}-*.whl"))
    return [_BUILT[name] for name in packages]


_BUILT: dict[str, str] = {}


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
def benchmark(session: nox.Session) -> None:
    """Every task, method and baseline in one table: public data by name, or the configuration that follows ``--``."""
    install(session, *PACKAGES)
    # Harmony is an extra that nothing else needs; without it its rows are left out.
    session.install("-c", "constraints.txt", "harmonypy>=2.0")
    given = session.posargs or [str(ROOT / "benchmarks" / "public.toml")]
    if not {"-o", "--out"} & set(given):
        given = [*given, "-o", str(ROOT / "benchmark")]
    session.run("spaf-analysis", "benchmark", *given, env=THREADS)


@nox.session
def tests(session: nox.Session) -> None:
    """Every package's tests and the examples of their docstrings, on the CPU and without the network."""
    install(session, *PACKAGES, editable=True, groups=("test",))
    # What follows names what to test; else all of it in one run, that no processor waits for the end of a first one.
    parts = [f"packages/{name}/{folder}" for name in PACKAGES for folder in ("tests", "src")]
    everything = ["--doctest-modules", "--ignore-glob=*/tests/alone.py", *parts]
    session.run("pytest", "--numprocesses", "auto", *(session.posargs or everything), env=THREADS)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, types, and who may import whom."""
    install(session, *PACKAGES, editable=True, groups=("lint",))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("mypy", *(f"packages/{name}/src" for name in PACKAGES))
    session.run("lint-imports")


def smallest_job(session: nox.Session, package: str, *options: str) -> None:
    """Run ``tests/alone.py`` of a package from a folder of its own, so that nothing comes from the source tree."""
    script = ROOT / "packages" / package / "tests" / "alone.py"
    session.chdir(session.create_tmp())
    session.run("python", *options, str(script), env=THREADS)


@nox.session
@nox.parametrize("package", PACKAGES)
def alone(session: nox.Session, package: str) -> None:
    """One package with only what it declares imports, does its smallest real job, and lacks what it must not need."""
    ours = (*NEEDS[package], package)
    session.run("pip", "uninstall", "--quiet", "--yes", *ours)  # pip keeps a wheel of the same version
    session.install("--no-compile", "-c", "constraints.txt", *built(session, *ours))
    smallest_job(session, package, "-W", "error")


@nox.session(python="3.11")
@nox.parametrize("package", PACKAGES)
def lowest(session: nox.Session, package: str) -> None:
    """One package does its smallest real job with the lowest versions that it declares, on the lowest Python."""
    # pip always takes the newest; uv can take the lowest of what is declared, and the newest of what that needs.
    session.install("uv")
    paths = [f"./packages/{name}" for name in (*NEEDS[package], package)]
    python = Path(session.bin) / "python"
    session.run("uv", "pip", "install", "--python", str(python), "--resolution", "lowest-direct", *paths)
    # Old releases warn of what newer ones of what they need no longer like, so warnings are no errors here.
    smallest_job(session, package)


@nox.session
@nox.parametrize("package", PACKAGES)
def newest(session: nox.Session, package: str) -> None:
    """One package does its smallest real job with the newest releases of all, whatever ``constraints.txt`` says."""
    paths = [f"./packages/{name}" for name in (*NEEDS[package], package)]
    session.install("--no-compile", "--upgrade", "--upgrade-strategy", "eager", *paths)
    smallest_job(session, package)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in ``docs/_build/html`` and run its tutorials; with ``-- quick`` only those of seconds."""
    install(session, *PACKAGES, groups=("docs",))
    # Harmony is an extra that nothing else needs; its rows belong on the page about batches.
    session.install("-c", "constraints.txt", "harmonypy>=2.0")
    out = ROOT / "docs" / "_build" / "html"
    left_out = LONG_TUTORIALS if session.posargs == ["quick"] else []
    environment = {**THREADS, "SPAF_DOCS_NOT_RUN": " ".join(left_out)}
    session.run("python", "-m", "sphinx", "-W", "--keep-going", str(ROOT / "docs"), str(out), env=environment)
    session.log(f"open {out / 'index.html'}")


def distributions(session: nox.Session, *packages: str) -> None:
    """Make the source archive and the wheel of packages in ``dist/``, and check what an index would be told."""
    # The registry's own lists of classifiers and rules for names and licences.
    session.install("build", "twine", "validate-pyproject", "trove-classifiers", "packaging>=24.2")
    session.run("validate-pyproject", *(f"packages/{name}/pyproject.toml" for name in packages))
    session.run("python", "release/recipes.py", "--check")
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    for name in packages:
        session.run("python", "-m", "build", "--outdir", str(out), f"packages/{name}")
    made = sorted(map(str, out.iterdir()))
    if len(made) != 2 * len(packages):
        session.error(f"expected an archive and a wheel of each of {len(packages)} packages, but made {made}")
    session.run("twine", "check", "--strict", *made)


@nox.session
def build(session: nox.Session) -> None:
    """Make and check in ``dist/`` what an index would be given of every package."""
    distributions(session, *PACKAGES)


@nox.session
def release(session: nox.Session) -> None:
    """Make in ``dist/`` what an index is given of the package whose tag follows ``--``; see RELEASING.md."""
    (tag,) = session.posargs or session.error("name the tag: nox -s release -- NAME-vVERSION")
    session.run("python", "release/check.py", tag)
    distributions(session, tag.rpartition("-v")[0])


@nox.session
def workflows(session: nox.Session) -> None:
    """Look for what GitHub would not understand in the workflows, and for what somebody else could abuse."""
    session.install("check-jsonschema", "zizmor")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/ci.yml")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/release.yml")
    session.run("zizmor", "--offline", ".github/workflows")
