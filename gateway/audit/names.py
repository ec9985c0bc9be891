"""What requests and answers are called in an audit and in figures."""

from __future__ import annotations

from typing import Final

from ...native import sftp_server as sftp

STATUS_NAMES: Final = {
    sftp.FX_OK: "ok",
    sftp.FX_EOF: "end-of-file",
    sftp.FX_NO_SUCH_FILE: "no-such-file",
    sftp.FX_PERMISSION_DENIED: "permission-denied",
    sftp.FX_FAILURE: "failure",
    sftp.FX_BAD_MESSAGE: "bad-message",
    sftp.FX_NO_CONNECTION: "no-connection",
    sftp.FX_CONNECTION_LOST: "connection-lost",
    sftp.FX_OP_UNSUPPORTED: "unsupported",
}
"""Status code -> its name, after those of the protocol's draft."""


def status_name(code: int) -> str:
    """Return the name of a status code."""
    return STATUS_NAMES.get(code, "other")
