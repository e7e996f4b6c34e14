"""The one error that says what the user has to change."""


class Misuse(Exception):
    """Something is not as it must be; the message is a sentence that says what, and what to do."""
