"""The one exception that a user's input can cause."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what is wrong, where, the value found and the remedy. The command line prints it alone and exits
    with code 2; everything else that is raised is a defect of the package and keeps its traceback.
    """
