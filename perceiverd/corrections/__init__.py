"""What the operator says about events: right, wrong, missed, and examples of new sounds, each with its sound.

Several programs may write one folder at once. Knows no web page and no training: `train fit --corrections` reads it.
"""

from perceiverd.corrections.manifest import Correction, Verdict
from perceiverd.corrections.store import Corrections

__all__ = ["Correction", "Corrections", "Verdict"]
