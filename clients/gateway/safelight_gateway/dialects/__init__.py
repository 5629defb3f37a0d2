"""The dialects: each module translates one API to and from the internal request."""
