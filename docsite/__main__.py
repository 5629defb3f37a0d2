"""The command `python -m docsite`."""

import shutil
import sys
from pathlib import Path

from docsite import site
from docsite.pages import MissingTargetError


def main() -> None:
    """Write the sources of the site to the folder that the argument names."""
    [folder] = map(Path, sys.argv[1:])
    shutil.rmtree(folder, ignore_errors=True)
    try:
        site.write(Path.cwd(), folder)
    except (MissingTargetError, site.NavigationError) as error:
        sys.exit(f"docsite: {error}")


if __name__ == "__main__":
    main()
