/*
 * The C half of native/: messages to tables of numbers and back.
 *
 * Rules for every function here. It owns no memory, allocates nothing and keeps no pointer after
 * it returns. `buf`, `base` and `len` describe what is read, and nothing outside is; `tab` and
 * `cap` (counted in elements) what is written, and nothing beyond is. The result is a count that
 * is never negative, or one of the CODEC_ codes; after a code the table holds rubbish.
 * Strings are never copied into a table: a pair (start, end) of octets says where they lie.
 */
#ifndef SYSPUFFS_CODEC_H
#define SYSPUFFS_CODEC_H

#include <stddef.h>
#include <stdint.h>

enum {
	CODEC_SHORT = -1,    /* the message ends inside a field */
	CODEC_LENGTH = -2,   /* a length is over its limit, or contradicts another one */
	CODEC_VALUE = -3,    /* a number is outside its range */
	CODEC_NAME = -4,     /* a name is empty, too long, or has NUL or '/' in it */
	CODEC_TRAILING = -5, /* octets are left over behind the message */
	CODEC_OP = -6,       /* no such operation, or not in this direction */
	CODEC_COOKIE = -7,   /* a cookie is 0 or not below 2**63 */
	CODEC_SPACE = -8     /* the table or the output is too small: nothing is wrong with the peer */
};

#define FRAME_HEADER_LEN 48
#define FRAME_MAX (2 * 1024 * 1024)
#define FRAME_HEADER_SLOTS 11
#define FRAME_VNOVAL INT64_MIN
#define FRAME_NEWINFO_SLOTS 25
#define FRAME_DIRENT_COLUMNS 5

/* Length of the frame at `buf`, 0 when fewer than 4 octets are there, or a code. */
int64_t frame_length(const void *buf, size_t len);

/* Header into 11 slots of `tab`; returns 11. `len` may be longer than the header. */
int64_t frame_header(const void *buf, size_t len, int64_t *tab, size_t cap);

/*
 * A whole message. `beside` is the number of payload octets that lie elsewhere, -1 when the
 * payload is part of `buf`. Slots: 11 of the header, then those of the operation, then groups.
 * Returns the number of slots.
 */
int64_t frame_decode_request(const void *buf, size_t len, int64_t beside, int64_t *tab,
    size_t cap);
int64_t frame_decode_reply(const void *buf, size_t len, int64_t beside, int64_t *tab, size_t cap);

/*
 * The reverse: `tab` has `n` slots (those of the operation, then groups), strings lie in `base`.
 * The frame without its payload goes to `out`; returns its length. `rv` other than 0 makes an
 * error reply, which has no slots.
 */
int64_t frame_encode_request(void *out, size_t cap, int64_t opclass, int64_t optype, int64_t id,
    int64_t cookie, int64_t pid, int64_t buflen, int64_t payload_len, const int64_t *tab,
    size_t n, const void *base, size_t baselen);
int64_t frame_encode_reply(void *out, size_t cap, int64_t opclass, int64_t optype, int64_t id,
    int64_t cookie, int64_t rv, int64_t setbacks, int64_t payload_len, const int64_t *tab,
    size_t n, const void *base, size_t baselen);

#define SFTP_REQUEST_MAX 34000
#define SFTP_HANDLE_MAX 256
#define SFTP_MAX_EXTENSIONS 256
#define SFTP_ATTRS_SLOTS 7
#define SFTP_NAME_COLUMNS 11
#define SFTP_NAME_ENCODE_SLOTS 9
#define SFTP_REQUEST_SLOTS (2 + 4 * SFTP_MAX_EXTENSIONS)
#define SFTP_KIND_EXTENSION 256
#define PACKED_LEN 31
#define PACKED_NO_OWNER 16

/*
 * All whole packets in octets `start` to `end` of `buf`. Slots: where the rest begins, then four
 * for each packet (type, id, start and end of its body in `buf`). Stops early when `tab` is full.
 * Returns the number of packets.
 */
int64_t sftp_scan(const void *buf, size_t len, size_t start, size_t end, size_t max_packet,
    int64_t *tab, size_t cap);

/*
 * A request, or the reply ATTRS: type, id, then the name of an extension unless `extlen` is 0,
 * then what the letters of `form` say, taken from `tab` in turn: s a string (2 slots: start and
 * end in `base`), b the same but NUL allowed (handles), u a number of 32 bits, q one of 63 bits,
 * a attributes (7 slots: size, uid, gid, mode, atime, mtime, a mask of those present), d the
 * length of data that travel beside. At most SFTP_REQUEST_MAX octets behind the length, without
 * those data. Returns the number of octets in `out`.
 */
