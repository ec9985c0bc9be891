/* What both sides of FUSE messages share: numbers are in the byte order of the host. */
#ifndef SYSPUFFS_FUSE_WIRE_H
#define SYSPUFFS_FUSE_WIRE_H

#include "wire.h"

#define NS 1000000000

static inline uint32_t
take_32(struct octets *in)
{
	const uint8_t *p = take(in, 4);
	uint32_t v = 0;

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return v;
}

static inline uint64_t
take_64(struct octets *in)
{
	const uint8_t *p = take(in, 8);
	uint64_t v = 0;

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return v;
}

static inline uint16_t
take_16(struct octets *in)
{
	const uint8_t *p = take(in, 2);
	uint16_t v = 0;

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return v;
}

static inline void
put_32(struct output *out, uint32_t v)
{
	put_octets(out, (const uint8_t *)&v, sizeof v);
}

static inline void
put_64(struct output *out, uint64_t v)
{
	put_octets(out, (const uint8_t *)&v, sizeof v);
}

#endif
