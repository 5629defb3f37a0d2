"""The dialects: each module translates one API to and from the internal request.

A module has `routes(gateway)`; adding a provider is adding a module to `app.py`'s list.
"""
