"""Octets written down by hand, so that codec and reference cannot drift away together."""

from __future__ import annotations

from syspuffs.native import frames, sftp, sftp_server
from syspuffs.native.constants import ISLASTCN, FlushOp, OpClass, VnOp
from syspuffs.native.records import (
    FSCRED,
    Componentname,
    Cookie,
    Cred,
    Dirent,
    Newinfo,
    Statvfs,
    Vattr,
)


def octets(text: str) -> bytes:
    """Octets in hexadecimal, with comments behind `#`."""
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in text.splitlines()))


def test_getattr() -> None:
    expected = octets("""
        40000000 0200 0600            # framelen 64, class VN, GETATTR
        0102000000000000              # id
        0d00000000000000              # cookie
        00000000 00000000             # rv, setbacks
        67120000 00000000             # pid 4711, lid
        00000000 00000000             # buflen, payload_len
        e8030000 64000000             # uid, gid
        01000000 04000000             # one group: 4
    """)
    args = (Cred(1000, 100, (4,), 4711),)
    assert frames.encode_request(OpClass.VN, VnOp.GETATTR, 0x201, 13, args) == expected
    header = frames.Header(64, 2, 6, 0x201, 13, 0, 0, 4711, 0, 0, 0)
    assert frames.decode_request(expected) == (header, args)
    assert frames.decode_header(expected) == header


def test_lookup_and_its_reply() -> None:
    expected = octets("""
        4c000000 0200 0000 0500000000000000 0600000000000000
        00000000 00000000 feffffff 00000000 00000000 00000000
        00000000 00800000             # nameiop LOOKUP, flags ISLASTCN
        04000000 6e616d65             # name
        00000000 00000000 00000000    # credentials
    """)
    cn = Componentname(0, b"name", Cred(0, 0, (), -2), ISLASTCN)
    assert frames.encode_request(OpClass.VN, VnOp.LOOKUP, 5, 6, (cn,)) == expected
    assert frames.decode_request(expected)[1] == (cn,)
    reply = octets("""
        7c000000 2200 0000 0500000000000000 0600000000000000
        00000000 00000000 00000000 00000000 00000000 00000000
        0700000000000000 01000000 01000000   # cookie, VREG, with attributes
        0900000000000000 0000000000000000    # size, rdev
        00ca9a3b00000000 0000000000000000    # time-outs: 1 s, 0
        83000000                             # attributes: vtype, mode, size
        0100000000000000 a401000000000000 0900000000000000
    """)
    info = Newinfo(Cookie(7), 1, 9, 0, Vattr(vtype=1, mode=0o644, size=9), 10**9, 0)
    assert frames.encode_reply(OpClass.VN, VnOp.LOOKUP, 5, 6, info) == reply
    assert frames.decode_reply(reply)[1] == info


def test_write_and_read() -> None:
    expected = octets("""
        4b000000 0200 0900 0500000000000000 0600000000000000
        00000000 00000000 ffffffff 00000000 00000000
        03000000                             # 3 octets of payload
        0000010000000000 20000000            # offset, IO_APPEND
        00000000 00000000 00000000           # credentials
        616263
    """)
    args = (65536, b"abc", 0x20, FSCRED)
    assert frames.encode_request(OpClass.VN, VnOp.WRITE, 5, 6, args) == expected[:-3]
    assert frames.decode_request(expected)[1] == args
    reply = octets("""
        33000000 2200 0800 0500000000000000 0600000000000000
        00000000 00000000 00000000 00000000 00000000 03000000
        616263
    """)
    assert frames.encode_reply(OpClass.VN, VnOp.READ, 5, 6, b"abc") == reply[:-3]
    assert frames.decode_reply(reply)[1] == b"abc"


