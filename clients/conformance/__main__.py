"""The conformance kit as a program."""

import os
import sys

# Breaking connections is what vectors do. gRPC reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from clients.conformance.command import main

if __name__ == "__main__":
    sys.exit(main())
