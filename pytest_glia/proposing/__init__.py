"""From a search that is not trusted to a pull request: what may pass, and how it is shown to hold."""


class Refused(Exception):
    """What a search handed over is not taken; the message says why."""
