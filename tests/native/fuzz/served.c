/*
 * Any octets as a stream of SFTP packets to a server, and as the body of each request. Promises:
 * no access outside, no undefined behaviour, each span that comes back lies in the body, and what
 * is accepted says what the octets say: encoding the slots again gives the same ones.
 */
#include "check.h"

#define SLOTS 2048
#define OUT_MAX (8192 + 64)

static const struct {
	const char *extension, *form;
} shapes[] = { { "", "" }, { "", "v" }, { "", "" }, { "", "sua" }, { "", "b" }, { "", "bqu" },
	{ "", "bqd" }, { "", "s" }, { "", "b" }, { "", "sa" }, { "", "ba" }, { "", "s" }, { "", "b" },
	{ "", "s" }, { "", "sa" }, { "", "s" }, { "", "s" }, { "", "s" }, { "", "ss" }, { "", "s" },
	{ "", "ss" }, { "posix-rename@openssh.com", "ss" }, { "hardlink@openssh.com", "ss" },
	{ "statvfs@openssh.com", "s" }, { "fstatvfs@openssh.com", "b" },
	{ "fsync@openssh.com", "b" }, { "lsetstat@openssh.com", "sa" },
	{ "limits@openssh.com", "" }, { "expand-path@openssh.com", "s" }, { "copy-data", "bqQbq" },
	{ "home-directory", "s" }, { "users-groups-by-id@openssh.com", "nn" } };

#define TYPES 21
#define EXTENSIONS (sizeof shapes / sizeof *shapes - TYPES)

static void
check_span(const int64_t *v, size_t start, size_t end)
{
	CHECK(v[0] >= (int64_t)start && v[0] <= v[1] && v[1] <= (int64_t)end);
}

/* What sftp_encode takes: no data beside, no row of numbers, no length over 2**63. */
static void
again(const uint8_t *buf, size_t start, size_t end, int64_t kind, const int64_t *v)
{
	size_t shape = kind < 256 ? (size_t)kind : TYPES + (size_t)(kind - 256), n = 0;
	const char *form = shapes[shape].form, *f;
	char letters[8] = "";
	uint8_t *out;
	int64_t tab[16], len;

	for (f = form; *f != '\0'; f++) {
		letters[f - form] = *f == 'n' ? 'b' : *f == 'Q' ? 'q' : *f;
		switch (*f) {
		case 'd':
			check_span(v, start, end);
			tab[n++] = v[1] - v[0];
			v += 2;
			break;
		case 'a':
			memcpy(tab + n, v, SFTP_ATTRS_SLOTS * sizeof *v);
			n += SFTP_ATTRS_SLOTS;
			v += SFTP_ATTRS_SLOTS;
			CHECK(f[1] == '\0');
			break;
		case 's':
		case 'b':
		case 'n':
			check_span(v, start, end);
			CHECK(*f != 's' || v[0] == v[1] ||
			    memchr(buf + v[0], 0, (size_t)(v[1] - v[0])) == NULL);
			CHECK(*f != 'b' || v[1] - v[0] <= SFTP_HANDLE_MAX);
			CHECK(*f != 'n' || (v[1] - v[0]) % 4 == 0);
			tab[n++] = *v++;
			tab[n++] = *v++;
			break;
		default:
			if (*f == 'Q' && *v < 0)
				return;
			CHECK(*v >= 0);
			tab[n++] = *v++;
			break;
		}
	}
	out = exactly(OUT_MAX);
	len = sftp_encode(out, OUT_MAX, 7, 7, shapes[shape].extension,
	    strlen(shapes[shape].extension), letters, tab, n, buf, end);
	CHECK(len >= 9);
	if (strchr(form, 'a') != NULL) {
		/* Extended attributes are skipped: then the masks differ by that bit alone. */
		const int64_t *attrs = tab + n - SFTP_ATTRS_SLOTS;
		size_t fields = 0;

		fields += (attrs[6] & 1) != 0 ? 8 : 0;
		fields += (attrs[6] & 2) != 0 ? 8 : 0;
		fields += (attrs[6] & 4) != 0 ? 4 : 0;
		fields += (attrs[6] & 8) != 0 ? 8 : 0;
		out[(size_t)len - fields - 4] |= buf[start + (size_t)len - 9 - fields - 4] & 0x80;
	}
	CHECK((uint64_t)(len - 9) <= end - start);
	CHECK(memcmp(out + 9, buf + start, (size_t)(len - 9)) == 0);
	free(out);
}

static void
decode(const uint8_t *buf, size_t len, size_t start, size_t end, int64_t type, size_t cap)
{
	int64_t *v = exactly(cap * sizeof *v), kind, i;

	kind = sftp_decode_request(buf, len, start, end, type, v, cap);
	if (cap < SFTP_REQUEST_SLOTS || start > end || end > len) {
		CHECK(kind == CODEC_SPACE);
	} else if (type == 1 && kind >= 0) {
		CHECK(kind == 1 && v[1] >= 0 && v[1] <= SFTP_MAX_EXTENSIONS);
		for (i = 0; i < 2 * v[1]; i++)
			check_span(v + 2 + 2 * i, start, end);
	} else if (type == 200 && kind == 200) {
		check_span(v, start, end);
	} else if (kind >= 0) {
		CHECK(type == 200 ? kind >= 256 && kind < 256 + (int64_t)EXTENSIONS
				  : kind == type && kind > 2 && kind < TYPES);
		again(buf, start, end, kind, v);
	} else {
		CHECK(kind != CODEC_SPACE);
		CHECK((kind == CODEC_OP) == (type != 200 && (type < 1 || type == 2 || type >= TYPES)));
	}
	free(v);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int64_t *v = exactly(SLOTS * sizeof *v), n, i;
	uint8_t *body;

	n = sftp_scan(data, len, 0, len, 100000, v, SLOTS);
	for (i = 0; i < n; i++) {
		const int64_t *packet = v + 1 + i * 4;
		size_t start = (size_t)packet[2], end = (size_t)packet[3];

		decode(data, len, start, end, packet[0], SLOTS);
		body = copy_of(data + start, end - start); /* nothing behind it */
		decode(body, end - start, 0, end - start, packet[0], SFTP_REQUEST_SLOTS);
		free(body);
	}
	free(v);
	if (len > 0) { /* the same octets as a body, the type in front */
		body = copy_of(data + 1, len - 1);
		decode(body, len - 1, 0, len - 1, data[0], SLOTS);
		decode(body, len - 1, len / 3, len - 1, data[0], SLOTS);
		decode(body, len - 1, 0, len, data[0], SLOTS);
		decode(body, len - 1, 0, len - 1, data[0], len % SFTP_REQUEST_SLOTS);
		free(body);
	}
	return 0;
}
