/*
 * Fields of SFTP version 3 that both its sides read or write. Big-endian; a string is its length
 * in 32 bits and its octets.
 */
#ifndef SYSPUFFS_SFTP_WIRE_H
#define SYSPUFFS_SFTP_WIRE_H

#include "wire.h"

#define ATTR_SIZE 0x00000001u
#define ATTR_UIDGID 0x00000002u
#define ATTR_PERMISSIONS 0x00000004u
#define ATTR_ACMODTIME 0x00000008u
#define ATTR_EXTENDED 0x80000000u
#define ATTR_KNOWN 0x0000000fu

static inline void
encode_u32(struct output *out, int64_t v)
{
	if (v < 0 || v > UINT32_MAX)
		fail(&out->err, CODEC_VALUE);
	put_be32(out, (uint32_t)v);
}

static inline void
encode_u64(struct output *out, int64_t v)
{
	if (v < 0)
		fail(&out->err, CODEC_VALUE);
	put_be64(out, (uint64_t)v);
}

static inline void
encode_attrs(struct output *out, const int64_t *v)
{
	uint32_t mask;

	if (v[6] < 0 || v[6] > ATTR_KNOWN) {
		fail(&out->err, CODEC_VALUE);
		return;
	}
	mask = (uint32_t)v[6];
	put_be32(out, mask);
	if ((mask & ATTR_SIZE) != 0)
		encode_u64(out, v[0]);
	if ((mask & ATTR_UIDGID) != 0) {
		encode_u32(out, v[1]);
		encode_u32(out, v[2]);
	}
	if ((mask & ATTR_PERMISSIONS) != 0)
		encode_u32(out, v[3]);
	if ((mask & ATTR_ACMODTIME) != 0) {
		encode_u32(out, v[4]);
		encode_u32(out, v[5]);
	}
}

static inline void
decode_span(struct octets *in, int64_t *start, int64_t *end)
{
	uint32_t n = take_be32(in);

	*start = (int64_t)in->at;
	(void)take(in, n);
	*end = (int64_t)in->at;
}

/* All that is left, four slots each (start and end of name, of data); returns their number. */
static inline size_t
decode_extensions(struct octets *in, int64_t *v)
{
	size_t n = 0;

	while (in->err == 0 && in->at != in->len) {
		if (n == SFTP_MAX_EXTENSIONS) {
			in->err = CODEC_LENGTH;
			break;
		}
		decode_span(in, v + 4 * n, v + 1 + 4 * n);
		decode_span(in, v + 2 + 4 * n, v + 3 + 4 * n);
		n++;
	}
	return n;
}

/*
 * Into seven slots that are `step` apart; what is absent is 0 and its bit in the mask is clear.
 * An error when a bit of `refused` is set.
 */
static inline void
decode_attrs(struct octets *in, int64_t *v, size_t step, uint32_t refused)
{
	uint32_t flags = take_be32(in), n;
	int64_t start, end;
	size_t i;

	for (i = 0; i < SFTP_ATTRS_SLOTS - 1; i++)
		v[i * step] = 0;
	v[6 * step] = flags & ATTR_KNOWN;
	if ((flags & refused) != 0)
		fail(&in->err, CODEC_VALUE);
	if ((flags & ATTR_SIZE) != 0)
		v[0] = as_signed(take_be64(in));
	if (v[0] < 0)
		fail(&in->err, CODEC_VALUE);
	if ((flags & ATTR_UIDGID) != 0) {
		v[step] = take_be32(in);
		v[2 * step] = take_be32(in);
	}
	if ((flags & ATTR_PERMISSIONS) != 0)
		v[3 * step] = take_be32(in);
	if ((flags & ATTR_ACMODTIME) != 0) {
		v[4 * step] = take_be32(in);
		v[5 * step] = take_be32(in);
	}
	if ((flags & ATTR_EXTENDED) != 0) {
		for (n = take_be32(in); n != 0 && in->err == 0; n--) {
			decode_span(in, &start, &end);
			decode_span(in, &start, &end);
		}
	}
}

#endif