int64_t sftp_encode(void *out, size_t cap, int64_t type, int64_t id, const void *ext,
    size_t extlen, const char *form, const int64_t *tab, size_t n, const void *base,
    size_t baselen);

/* Bodies of replies. Trailing octets are allowed in all of them. */
int64_t sftp_decode_version(const void *buf, size_t len, int64_t *tab, size_t cap);
int64_t sftp_decode_status(const void *buf, size_t len, int64_t *tab, size_t cap);
int64_t sftp_decode_attrs(const void *buf, size_t len, int64_t *tab, size_t cap);
int64_t sftp_decode_name(const void *buf, size_t len, int64_t *tab, size_t cap);
int64_t sftp_decode_u64s(const void *buf, size_t len, uint64_t *tab, size_t n);
int64_t sftp_decode_users_groups(const void *buf, size_t len, int64_t *tab, size_t cap);

/*
 * The body of a NAME reply to READDIR. Slots: number n of names that a file can have, number m of
 * all, number of those that no file can have, 1 when "." is among them (that and ".." are no names),
 * then two columns of m slots of which n are filled: start and end of the name. `packed` gets the
 * attributes of the n as packed.h has them, and those of "." as number m; an owner that is not
 * said is 65534 and PACKED_NO_OWNER, a type that is not said is what the long name shows (none: 0),
 * permissions then 0600 (0700), the number of links what the long name shows, else 1. There must be
 * room for more than m. Returns 4 + 2 m.
 */
int64_t sftp_decode_listing(const void *buf, size_t len, int64_t *tab, size_t cap, void *packed,
    size_t packedlen);

/*
 * Numbers of 60 bits for `n` names, whose lengths are in `tab` and which fill `names` one behind the
 * other, by a hash of the directory's number and the name. They take the place of the lengths.
 */
int64_t sftp_name_numbers(int64_t directory, const void *names, size_t len, int64_t *tab, size_t n);

/*
 * The body of a request of `type`, octets `start` to `end` of `buf`. Returns its kind: the type,
 * or SFTP_KIND_EXTENSION and up for an extension (sftp_server.c numbers them), or EXTENDED for
 * one that is unknown; CODEC_OP when the type is no request. Slots by kind: the fields in their
 * order, as for sftp_encode with spans of `buf`; further d, data (2 slots: start and end), Q a
 * number of 64 bits of which the upper half is negative, n a row of 32-bit numbers (2 slots: start
 * and end), v what INIT has (version, number of extensions, then 4 slots for each: start and end
 * of name and of data). EXTENDED: start and end of the name.
 *
 * Bounds: no path has NUL in it, a handle has at most SFTP_HANDLE_MAX octets, sizes and offsets
 * are below 2**63 (the length of copy-data below 2**64), attributes have no unknown bits, INIT
 * has at most SFTP_MAX_EXTENSIONS. Strings are as long as the packet allows. Trailing octets are
 * allowed, except behind INIT. `cap` must be at least SFTP_REQUEST_SLOTS.
 */
int64_t sftp_decode_request(const void *buf, size_t len, size_t start, size_t end, int64_t type,
    int64_t *tab, size_t cap);

/*
 * A NAME reply with `n` entries, which fill `names` and `longnames` one behind the other. `tab`
 * has SFTP_NAME_ENCODE_SLOTS for each: first the lengths of all names, then those of all long
 * names, then all masks, then six slots of attributes for each entry. Returns the number of
 * octets in `out`; how long a packet may be is not asked here.
 */
int64_t sftp_encode_name(void *out, size_t cap, int64_t id, const int64_t *tab, size_t n,
    const void *names, size_t nameslen, const void *longnames, size_t longlen);

#define FUSE_REQUEST_MAX 65536
#define FUSE_DATA_MAX (1024 * 1024)
#define FUSE_DECODE_SLOTS 32
#define FUSE_KIND_NOTIFY 64

enum { /* what the body of a reply is */
	FUSE_KIND_ENTRY = 1,
	FUSE_KIND_ATTR = 2,
	FUSE_KIND_OPEN = 3,
	FUSE_KIND_CREATE = 4,
	FUSE_KIND_COUNT = 5,
	FUSE_KIND_OFFSET = 6,
	FUSE_KIND_STATFS = 7,
	FUSE_KIND_LOCK = 8,
	FUSE_KIND_INIT = 9,
	FUSE_KIND_DIRENTS = 10,
	FUSE_KIND_DIRENTS_PLUS = 11
};

/*
 * A FUSE request: the header, then what the letters of `form` say, taken from `tab` in turn: s a
 * string with its NUL and b octets as they are (2 slots: start and end in `base`), u a number of
 * 32 bits, q the bits of one of 64, 0 four octets of zero (no slot), d the length of data that
 * travel beside. At most FUSE_REQUEST_MAX octets without those data, of which there may be
 * FUSE_DATA_MAX. Returns the number of octets in `out`.
 */
