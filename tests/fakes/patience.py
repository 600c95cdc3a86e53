"""How long a test waits for what has to happen. Only a test that fails waits so long."""

from __future__ import annotations

PATIENCE_S = 120.0
