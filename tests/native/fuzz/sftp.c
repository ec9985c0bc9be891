/*
 * Any octets as a stream of SFTP packets, and as the body of each reply. Promises: no access
 * outside, no undefined behaviour, each span that comes back lies in the body.
 */
#include "check.h"

#define SLOTS 4096

static void
check_spans(const int64_t *v, size_t n, size_t step, size_t len)
{
	size_t i;

	for (i = 0; i < n; i++) {
		int64_t start = v[i * step], end = v[i * step + 1];

		CHECK(start >= 0 && start <= end && (uint64_t)end <= len);
	}
}

static void
again(const int64_t *attrs, const uint8_t *body, size_t len)
{
	int64_t tab[2 + SFTP_ATTRS_SLOTS] = { 0, 0 }, n;
	uint8_t out[128];

	memcpy(tab + 2, attrs, sizeof tab - 2 * sizeof *tab);
	n = sftp_encode(out, sizeof out, 10, 0, "", 0, "ba", tab, 2 + SFTP_ATTRS_SLOTS, "", 0);
	CHECK(n >= 17);
	if ((body[0] & 0x80) == 0 && (body[3] & 0xf0) == 0 && body[0] + body[1] + body[2] == 0)
		CHECK((uint64_t)(n - 13) <= len && memcmp(out + 13, body, (size_t)(n - 13)) == 0);
}

static void
listing(const uint8_t *body, size_t len, int64_t *v, size_t cap)
{
	size_t room = cap / 2 * PACKED_LEN, i;
	uint8_t *packed = exactly(room);
	int64_t n = sftp_decode_listing(body, len, v, cap, packed, room), *names = v + 4;

	CHECK(n <= (int64_t)cap);
	if (n >= 0) {
		CHECK(v[0] >= 0 && v[0] + v[2] <= v[1] && n == 4 + 2 * v[1]);
		for (i = 0; i < (size_t)v[0]; i++) {
			int64_t start = names[i], end = names[(size_t)v[1] + i];

			CHECK(start >= 4 && start < end && end - start <= 255 && (uint64_t)end <= len);
			CHECK(memchr(body + start, '/', (size_t)(end - start)) == NULL);
			CHECK((packed[i * PACKED_LEN + PACKED_LEN - 1] & 15) <= 7);
		}
	}
	free(packed);
	if (cap != 0) {
		v[0] = (int64_t)len;
		CHECK(sftp_name_numbers(7, body, len, v, 1) == 1 && v[0] >= 0 && v[0] < 1ll << 60);
	}
}

static void
decode(const uint8_t *body, size_t len, size_t cap)
{
	int64_t *v = exactly(cap * sizeof *v), n, count, i;
	uint64_t words[11];

	n = sftp_decode_version(body, len, v, cap);
	if (n >= 0)
		check_spans(v + 1, (size_t)(n - 1) / 2, 2, len);
	n = sftp_decode_status(body, len, v, cap);
	if (n >= 0)
		check_spans(v + 1, 1, 2, len);
	n = sftp_decode_attrs(body, len, v, cap);
	if (n >= 0)
		again(v, body, len);
	n = sftp_decode_users_groups(body, len, v, cap);
	if (n >= 0) {
		CHECK(v[0] >= 0 && v[1] >= 0 && (v[0] + v[1]) * 2 + 2 == n);
		check_spans(v + 2, (size_t)(v[0] + v[1]), 2, len);
	}
	n = sftp_decode_name(body, len, v, cap);
	CHECK(n <= (int64_t)cap);
	if (n >= 0) {
		count = v[0];
		CHECK(n == 3 + count * SFTP_NAME_COLUMNS);
		for (i = 0; i < count; i++) {
			const int64_t *row = v + 3 + i;

			CHECK(row[0] >= 0 && row[0] <= row[count] && row[count] <= row[2 * count]);
			CHECK(row[2 * count] <= row[3 * count]);
			CHECK((uint64_t)row[3 * count] <= len);
			CHECK((row[10 * count] & v[1]) == v[1] && (row[10 * count] & ~v[2]) == 0);
		}
	}
	listing(body, len, v, cap);
	n = sftp_decode_u64s(body, len, words, 11);
	CHECK(n == (len >= 88 ? 11 : CODEC_SHORT));
	free(v);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const size_t caps[] = { 0, 1, 2, 3, 6, 7, 14, 100, SLOTS };
	size_t cap = caps[len % (sizeof caps / sizeof caps[0])], size;
	int64_t *v = exactly(SLOTS * sizeof *v), n, i;
	uint8_t *body;

	n = sftp_scan(data, len, len / 3, len, len % 300, v, SLOTS);
	if (n >= 0)
		CHECK(v[0] >= (int64_t)(len / 3) && v[0] <= (int64_t)len);
	n = sftp_scan(data, len, 0, len, 100000, v, SLOTS);
	CHECK(n >= 0 || n == CODEC_LENGTH);
	for (i = 0; i < n; i++) {
		const int64_t *packet = v + 1 + i * 4;

		CHECK(packet[2] >= 5 && packet[2] <= packet[3] && packet[3] <= v[0]);
		size = (size_t)(packet[3] - packet[2]);
		body = copy_of(data + packet[2], size);
		decode(body, size, SLOTS);
		decode(body, size, cap);
		free(body);
	}
	decode(data, len, SLOTS);
	decode(data, len, cap);
	free(v);
	v = exactly(cap * sizeof *v);
	n = sftp_scan(data, len, 0, len, 100000, v, cap);
	CHECK(n <= (int64_t)cap / 4 && (n >= 0 || n == CODEC_LENGTH || cap == 0));
	free(v);
	return 0;
}
