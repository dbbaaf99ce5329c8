"""Every message of every protocol.

Rules: tagged, frozen structs; fields are only ever appended, with a default, so that an older peer still reads them;
a decode error becomes `RemoteProtocolError` at one door, `decode()`. Integers only where something is signed or
metered: microseconds end in `_us`, mebibytes in `_mib`, thousandths in `_milli`.
"""

from potluck.wire.common import (
    PAYLOAD_BYTES_MAX,
    PROTOCOL,
    Failure,
    FunctionSpec,
    Message,
    RemoteException,
    Resources,
    RetryPolicy,
    Scaling,
    Sharing,
    decode,
    encode,
    function_id,
)

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "PROTOCOL",
    "Failure",
    "FunctionSpec",
    "Message",
    "RemoteException",
    "Resources",
    "RetryPolicy",
    "Scaling",
    "Sharing",
    "decode",
    "encode",
    "function_id",
]