int64_t fuse_encode(void *out, size_t cap, int64_t opcode, int64_t unique, int64_t nodeid,
    int64_t uid, int64_t gid, int64_t pid, const char *form, const int64_t *tab, size_t n,
    const void *base, size_t baselen);

/*
 * The header of what a server sent, `total` octets of which `buf` has the first: 2 slots, the
 * error (0 or a negative errno; of a notification its code) and the bits of the unique number
 * (0: a notification). CODEC_LENGTH when `total` is not the length that it says. Returns 2.
 */
int64_t fuse_header(const void *buf, size_t len, size_t total, int64_t *tab, size_t cap);

/*
 * What follows the header: the body of a reply without error, by FUSE_KIND_, or of a notification,
 * FUSE_KIND_NOTIFY and its code. `cap` must be at least FUSE_DECODE_SLOTS. Slots:
 * ENTRY    bits of node and generation, time-outs of name and attributes (ns, a day at most), then
 *          17 of a Vattr and the mask of those present (0 for node 0)
 * ATTR     time-out, Vattr, mask           OPEN     bits of the handle, flags
 * CREATE   ENTRY, OPEN                     COUNT, OFFSET   the number
 * STATFS   a Statvfs                       LOCK     start, end, type, pid
 * INIT     major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
 *          time_gran, max_pages, map_alignment, flags2, max_stack_depth, request_timeout
 * DIRENTS  for each entry fileid, vtype, offset, start and end of the name; PLUS: then ENTRY.
 *          Returns the number of entries; a last one that is not whole is left out
 * Notifications: POLL handle; INVAL_INODE node, offset, length; INVAL_ENTRY directory, flags and
 *          DELETE directory, node, then start and end of the name; STORE node, offset, start and
 *          end of the data; RETRIEVE unique, node, offset, length; RESEND, INC_EPOCH nothing
 * Names are those of a directory entry. Returns the number of slots, for others than DIRENTS.
 */
int64_t fuse_decode(const void *buf, size_t len, int64_t kind, int64_t *tab, size_t cap);

#define FUSE_ATTR_SLOTS 12
#define FUSE_DIRENT_SLOTS 18

/*
 * A request of the kernel, `len` octets as they were read from its device. Slots: opcode, bits of
 * the unique number, bits of the node, uid, gid, pid, then what fuse_device.c lists for the
 * opcode: numbers of 32 bits, bits of those of 64, times (ns), and start and end of strings (without
 * their NUL), of data and of rows of a BATCH_FORGET. An opcode that is not listed has the first six
 * and whatever follows it is not looked at. CODEC_LENGTH when `len` is not the length that the
 * header says. `cap` must be at least FUSE_DECODE_SLOTS. Returns the number of slots.
 */
int64_t fuse_decode_request(const void *buf, size_t len, int64_t *tab, size_t cap);

/*
 * The reply FUSE_KIND_ENTRY (slots: bits of the node, time-outs of name and attributes in ns,
 * attributes), _CREATE (ENTRY, then bits of the handle and flags) or _ATTR (time-out, attributes).
 * Attributes are FUSE_ATTR_SLOTS: bits of the inode number, size, blocks, atime, mtime, ctime (ns),
 * mode with the type in it, nlink, uid, gid, rdev, blksize. What is outside the range of its field
 * becomes the nearest that is inside. Returns the number of octets in `out`.
 */
int64_t fuse_encode_reply(void *out, size_t cap, int64_t unique, int64_t kind,
    const int64_t *tab, size_t n);

/*
 * The reply to a READDIRPLUS with `n` entries, whose names fill `names` one behind the other.
 * FUSE_DIRENT_SLOTS for each: length of the name, type (as DT_ has it), offset, bits of the node
 * (0: the kernel is told no node), time-outs as in ENTRY, attributes. Returns the number of octets.
 */
int64_t fuse_encode_dirents(void *out, size_t cap, int64_t unique, const int64_t *tab, size_t n,
    const void *names, size_t nameslen);

/*
 * As many entries of such a reply as `cap` has room for, without its header, of `n` files with
 * packed attributes (packed.h). Slots: time-outs of name and attributes, uid and gid to be shown in
 * place of all (-1: none), then three columns of `n` slots: bits of the number, which is that of
 * the node, too, offset, length of the name. The first slot becomes the number of entries that there was room for.
 * Returns the number of octets.
 */
int64_t fuse_encode_page(void *out, size_t cap, int64_t *tab, size_t n, const void *packed,
    size_t packedlen, const void *names, size_t nameslen);

#endif
