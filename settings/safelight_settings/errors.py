"""ConfigurationError: settings, or files that they name, that a program cannot start with."""


class ConfigurationError(ValueError):
    """Settings, or a file that one of them names, cannot be used; the message names the setting."""
