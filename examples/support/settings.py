"""What the environment says. `holdfast demo` sets all of it."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("SUPPORT_FOLDER", "."))
"""Where the databases, the ledger and the model server's log are."""

MODEL_URL = os.environ.get("SUPPORT_MODEL_URL", "http://127.0.0.1:8000/v1")
CUSTOMERS = int(os.environ.get("SUPPORT_CUSTOMERS", "50"))
SEED = int(os.environ.get("SUPPORT_SEED", "1"))

PACE = float(os.environ.get("SUPPORT_PACE", "1.0"))
"""How long the model and the bank take, 1.0 being about as long as real ones."""
