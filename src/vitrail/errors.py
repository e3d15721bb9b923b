"""What went wrong, said to the person who can mend it."""


class UserError(ValueError):
    """Wrong input: the message names the value and the remedy; the command line exits with 2."""
