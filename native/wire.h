/*
 * Cursors over octets and over tables of numbers.
 *
 * Each cursor remembers its first error in `err` and does nothing after it, so that a walk over
 * a message asks once at its end. Numbers are put together from single octets: no alignment, no
 * byte order of the host.
 */
#ifndef SYSPUFFS_WIRE_H
#define SYSPUFFS_WIRE_H

#include <string.h>

#include "codec.h"

struct octets { /* being read */
	const uint8_t *p;
	size_t len, at;
	int err;
};

struct output { /* being written */
	uint8_t *p;
	size_t cap, at;
	int err;
};

struct slots { /* being written */
	int64_t *v;
	size_t cap, at;
};

struct numbers { /* being read */
	const int64_t *v;
	size_t len, at;
};

static inline uint32_t
load_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t
load_le64(const uint8_t *p)
{
	return (uint64_t)load_le32(p) | (uint64_t)load_le32(p + 4) << 32;
}

static inline uint32_t
load_be32(const uint8_t *p)
{
	return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

static inline uint64_t
load_be64(const uint8_t *p)
{
	return (uint64_t)load_be32(p + 4) | (uint64_t)load_be32(p) << 32;
}

static inline void
store_le32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static inline void
store_be32(uint8_t *p, uint32_t v)
{
	p[3] = (uint8_t)v;
	p[2] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)(v >> 16);
	p[0] = (uint8_t)(v >> 24);
}

/* The same bits with a sign. Written without an implementation-defined conversion. */
static inline int64_t
as_signed(uint64_t v)
{
	int64_t s;

	memcpy(&s, &v, sizeof s);
	return s;
}

static inline void
fail(int *err, int code)
{
	if (*err == 0)
		*err = code;
}

/* The next `n` octets, or NULL. */
static inline const uint8_t *
take(struct octets *in, size_t n)
{
	const uint8_t *p;

	if (in->err != 0)
		return NULL;
	if (n > in->len - in->at) {
		in->err = CODEC_SHORT;
		return NULL;
	}
	p = in->p + in->at;
	in->at += n;
	return p;
}

static inline uint32_t
take_le32(struct octets *in)
{
	const uint8_t *p = take(in, 4);

	return p != NULL ? load_le32(p) : 0;
}

static inline uint64_t
take_le64(struct octets *in)
{
	const uint8_t *p = take(in, 8);

	return p != NULL ? load_le64(p) : 0;
}

static inline uint32_t
take_be32(struct octets *in)
{
	const uint8_t *p = take(in, 4);

	return p != NULL ? load_be32(p) : 0;
}

static inline uint64_t
take_be64(struct octets *in)
{
	const uint8_t *p = take(in, 8);

	return p != NULL ? load_be64(p) : 0;
}

/* Room for `n` more octets, or NULL. */
static inline uint8_t *
room(struct output *out, size_t n)
{
	uint8_t *p;

	if (out->err != 0)
		return NULL;
	if (n > out->cap - out->at) {
		out->err = CODEC_SPACE;
		return NULL;
	}
	p = out->p + out->at;
	out->at += n;
	return p;
}

static inline void
put_8(struct output *out, uint8_t v)
{
	uint8_t *p = room(out, 1);

	if (p != NULL)
		*p = v;
}

static inline void
put_le32(struct output *out, uint32_t v)
{
	uint8_t *p = room(out, 4);

	if (p != NULL)
		store_le32(p, v);
}

static inline void
put_le64(struct output *out, uint64_t v)
{
	uint8_t *p = room(out, 8);

	if (p != NULL) {
		store_le32(p, (uint32_t)v);
		store_le32(p + 4, (uint32_t)(v >> 32));
	}
}

static inline void
put_be32(struct output *out, uint32_t v)
{
	uint8_t *p = room(out, 4);

	if (p != NULL)
		store_be32(p, v);
}

static inline void
put_be64(struct output *out, uint64_t v)
{
	uint8_t *p = room(out, 8);

	if (p != NULL) {
		store_be32(p, (uint32_t)(v >> 32));
		store_be32(p + 4, (uint32_t)v);
	}
}

static inline void
put_octets(struct output *out, const uint8_t *from, size_t n)
{
	uint8_t *p = room(out, n);

	if (p != NULL && n != 0)
		memcpy(p, from, n);
}

#endif
