/*
 * What the two directions of puffs frames share: limits, the table of operations, checks.
 */
#ifndef SYSPUFFS_FRAMES_H
#define SYSPUFFS_FRAMES_H

#include "wire.h"

#define CLASS_MASK 0x07
#define FLAG_FAF 0x10
#define FLAG_RESPONSE 0x20

#define MAX_ERRNO 4095
#define MAX_SETBACKS 0x0f
#define MAX_GROUPS 64
#define MAX_NAME 255
#define MAX_TARGET 4095
#define MAX_XATTR 65536
#define MAX_HANDLE 1020
#define MAX_TEXT 255
#define VATTR_FIELDS 17
#define VATTR_SLOTS (VATTR_FIELDS + 1)
#define VATTR_ALL ((1u << VATTR_FIELDS) - 1)
#define VNON 0
#define VBAD 8

#define OP_COOKIE 1   /* the header's cookie names a node */
#define OP_FAF 2      /* always fire and forget */
#define OP_SETBACKS 4 /* the reply may have setbacks */

/*
 * Directory entries. Octets: number of entries, end of directory or not; for each entry file id
 * and offset (64 bits), vtype (with DIRENT_NEWINFO when a newinfo follows), length of the name
 * (32 bits), name, newinfo. Slots: number n, end, newinfos or not; then columns of n slots:
 * file id, vtype, start and end of the name, offset; then, with newinfos, 25 slots for each entry,
 * of which the first is -1 where the entry has none.
 */
#define DIRENT_NEWINFO 0x100
#define DIRENT_MIN_LEN 25
#define DIRENT_HEAD_SLOTS 3

struct op {
	const char *request, *reply; /* NULL: not sent */
	unsigned int flags;
};

/* The operation, or NULL when there is none of that number. */
const struct op *frame_op(unsigned int opclass, unsigned int optype);

/* Slots that come before the groups. D, which has no fixed number, is never beside C or N. */
size_t frame_fixed_slots(const char *form);

/* 0, or the code for `n` octets at `p` that cannot stand where `letter` does. */
int frame_check_string(char letter, const uint8_t *p, size_t n);

/* Is `v` a legal value of field `i` of the attributes? */
int frame_check_vattr(unsigned int i, int64_t v);

/* 0 or a code. A newinfo without a node (cookie 0) need not have a type. */
int frame_check_newinfo(int64_t cookie, int64_t vtype, int64_t size, int64_t rdev, int64_t va_ttl,
    int64_t cn_ttl, int64_t has_va);

/* 0 or a code: a payload is where the form has a P, and nowhere else. */
int frame_check_payload(const char *form, int64_t payload_len);

#endif
