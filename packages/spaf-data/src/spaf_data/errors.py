"""The one error of this package that a user can cause."""


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a gene or an option.

    The message is one sentence that names the thing and, where there are any, the choices. Command lines print
    it on one line and exit with code 2.
    """
