"""The error that a user can cause."""


class InputError(ValueError):
    """Input or options that cannot be used; the message is one sentence that names the thing and the choices."""
