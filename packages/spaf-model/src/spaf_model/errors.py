"""The error that a user can cause."""


class InputError(ValueError):
    """An argument or a file that cannot be used, told in one sentence that names it and the choices."""
