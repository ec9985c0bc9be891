/*
 * Packed attributes: what a directory's listing keeps of each file, PACKED_LEN octets, little-endian:
 * size in 64 bits, then uid, gid, atime, mtime (s) and nlink in 32, mode with the type in 16, and
 * one octet with the type as a vnode has it and PACKED_NO_OWNER.
 */
#ifndef SYSPUFFS_PACKED_H
#define SYSPUFFS_PACKED_H

#include "wire.h"

struct packed {
	int64_t size, uid, gid, atime, mtime, nlink, mode, what;
};

static inline void
store_packed(uint8_t *p, const struct packed *a)
{
	store_le32(p, (uint32_t)(a->size & UINT32_MAX));
	store_le32(p + 4, (uint32_t)(a->size >> 32 & UINT32_MAX));
	store_le32(p + 8, (uint32_t)a->uid);
	store_le32(p + 12, (uint32_t)a->gid);
	store_le32(p + 16, (uint32_t)a->atime);
	store_le32(p + 20, (uint32_t)a->mtime);
	store_le32(p + 24, (uint32_t)a->nlink);
	p[28] = (uint8_t)(a->mode & 0xff);
	p[29] = (uint8_t)(a->mode >> 8 & 0xff);
	p[30] = (uint8_t)a->what;
}

static inline void
load_packed(const uint8_t *p, struct packed *a)
{
	a->size = as_signed(load_le64(p));
	a->uid = load_le32(p + 8);
	a->gid = load_le32(p + 12);
	a->atime = load_le32(p + 16);
	a->mtime = load_le32(p + 20);
	a->nlink = load_le32(p + 24);
	a->mode = p[28] | p[29] << 8;
	a->what = p[30];
}

#endif
