"""Problems: pydantic's validation errors, as one line each for an operator."""

from collections.abc import Callable

from pydantic import BaseModel, ValidationError

from safelight_settings import keys


def describe_problems(
    error: ValidationError,
    model: type[BaseModel],
    locate: Callable[[keys.Path], str] = keys.write_path,
) -> list[str]:
    """Describe each error in one line, without the values, which may be secrets.

    `locate` returns the place of a value.
    """
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = locate(problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where} is not a setting{keys.suggest_key(model, problem['loc'])}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}" if where else message)
    return lines