def test_readdir() -> None:
    reply = octets("""
        9a000000 2200 1800 0500000000000000 0600000000000000
        00000000 00000000 00000000 00000000 00000000 00000000
        02000000 01000000                    # two entries, the last ones
        0200000000000000 0100000000000000 02000000 01000000 2e
        0300000000000000 0200000000000000 01010000 01000000 61  # VREG, with newinfo
        0400000000000000 01000000 00000000
        0000000000000000 0000000000000000 0000000000000000 0000000000000000
    """)
    entries = (Dirent(2, 2, b".", 1), Dirent(3, 1, b"a", 2, Newinfo(Cookie(4), 1)))
    assert frames.encode_reply(OpClass.VN, VnOp.READDIR, 5, 6, (entries, True)) == reply
    assert frames.decode_reply(reply)[1] == (entries, True)


def test_close_is_fire_and_forget() -> None:
    frame = frames.encode_request(OpClass.VN, VnOp.CLOSE, 0, 6, (1, FSCRED))
    assert frame[4:8] == octets("1200 0400")


def test_flush_and_error() -> None:
    expected = octets("""
        46000000 0500 0500 0100000000000040 0600000000000000
        00000000 00000000 00000000 00000000 00000000 00000000
        0000000000000000 0000000000000000 02000000 6162
    """)
    args = (0, 0, b"ab")
    op = FlushOp.INVAL_NAMECACHE_NAME
    assert frames.encode_request(OpClass.FLUSH, op, 1 << 62 | 1, 6, args) == expected
    error = octets("""
        30000000 2500 0500 0100000000000040 0600000000000000
        02000000 00000000 00000000 00000000 00000000 00000000
    """)
    assert frames.encode_error(OpClass.FLUSH, op, 1 << 62 | 1, 6, 2) == error
    assert frames.decode_reply(error)[1] is None


def test_sftp_requests() -> None:
    attrs = sftp.Attrs(size=1, uid=2, gid=3, mode=0o100644, atime=4, mtime=5)
    wire = "0000000f 0000000000000001 00000002 00000003 000081a4 00000004 00000005"
    assert sftp.init() == octets("00000005 01 00000003")
    assert sftp.lstat(7, b"/a") == octets("0000000b 07 00000007 00000002 2f61")
    assert sftp.open_(7, b"a", sftp.FXF_READ) == octets(
        "00000012 03 00000007 00000001 61 00000001 00000000"
    )
    assert sftp.fsetstat(7, b"h", attrs) == octets("0000002a 0a 00000007 00000001 68" + wire)
    assert sftp.read(7, b"h", 2**32, 261120) == octets(
        "00000016 05 00000007 00000001 68 0000000100000000 0003fc00"
    )
    head = octets("00000019 06 00000007 00000001 68 0000000000000000 00000003")
    assert sftp.write(7, b"h", 0, 3) == head
    assert sftp.symlink(7, b"to", b"at") == octets(
        "00000011 14 00000007 00000002 746f 00000002 6174"
    )
    assert sftp.fsync(7, b"h") == octets("0000001f c8 00000007 00000011") + (
        b"fsync@openssh.com" + octets("00000001 68")
    )
    assert sftp.users_groups_by_id(7, [1], []) == octets("00000033 c8 00000007 0000001e") + (
        b"users-groups-by-id@openssh.com" + octets("00000004 00000001 00000000")
    )


def test_sftp_replies() -> None:
    stream = octets("00000011 02 00000003 00000003 616263 00000001 31 00000005 65 00000007")
    assert sftp.scan(stream, 0, len(stream), 100) == (30, [(2, 0, 5, 21), (101, 7, 30, 30)])
    assert sftp.decode_version(stream[5:21]) == (3, {b"abc": b"1"})
    entry = octets("""
        00000001 61 00000002 2d72
        0000000f 0000000000000001 00000002 00000003 000081a4 00000004 00000005
    """)
    name = sftp.Name(b"a", b"-r", sftp.Attrs(1, 2, 3, 0o100644, 4, 5))
    assert sftp.decode_name(octets("00000001") + entry) == [name]
    assert sftp.decode_name(octets("00000002") + entry * 2) == [name, name]
    assert sftp.decode_attrs(octets("00000004 000041ed")) == sftp.Attrs(mode=0o40755)
    assert sftp.decode_status(octets("00000002 00000001 78 00000000")) == (2, b"x")
    assert sftp.decode_status(octets("00000004")) == (4, b"")
    assert sftp.decode_handle(octets("00000002 0001")) == b"\0\1"
    body = bytearray(octets("00000003 616263"))
    data = sftp.decode_data(body)
    assert bytes(data) == b"abc"
    assert data.obj is body
    words = b"".join(v.to_bytes(8, "big") for v in range(1, 12))
    assert sftp.decode_statvfs(words) == Statvfs(*range(1, 12))
    assert sftp.decode_limits(words) == sftp.Limits(1, 2, 3, 4)


