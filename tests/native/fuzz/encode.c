/*
 * Any numbers into the encoders. Promises: no access outside, no undefined behaviour, and what
 * they build is accepted by the decoders and says the same.
 *
 * Input: direction, class, operation, room for the output, number of slots (one octet each), a
 * header of small numbers, the slots (8 octets each), then the octets that spans refer to.
 */
#include "check.h"

#define HEADER_OCTETS 12
#define OUT_MAX 16384
#define BACK_SLOTS 512 /* 255 slots at most, and 11 for 9 in a listing */

static const char *const forms[] = { "s", "b", "ss", "sa", "ba", "sua", "bqu", "bqd", "bqqbq", "",
	"bb", "x" };

static void
sftp(uint8_t kind, uint8_t *out, size_t cap, const int64_t *tab, size_t n, const uint8_t *base,
    size_t baselen)
{
	const char *form = forms[kind % (sizeof forms / sizeof forms[0])];
	int64_t len = sftp_encode(out, cap, kind, 7, "extension", kind % 2 ? 9 : 0, form, tab, n,
	    base, baselen), found[5];

	if (len < 0)
		return;
	CHECK(len >= 9 && (uint64_t)len <= cap && len <= SFTP_REQUEST_MAX + 4);
	if (strchr(form, 'd') == NULL && kind != 1 && kind != 2) { /* those have no id */
		CHECK(sftp_scan(out, (size_t)len, 0, (size_t)len, SFTP_REQUEST_MAX, found, 5) == 1);
		CHECK(found[0] == len && found[1] == kind && found[2] == 7 && found[4] == len);
	}
}

/* A listing: half of the octets are names, half long names. */
static void
listing(uint8_t *out, size_t cap, const int64_t *tab, size_t n, const uint8_t *base,
    size_t baselen)
{
	size_t count = n / SFTP_NAME_ENCODE_SLOTS, half = baselen / 2, i, k;
	uint8_t *names = copy_of(base, half), *longnames = copy_of(base + half, baselen - half);
	int64_t *back = exactly(BACK_SLOTS * sizeof *back), found[5], len, got;
	int64_t sum = 0, long_sum = 0;

	len = sftp_encode_name(out, cap, 7, tab, count, names, half, longnames, baselen - half);
	if (len >= 0) {
		CHECK(len >= 13 && (uint64_t)len <= cap);
		CHECK(sftp_scan(out, (size_t)len, 0, (size_t)len, OUT_MAX, found, 5) == 1);
		CHECK(found[0] == len && found[1] == 104 && found[2] == 7 && found[4] == len);
		got = sftp_decode_name(out + 9, (size_t)len - 9, back, BACK_SLOTS);
		CHECK(got == 3 + (int64_t)(count * SFTP_NAME_COLUMNS));
		for (i = 0; i < count; i++) {
			const int64_t *row = back + 3 + i;

			sum += tab[i];
			long_sum += tab[count + i];
			CHECK(row[count] - row[0] == tab[i]);
			CHECK(row[3 * count] - row[2 * count] == tab[count + i]);
			CHECK(row[10 * count] == tab[2 * count + i]);
			for (k = 0; k < 6; k++)
				CHECK(row[(4 + k) * count] == 0 ||
				    row[(4 + k) * count] == tab[3 * count + 6 * i + k]);
		}
		CHECK(sum == (int64_t)half && long_sum == (int64_t)(baselen - half));
	}
	free(back);
	free(longnames);
	free(names);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t n, baselen, cap;
	int64_t *tab, *back, rv, setbacks, payload_len, got, slots, head;
	uint8_t *out, *base;
	const uint8_t *h = data;

	if (len < HEADER_OCTETS)
		return 0;
	n = h[4];
	data += HEADER_OCTETS;
	len -= HEADER_OCTETS;
	if (n > len / 8)
		n = len / 8;
	tab = copy_of(data, n * 8);
	baselen = len - n * 8;
	base = copy_of(data + n * 8, baselen);
	cap = h[3] < 128 ? h[3] * 4u : OUT_MAX;
	out = exactly(cap);
	back = exactly(BACK_SLOTS * sizeof *back);
	rv = h[5];
	setbacks = h[6];
	payload_len = (int64_t)h[7] * h[7] * 40;
	switch (h[0] % 4) {
	case 0:
		head = frame_encode_request(out, cap, h[1], h[2], h[8], h[9], h[10] - 2, h[11],
		    payload_len, tab, n, base, baselen);
		if (head < 0)
			break;
		slots = frame_header(out, (size_t)head, back, BACK_SLOTS);
		CHECK(slots == FRAME_HEADER_SLOTS && back[0] == head + back[10]);
		got = frame_decode_request(out, (size_t)head, back[10], back, BACK_SLOTS);
		CHECK(got == FRAME_HEADER_SLOTS + (int64_t)n);
		CHECK(back[2] == h[2] && back[3] == h[8] && back[4] == h[9]);
		CHECK(back[7] == h[10] - 2 && back[9] == h[11]);
		break;
	case 1:
		head = frame_encode_reply(out, cap, h[1], h[2], h[8], h[9], rv, setbacks, payload_len,
		    tab, n, base, baselen);
		if (head < 0)
			break;
		slots = frame_header(out, (size_t)head, back, BACK_SLOTS);
		CHECK(slots == FRAME_HEADER_SLOTS && back[0] == head + back[10]);
		got = frame_decode_reply(out, (size_t)head, back[10], back, BACK_SLOTS);
		CHECK(got >= FRAME_HEADER_SLOTS && got <= FRAME_HEADER_SLOTS + (int64_t)n);
		CHECK(back[5] == rv && back[6] == setbacks);
		break;
	case 2:
		listing(out, cap, tab, n, base, baselen);
		break;
	default:
		sftp(h[1], out, cap, tab, n, base, baselen);
		break;
	}
	free(back);
	free(out);
	free(base);
	free(tab);
	return 0;
}
