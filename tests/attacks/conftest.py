"""The independent CKKS decryption of the golden vectors is also the attacker's."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
