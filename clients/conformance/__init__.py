"""The conformance kit: vectors, and what plays them to clients of any language."""
