"""meter: counts what goes by, by operation, with how long it took and what it was about.

Stands in a stack only while somebody looks (`puffsctl top`), so that nobody else pays for it. Times
are kept in classes that are an eighth wide at most, for percentiles; nodes by how often they were
asked about, the busiest of them. Counting takes 1.9 us an operation (getattr of tmpfs: 1.8 us).
"""

from .histogram import Histogram
from .server import Figures, Meter

__all__ = ["Figures", "Histogram", "Meter"]
