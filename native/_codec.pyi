"""The C codec as Python sees it; codec.h says what each function does."""

from collections.abc import Callable as _Callable
from typing import Any as _Any
from typing import Final as _Final
from typing import TypeAlias as _TypeAlias
from typing import overload as _overload

from typing_extensions import Buffer as _Readable

class _CData:
    """A C array; goes to functions as a pointer."""

class _Octets:
    """The memory of a C array: `[a:b]` copies it out as bytes."""

    @_overload
    def __getitem__(self, index: slice) -> bytes: ...
    @_overload
    def __getitem__(self, index: int) -> bytes: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class _Ffi:
    """The part of cffi's ffi object that the faces use."""

    def new(self, cdecl: str, init: _Any = ...) -> _CData: ...
    def buffer(self, cdata: _CData, size: int = ...) -> _Octets: ...
    def new_allocator(
        self, *, should_clear_after_alloc: bool = ...
    ) -> _Callable[[str, int], _CData]: ...
    def from_buffer(self, python_buffer: _Readable) -> _CData: ...

_In: _TypeAlias = bytes | _CData

class _Lib:
    CODEC_SHORT: _Final = -1
    CODEC_LENGTH: _Final = -2
    CODEC_VALUE: _Final = -3
    CODEC_NAME: _Final = -4
    CODEC_TRAILING: _Final = -5
    CODEC_OP: _Final = -6
    CODEC_COOKIE: _Final = -7
    CODEC_SPACE: _Final = -8
    FRAME_HEADER_LEN: _Final = 48
    FRAME_MAX: int
    FRAME_HEADER_SLOTS: _Final = 11
    FRAME_VNOVAL: int
    FRAME_NEWINFO_SLOTS: _Final = 25
    FRAME_DIRENT_COLUMNS: _Final = 5
    SFTP_REQUEST_MAX: _Final = 34000
    SFTP_HANDLE_MAX: _Final = 256
    SFTP_MAX_EXTENSIONS: _Final = 256
    SFTP_ATTRS_SLOTS: _Final = 7
    SFTP_NAME_COLUMNS: _Final = 11
    PACKED_LEN: _Final = 31
    PACKED_NO_OWNER: _Final = 16
    SFTP_NAME_ENCODE_SLOTS: _Final = 9
    SFTP_REQUEST_SLOTS: int
    SFTP_KIND_EXTENSION: _Final = 256
    FUSE_REQUEST_MAX: _Final = 65536
    FUSE_DATA_MAX: int
    FUSE_DECODE_SLOTS: _Final = 32
    FUSE_KIND_NOTIFY: _Final = 64
    FUSE_KIND_ENTRY: _Final = 1
    FUSE_KIND_ATTR: _Final = 2
    FUSE_KIND_OPEN: _Final = 3
    FUSE_KIND_CREATE: _Final = 4
    FUSE_KIND_COUNT: _Final = 5
    FUSE_KIND_OFFSET: _Final = 6
    FUSE_KIND_STATFS: _Final = 7
    FUSE_KIND_LOCK: _Final = 8
    FUSE_KIND_INIT: _Final = 9
    FUSE_KIND_DIRENTS: _Final = 10
    FUSE_KIND_DIRENTS_PLUS: _Final = 11
    FUSE_ATTR_SLOTS: _Final = 12
    FUSE_DIRENT_SLOTS: _Final = 18

    def frame_length(self, buf: _In, len: int, /) -> int: ...
    def frame_header(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def frame_decode_request(
        self, buf: _In, len: int, beside: int, tab: _CData, cap: int, /
    ) -> int: ...
    def frame_decode_reply(
        self, buf: _In, len: int, beside: int, tab: _CData, cap: int, /
    ) -> int: ...
    def frame_encode_request(
        self,
        out: _CData,
        cap: int,
        opclass: int,
        optype: int,
        id: int,
        cookie: int,
        pid: int,
        buflen: int,
        payload_len: int,
        tab: _CData,
        n: int,
        base: _In,
        baselen: int,
        /,
    ) -> int: ...
    def frame_encode_reply(
        self,
        out: _CData,
        cap: int,
        opclass: int,
        optype: int,
        id: int,
        cookie: int,
        rv: int,
        setbacks: int,
        payload_len: int,
        tab: _CData,
        n: int,
        base: _In,
        baselen: int,
        /,
    ) -> int: ...
    def sftp_scan(
        self,
        buf: _In,
        len: int,
        start: int,
        end: int,
        max_packet: int,
        tab: _CData,
        cap: int,
        /,
    ) -> int: ...
    def sftp_encode(
        self,
        out: _CData,
        cap: int,
        type: int,
        id: int,
        ext: _In,
        extlen: int,
        form: bytes,
        tab: _CData,
        n: int,
        base: _In,
        baselen: int,
        /,
    ) -> int: ...
    def sftp_decode_version(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def sftp_decode_status(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def sftp_decode_attrs(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def sftp_decode_name(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def sftp_decode_u64s(self, buf: _In, len: int, tab: _CData, n: int, /) -> int: ...
    def sftp_decode_users_groups(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def sftp_decode_listing(
        self, buf: _In, len: int, tab: _CData, cap: int, packed: _CData, packedlen: int, /
    ) -> int: ...
    def sftp_name_numbers(
        self, directory: int, names: _In, len: int, tab: _CData, n: int, /
    ) -> int: ...
    def sftp_decode_request(
        self,
        buf: _In,
        len: int,
        start: int,
        end: int,
        type: int,
        tab: _CData,
        cap: int,
        /,
    ) -> int: ...
    def sftp_encode_name(
        self,
        out: _CData,
        cap: int,
        id: int,
        tab: _CData,
        n: int,
        names: _In,
        nameslen: int,
        longnames: _In,
        longlen: int,
        /,
    ) -> int: ...
    def fuse_encode(
        self,
        out: _CData,
        cap: int,
        opcode: int,
        unique: int,
        nodeid: int,
        uid: int,
        gid: int,
        pid: int,
        form: bytes,
        tab: _CData,
        n: int,
        base: _In,
        baselen: int,
        /,
    ) -> int: ...
    def fuse_header(self, buf: _In, len: int, total: int, tab: _CData, cap: int, /) -> int: ...
    def fuse_decode(self, buf: _In, len: int, kind: int, tab: _CData, cap: int, /) -> int: ...
    def fuse_decode_request(self, buf: _In, len: int, tab: _CData, cap: int, /) -> int: ...
    def fuse_encode_reply(
        self, out: _CData, cap: int, unique: int, kind: int, tab: _CData, n: int, /
    ) -> int: ...
    def fuse_encode_dirents(
        self,
        out: _CData,
        cap: int,
        unique: int,
        tab: _CData,
        n: int,
        names: _In,
        nameslen: int,
        /,
    ) -> int: ...
    def fuse_encode_page(
        self,
        out: _CData,
        cap: int,
        tab: _CData,
        n: int,
        packed: _In,
        packedlen: int,
        names: _In,
        nameslen: int,
        /,
    ) -> int: ...

ffi: _Ffi
lib: _Lib
