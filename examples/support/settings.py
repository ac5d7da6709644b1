"""The settings from the environment. `holdfast demo` sets them all."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("SUPPORT_FOLDER", "."))
"""The folder of the databases, the ledger and the model server's log."""

MODEL_URL = os.environ.get("SUPPORT_MODEL_URL", "http://127.0.0.1:8000/v1")
CUSTOMERS = int(os.environ.get("SUPPORT_CUSTOMERS", "50"))
SEED = int(os.environ.get("SUPPORT_SEED", "1"))

PACE = float(os.environ.get("SUPPORT_PACE", "1.0"))
"""How slow the model and the bank are; 1.0 is about as slow as real ones."""
