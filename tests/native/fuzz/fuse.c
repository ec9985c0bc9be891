/*
 * Any octets as the message of a FUSE server, and as slots of a request. Promises: no access
 * outside, no undefined behaviour, each span that comes back lies in the body and is a name where
 * one belongs, times and offsets are in their range, and what is encoded is as long as it says.
 */
#include "check.h"

#define SLOTS 512
#define OUT_MAX 4096

static void
check_name(const uint8_t *buf, size_t len, const int64_t *v)
{
	CHECK(v[0] >= 0 && v[0] < v[1] && (uint64_t)v[1] <= len && v[1] - v[0] <= 255);
	CHECK(memchr(buf + v[0], 0, (size_t)(v[1] - v[0])) == NULL);
	CHECK(memchr(buf + v[0], '/', (size_t)(v[1] - v[0])) == NULL);
}

static void
check_vattr(const int64_t *v)
{
	CHECK(v[0] >= 1 && v[0] <= 7);
	CHECK(v[1] >= 0 && v[1] <= 07777);
	CHECK(v[6] >= 0 && v[7] >= 0 && v[16] >= 0);
}

static void
check_entry(const int64_t *v)
{
	CHECK(v[2] >= 0 && v[2] <= 86400000000000 && v[3] >= 0 && v[3] <= 86400000000000);
	if (v[0] != 0)
		check_vattr(v + 4);
	else
		CHECK(v[21] == 0);
}

static void
decode(const uint8_t *data, size_t len)
{
	uint8_t *buf = copy_of(data, len);
	int64_t *v = exactly(SLOTS * sizeof *v), kind, n, i;

	(void)fuse_header(buf, len, len, v, SLOTS);
	CHECK(fuse_decode(buf, len, FUSE_KIND_ENTRY, v, 1) == CODEC_SPACE);
	for (kind = 0; kind < FUSE_KIND_NOTIFY + 12; kind++) {
		n = fuse_decode(buf, len, kind, v, SLOTS);
		if (n < 0)
			continue;
		switch (kind) {
		case FUSE_KIND_ENTRY:
		case FUSE_KIND_CREATE:
			check_entry(v);
			break;
		case FUSE_KIND_ATTR:
			check_vattr(v + 1);
			break;
		case FUSE_KIND_DIRENTS:
		case FUSE_KIND_DIRENTS_PLUS:
			for (i = 0; i < n; i++) {
				const int64_t *row = v + i * (kind == FUSE_KIND_DIRENTS ? 5 : 27);

				check_name(buf, len, row + 3);
				CHECK(row[2] > 0);
				if (kind == FUSE_KIND_DIRENTS_PLUS)
					check_entry(row + 5);
			}
			break;
		case FUSE_KIND_NOTIFY + 3:
		case FUSE_KIND_NOTIFY + 6:
			check_name(buf, len, v + 2);
			break;
		case FUSE_KIND_NOTIFY + 4:
			CHECK(v[1] >= 0 && v[2] <= v[3] && (uint64_t)v[3] <= len);
			break;
		default:
			CHECK(n <= FUSE_DECODE_SLOTS);
			break;
		}
	}
	free(buf);
	free(v);
}

static void
encode(const uint8_t *data, size_t len)
{
	static const char *forms[] = { "", "s", "q", "u0q", "ss", "uuu0s", "qquuqu0d", "u0b", "z" };
	size_t n, slots, baselen;
	uint8_t *out, *base;
	int64_t *tab, size;
	uint32_t said;

	if (len < 4)
		return;
	n = data[1] % 16;
	slots = n * sizeof *tab;
	if (len - 4 < slots)
		return;
	baselen = len - 4 - slots;
	tab = copy_of(data + 4, slots);
	base = copy_of(data + 4 + slots, baselen);
	out = exactly(OUT_MAX);
	size = fuse_encode(out, (size_t)data[2] * 16, data[3], 5, 6, 7, 8, 9,
	    forms[data[0] % (sizeof forms / sizeof *forms)], tab, n, base, baselen);
	if (size >= 0) {
		CHECK(size >= 40 && size <= data[2] * 16);
		memcpy(&said, out, sizeof said);
		CHECK(said >= size && said <= size + FUSE_DATA_MAX);
	}
	free(tab);
	free(base);
	free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	decode(data, len);
	encode(data, len);
	return 0;
}