def test_sftp_server_replies() -> None:
    attrs = sftp.Attrs(size=1, uid=2, gid=3, mode=0o100644, atime=4, mtime=5)
    wire = "0000000f 0000000000000001 00000002 00000003 000081a4 00000004 00000005"
    assert sftp_server.version({b"a@b": b"1"}) == octets(
        "00000011 02 00000003 00000003 614062 00000001 31"
    )
    assert sftp_server.status(7, sftp.FX_NO_SUCH_FILE, b"No", b"en") == octets(
        "00000015 65 00000007 00000002 00000002 4e6f 00000002 656e"
    )
    assert sftp_server.handle(7, b"\0\1") == octets("0000000b 66 00000007 00000002 0001")
    assert sftp_server.data_head(7, 261120) == octets("0003fc09 67 00000007 0003fc00")
    assert sftp_server.attrs(7, attrs) == octets("00000025 69 00000007" + wire)
    assert sftp_server.attrs(7, sftp.Attrs(mode=0o40755)) == octets(
        "0000000d 69 00000007 00000004 000041ed"
    )
    assert sftp_server.name(7, [sftp.Name(b"a", b"-r", attrs), sftp.Name(b"b", b"", attrs)]) == (
        octets("0000005d 68 00000007 00000002 00000001 61 00000002 2d72" + wire)
        + octets("00000001 62 00000000" + wire)
    )
    assert sftp_server.path(7, b"/a") == octets(
        "00000019 68 00000007 00000001 00000002 2f61 00000002 2f61 00000000"
    )
    words = "".join(f"{v:016x}" for v in (2**64 - 1, 2, 3, 4))
    assert sftp_server.limits(7, sftp.Limits(2**64 - 1, 2, 3, 4)) == octets(
        "00000025 c9 00000007" + words
    )
    words = "".join(f"{v:016x}" for v in range(1, 12))
    state = Statvfs(*range(1, 12))
    assert sftp_server.statvfs(7, state) == octets("0000005d c9 00000007" + words)
    assert sftp_server.users_groups(7, [b"u", b""], [b"gg"]) == octets(
        "0000001c c9 00000007 00000009 00000001 75 00000000 00000006 00000002 6767"
    )


def test_sftp_requests_at_the_server() -> None:
    def decode(text: str, type: int) -> sftp_server.Request:
        packet = octets(text)
        rest, ((kind, id, start, end),) = sftp_server.scan(packet, 0, len(packet), 100)
        assert (rest, kind, id) == (len(packet), type, 7)
        return sftp_server.decode_request(packet, kind, id, start, end)

    assert decode("00000012 03 00000007 00000001 61 0000001a 00000000", 3) == sftp_server.Open(
        7, b"a", sftp.FXF_WRITE | sftp.FXF_CREAT | sftp.FXF_TRUNC, sftp.NO_ATTRS
    )
    request = decode("0000001a 06 00000007 00000002 6869 0000000100000000 00000002 6162ff", 6)
    assert request == sftp_server.Write(7, b"hi", 2**32, memoryview(b"ab"))
    copy = "00000034 c8 00000007 00000009 636f70792d64617461 00000001 68 0000000000000001"
    copy += "ffffffffffffffff 00000001 69 0000000000000002"
    assert decode(copy, 200) == sftp_server.CopyData(7, b"h", 1, 2**64 - 1, b"i", 2)
    stream = octets("00000005 01 00000003")
    assert sftp_server.scan(stream, 0, 9, 100) == (9, [(1, 0, 5, 9)])
    assert sftp_server.decode_request(stream, 1, 0, 5, 9) == sftp_server.Init(3, {})
