/*
 * Any octets as a request of the kernel, and as slots of a reply. Promises: no access outside, no
 * undefined behaviour, each span that comes back lies in the message, and what is encoded is as
 * long as it says.
 */
#include "check.h"

#define SLOTS 64
#define OUT_MAX 4096

static const int names[64] = { [1] = 6, [6] = 6, [8] = 8, [9] = 7, [10] = 6, [11] = 6, [12] = 7,
	[13] = 7, [16] = 9, [21] = 8, [22] = 7, [24] = 6, [35] = 8, [42] = 7, [45] = 8 };

static void
decode(const uint8_t *data, size_t len)
{
	uint8_t *buf = copy_of(data, len);
	int64_t *v = exactly(SLOTS * sizeof *v), n;
	uint32_t said = (uint32_t)len;
	int at;

	CHECK(fuse_decode_request(buf, len, v, 6) == CODEC_SPACE);
	if (len >= 4)
		memcpy(buf, &said, sizeof said); /* nearly everything else is refused at once */
	n = fuse_decode_request(buf, len, v, SLOTS);
	if (n >= 0) {
		CHECK(n >= 6 && n <= FUSE_DECODE_SLOTS && len >= 40);
		CHECK(v[0] >= 0 && v[3] >= 0 && v[4] >= 0 && v[5] >= 0);
		at = v[0] < 64 ? names[v[0]] : 0;
		for (; at != 0 && at + 1 < n; at += 2)
			CHECK(v[at] >= 40 && v[at] <= v[at + 1] && (uint64_t)v[at + 1] <= len);
		if (v[0] == 15 || v[0] == 16 || v[0] == 44)
			CHECK(v[7] >= 0);
	}
	free(buf);
	free(v);
}

static void
encode(const uint8_t *data, size_t len)
{
	uint8_t *out, *base;
	size_t n, slots;
	int64_t *tab, size;
	uint32_t said;

	if (len < 4)
		return;
	n = data[1] % 40;
	slots = n * sizeof *tab;
	if (len - 4 < slots)
		return;
	tab = copy_of(data + 4, slots);
	base = copy_of(data + 4 + slots, len - 4 - slots);
	out = exactly(OUT_MAX);
	if (data[0] % 8 == 0)
		size = fuse_encode_dirents(out, (size_t)data[2] * 16, data[3], tab,
		    n / FUSE_DIRENT_SLOTS, base, len - 4 - slots);
	else
		size = fuse_encode_reply(out, (size_t)data[2] * 16, data[3], data[0] % 8, tab, n);
	if (size >= 0) {
		CHECK(size >= 16 && size <= data[2] * 16);
		memcpy(&said, out, sizeof said);
		CHECK(said == size);
	}
	if (n >= 4) {
		size_t files = (n - 4) / 3, cap = (size_t)data[2] * 16, rest = len - 4 - slots;

		if (rest >= files * PACKED_LEN) {
			size = fuse_encode_page(out, cap, tab, files, base, files * PACKED_LEN,
			    base + files * PACKED_LEN, rest - files * PACKED_LEN);
			CHECK(size <= (int64_t)cap && (size < 0 || size % 8 == 0));
			CHECK(size < 0 || (tab[0] >= 0 && (uint64_t)tab[0] <= files));
		}
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
