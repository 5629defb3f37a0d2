"""ConfigurationError: settings that stop a program at start."""


class ConfigurationError(ValueError):
    """A setting, or a file that it names, is not usable. The message names the setting."""
