"""The one exception that is meant for the person at the keyboard."""


class InputError(ValueError):
    """The user must change a file or a flag; the message is a sentence that names it and says what to do."""
