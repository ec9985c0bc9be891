"""What works on an SFTP server, and what will not: `puffsctl doctor`.

`checks` looks and leaves nothing behind; `trials` makes things in a directory of its own, with
leave, and removes it whatever happens; `report` prints.
"""

from .checks import examine
from .findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
