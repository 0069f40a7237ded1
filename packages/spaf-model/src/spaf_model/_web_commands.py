"""The commands ``spaf-model fetch`` and ``spaf-model publish``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from spaf_model.fetching import fetch_model
from spaf_model.published_models import MANIFEST_FILE, PublishedFile, publish_model

logger = logging.getLogger(__name__)

_Named = Annotated[str, typer.Argument(metavar="NAME@REVISION", help="Of a model; a revision never changes.")]


def add_to(app: typer.Typer) -> None:
    """Give the command line both commands."""
    app.command()(fetch)
    app.command()(publish)


def fetch(
    model: _Named,
    base_url: Annotated[str, typer.Option(metavar="URL", help="Where it is: URL/NAME/REVISION/manifest.json.")],
    sha256: Annotated[str | None, typer.Option(help="Of the manifest, as `publish` told it.")] = None,
) -> None:
    """Fetch a model from the web; --model NAME@REVISION of every command has it from then on, without the network.

    For example:

    \b
    spaf-model fetch breast@2026-11 --base-url https://lab.example/models
    spaf-model embed slide.h5ad --model breast@2026-11 -o embedded.h5ad
    """
    typer.echo(fetch_model(model, base_url, sha256=sha256))


def publish(
    model_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Model directory.")],
    model: _Named,
    place: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="What a web server gives, or will.")],
) -> None:
    """Put a model where a web server gives it to `fetch`: its files, with the size and SHA-256 of each.

    For example:

    \b
    spaf-model publish runs/own/model breast@2026-11 --to www/models
    """
    folder = publish_model(model_dir, model, place)
    logger.info(
        "Wrote %s; its %s has SHA-256 %s", folder, MANIFEST_FILE, PublishedFile.of(folder / MANIFEST_FILE).sha256
    )
