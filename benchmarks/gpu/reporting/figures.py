"""Figures: the records of runs, read back from their file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Figure:
    """Measurement with its conditions, or the error that prevented it."""

    stage: str
    name: str
    values: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        """Type and text of the exception; None without one."""
        if "error" not in self.values:
            return None
        text = " ".join(str(self.values.get("text", "")).split())
        return f"{self.values['error']}: {text}" if text else str(self.values["error"])


@dataclass(slots=True)
class Figures:
    """Figures of one machine, from the last run of each stage."""

    machine: Mapping[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    endings: dict[str, str] = field(default_factory=dict)
    """Ending by stage: the driver's word, "skipped", or "cut off" without an ending."""

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file of JSON lines.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no run, or runs on several machines.
        """
        figures = cls()
        for line in file.read_text().splitlines():
            values = json.loads(line)
            figures._add(values.pop("stage"), values.pop("name"), values)
        if not figures.machine:
            raise ValueError(f"{file} describes no machine")
        return figures

    @property
    def is_rehearsal(self) -> bool:
        """Whether a rehearsal made them, so that they mean nothing."""
        return bool(self.machine.get("is_rehearsal"))

    def all(self, name: str) -> Iterator[Figure]:
        """Yield the measured figures of a name."""
        return (each for each in self.figures if each.name == name and each.error is None)

    def failures(self) -> Iterator[Figure]:
        """Yield the figures that failed."""
        return (each for each in self.figures if each.error is not None)

    def value(self, stage: str, name: str, key: str, **conditions: object) -> float | None:
        """Return value `key` of the first figure that meets the conditions; None without one."""
        for figure in self.all(name):
            is_met = conditions.items() <= figure.values.items()
            if figure.stage == stage and is_met and key in figure.values:
                return float(figure.values[key])
        return None

    def _add(self, stage: str, name: str, values: dict[str, Any]) -> None:
        values.pop("t")
        if name == "machine":
            if self.machine and self.machine != values:
                raise ValueError(
                    f"the figures are of two machines, {self.machine} and {values}; "
                    "use one --out folder for each machine"
                )
            self.machine = values
        elif name == "began":
            self.figures = [figure for figure in self.figures if figure.stage != stage]
            self.endings[stage] = "cut off"
        elif name == "ended":
            self.endings[stage] = values["ending"]
        elif name == "skipped":
            self.endings.setdefault(stage, "skipped")
        else:
            self.figures.append(Figure(stage, name, values))
