"""Clients of other languages and a real Envoy: `make test-conformance` builds and installs them, and says where."""

from __future__ import annotations

import os

# Without them there is nothing to run; `make test` has the same cases with the clients of Python.
collect_ignore_glob = [] if "TIDEGATE_CONFORMANCE_TOOLS" in os.environ else ["test_*.py"]
