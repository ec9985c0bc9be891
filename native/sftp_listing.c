/*
 * A directory's listing: the body of a NAME reply taken apart into what is kept of each file, and
 * the numbers that files get by their names.
 */
#include "packed.h"
#include "sftp_wire.h"

#define NAME_MIN_LEN 12
#define NAME_LEN_MAX 255
#define IFMT 0170000
#define NOBODY 65534
#define LINKS_DIGITS_MAX 9

enum { VREG = 1, VDIR, VBLK, VCHR, VLNK, VSOCK, VFIFO };

static const uint16_t formats[] = { 0, 0100000, 0040000, 0060000, 0020000, 0120000, 0140000,
	0010000 };

static int64_t
type_of(int64_t mode)
{
	int64_t type;

	for (type = VREG; type <= VFIFO; type++)
		if ((mode & IFMT) == formats[type])
			return type;
	return (mode & IFMT) != 0 ? VREG : 0;
}

/* "-rw-": a text of another form may begin with any letter. */
static int64_t
type_shown(const uint8_t *p, size_t n)
{
	static const char letters[] = "?-dbclsp"; /* in the order of the types */
	const char *at;

	if (n < 2 || p[0] == '?' || p[0] == '\0' || (p[1] != 'r' && p[1] != '-'))
		return 0;
	at = strchr(letters, p[0]);
	return at != NULL ? at - letters : 0;
}

static size_t
run(const uint8_t *p, size_t at, size_t n, int of_space)
{
	while (at < n && (p[at] == ' ' || (p[at] >= '\t' && p[at] <= '\r')) == of_space)
		at++;
	return at;
}

/* The second word of at least three, if that is a number. */
static int64_t
links_shown(const uint8_t *p, size_t n)
{
	size_t at = run(p, run(p, run(p, 0, n, 1), n, 0), n, 1), end = run(p, at, n, 0);
	int64_t links = 0;

	if (end == at || end - at > LINKS_DIGITS_MAX || run(p, end, n, 1) == n)
		return 1;
	for (; at < end; at++) {
		if (p[at] < '0' || p[at] > '9')
			return 1;
		links = links * 10 + (p[at] - '0');
	}
	return links != 0 ? links : 1;
}

static void
pack(uint8_t *to, const int64_t *attrs, const uint8_t *shown, size_t n)
{
	struct packed a = { attrs[0], attrs[1], attrs[2], attrs[4], attrs[5], 0, attrs[3] & 07777, 0 };
	int64_t type;

	if ((attrs[6] & ATTR_UIDGID) == 0) {
		a.uid = a.gid = NOBODY;
		a.what = PACKED_NO_OWNER;
	}
	a.nlink = links_shown(shown, n);
	type = type_of(attrs[3]);
	if (type == 0)
		type = type_shown(shown, n);
	if ((attrs[6] & ATTR_PERMISSIONS) == 0)
		a.mode = type == VDIR ? 0700 : 0600;
	a.mode |= formats[type];
	a.what |= type;
	store_packed(to, &a);
}

static int
is_name(const uint8_t *p, size_t n)
{
	return n != 0 && n <= NAME_LEN_MAX && memchr(p, 0, n) == NULL && memchr(p, '/', n) == NULL;
}

int64_t
sftp_decode_listing(const void *buf, size_t len, int64_t *v, size_t cap, void *packed,
    size_t packedlen)
{
	struct octets in = { buf, len, 0, 0 };
	const uint8_t *p = buf;
	uint8_t *to = packed;
	size_t count = take_be32(&in), n = 0, i, size;
	int64_t name[2], shown[2], attrs[SFTP_ATTRS_SLOTS];

	if (in.err != 0)
		return in.err;
	if (count > (in.len - in.at) / NAME_MIN_LEN)
		return CODEC_SHORT;
	if (cap < 4 || count > (cap - 4) / 2 || count >= packedlen / PACKED_LEN)
		return CODEC_SPACE;
	v[1] = (int64_t)count;
	v[2] = v[3] = 0;
	for (i = 0; i < count; i++) {
		decode_span(&in, name, name + 1);
		decode_span(&in, shown, shown + 1);
		decode_attrs(&in, attrs, 1, 0);
		if (in.err != 0)
			return in.err;
		size = (size_t)(name[1] - name[0]);
		if (size <= 2 && memcmp(p + name[0], "..", size) == 0 && size != 0) {
			if (size == 1) { /* the directory itself, behind all others */
				v[3] = 1;
				pack(to + count * PACKED_LEN, attrs, p + shown[0],
				    (size_t)(shown[1] - shown[0]));
			}
			continue;
		}
		if (!is_name(p + name[0], size)) {
			v[2]++;
			continue;
		}
		v[4 + n] = name[0];
		v[4 + count + n] = name[1];
		pack(to + n * PACKED_LEN, attrs, p + shown[0], (size_t)(shown[1] - shown[0]));
		n++;
	}
	v[0] = (int64_t)n;
	return (int64_t)(4 + 2 * count);
}

/* SipHash-2-4 (Aumasson and Bernstein), the key being the directory's number and zero. */

static uint64_t
rotl(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static void
sip_round(uint64_t *s)
{
	s[0] += s[1];
	s[1] = rotl(s[1], 13) ^ s[0];
	s[0] = rotl(s[0], 32);
	s[2] += s[3];
	s[3] = rotl(s[3], 16) ^ s[2];
	s[0] += s[3];
	s[3] = rotl(s[3], 21) ^ s[0];
	s[2] += s[1];
	s[1] = rotl(s[1], 17) ^ s[2];
	s[2] = rotl(s[2], 32);
}

static uint64_t
siphash(uint64_t key, const uint8_t *p, size_t n)
{
	uint64_t s[4] = { key ^ 0x736f6d6570736575, 0x646f72616e646f6d, key ^ 0x6c7967656e657261,
		0x7465646279746573 };
	uint64_t m;
	uint8_t last[8] = { 0 };
	size_t at, i;

	for (at = 0; at + 8 <= n; at += 8) {
		m = load_le64(p + at);
		s[3] ^= m;
		sip_round(s);
		sip_round(s);
		s[0] ^= m;
	}
	for (i = 0; at + i < n; i++)
		last[i] = p[at + i];
	last[7] = (uint8_t)n;
	m = load_le64(last);
	s[3] ^= m;
	sip_round(s);
	sip_round(s);
	s[0] ^= m;
	s[2] ^= 0xff;
	for (i = 0; i < 4; i++)
		sip_round(s);
	return s[0] ^ s[1] ^ s[2] ^ s[3];
}

int64_t
sftp_name_numbers(int64_t directory, const void *names, size_t len, int64_t *v, size_t n)
{
	const uint8_t *p = names;
	size_t i, left = len;

	for (i = 0; i < n; i++) {
		if (v[i] < 0 || (uint64_t)v[i] > left)
			return CODEC_LENGTH;
		left -= (size_t)v[i];
		size_t size = (size_t)v[i];
		v[i] = (int64_t)(siphash((uint64_t)directory, p, size) >> 4);
		p += size;
	}
	return left != 0 ? CODEC_TRAILING : (int64_t)n;
}
