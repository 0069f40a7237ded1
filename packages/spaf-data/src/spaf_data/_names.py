"""Names under which results are stored."""

from spaf_data.errors import InputError


def check_key(key: str, option: str = "key_added") -> None:
    """Raise an `InputError` where nothing can be stored in an h5ad under a name: an empty one, or one with a slash."""
    if not key or "/" in key or "\0" in key or key in (".", ".."):
        raise InputError(f"{option} is the name of a key in the AnnData; it must not be empty or hold '/', as {key!r}")
