"""Docsite: the sources of the documentation site, from `docs/` and from the code itself.

`python -m docsite FOLDER` writes Markdown for Zensical to FOLDER: the pages of `docs/`, the files
that they link to, and a reference of the contract, the Python client, the settings and the errors.
"""
