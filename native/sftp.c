/*
 * SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions: packets in a stream,
 * and what a client needs. What a server needs beyond that is in sftp_server.c.
 */
#include "sftp_wire.h"

#define TYPE_INIT 1
#define TYPE_VERSION 2

int64_t
sftp_scan(const void *buf, size_t len, size_t start, size_t end, size_t max_packet, int64_t *v,
    size_t cap)
{
	const uint8_t *p = buf;
	size_t at = start, slot = 1, n = 0, size;

	if (start > end || end > len || cap < 1)
		return CODEC_SPACE;
	while (end - at >= 4) {
		size = load_be32(p + at);
		if (size < 5 || size > max_packet)
			return CODEC_LENGTH;
		if (size > end - at - 4 || cap - slot < 4)
			break;
		at += 4;
		v[slot] = p[at];
		if (p[at] == TYPE_INIT || p[at] == TYPE_VERSION) {
			v[slot + 1] = 0;
			v[slot + 2] = (int64_t)at + 1;
		} else {
			v[slot + 1] = load_be32(p + at + 1);
			v[slot + 2] = (int64_t)at + 5;
		}
		at += size;
		v[slot + 3] = (int64_t)at;
		slot += 4;
		n++;
	}
	v[0] = (int64_t)at;
	return (int64_t)n;
}

/* Encoding. */

/* A server ends the session over a NUL in a path, so ours does not leave the house. */
static void
encode_string(struct output *out, int may_have_nul, const int64_t *v, const uint8_t *base,
    size_t baselen)
{
	size_t n;

	if (v[0] < 0 || v[1] < v[0] || (uint64_t)v[1] > baselen) {
		fail(&out->err, CODEC_LENGTH);
		return;
	}
	n = (size_t)(v[1] - v[0]);
	if (!may_have_nul && n != 0 && memchr(base + v[0], 0, n) != NULL)
		fail(&out->err, CODEC_NAME);
	put_be32(out, (uint32_t)n);
	put_octets(out, base + v[0], n);
}

int64_t
sftp_encode(void *to, size_t cap, int64_t type, int64_t id, const void *ext, size_t extlen,
    const char *form, const int64_t *v, size_t n, const void *base, size_t baselen)
{
	struct output out = { to, cap < SFTP_REQUEST_MAX + 4 ? cap : SFTP_REQUEST_MAX + 4, 0, 0 };
	struct output head = { to, 4, 0, 0 };
	const uint8_t *strings = base;
	size_t at = 0, need;
	int64_t beside = 0;

	(void)room(&out, 4);
	if (type < 0 || type > UINT8_MAX)
		return CODEC_VALUE;
	put_8(&out, (uint8_t)type);
	encode_u32(&out, id);
	if (extlen != 0) {
		put_be32(&out, (uint32_t)extlen);
		put_octets(&out, ext, extlen);
	}
	for (; *form != '\0' && out.err == 0; form++) {
		need = *form == 's' || *form == 'b' ? 2 : *form == 'a' ? SFTP_ATTRS_SLOTS : 1;
		if (need > n - at)
			return CODEC_SHORT;
		switch (*form) {
		case 's':
		case 'b':
			encode_string(&out, *form == 'b', v + at, strings, baselen);
			break;
		case 'u':
			encode_u32(&out, v[at]);
			break;
		case 'q':
			encode_u64(&out, v[at]);
			break;
		case 'a':
			encode_attrs(&out, v + at);
			break;
		case 'd':
			encode_u32(&out, v[at]);
			beside = v[at];
			break;
		default:
			return CODEC_OP;
		}
		at += need;
	}
	if (out.err != 0)
		return out.err;
	if (at != n)
		return CODEC_TRAILING;
	if (beside > UINT32_MAX - (int64_t)out.at)
		return CODEC_LENGTH;
	put_be32(&head, (uint32_t)((int64_t)out.at - 4 + beside));
	return (int64_t)out.at;
}

/* Decoding. */

/* Slots: version, then four for each extension (start and end of name, of data). */
int64_t
sftp_decode_version(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };
	size_t n;

	if (cap < 1 + 4 * SFTP_MAX_EXTENSIONS)
		return CODEC_SPACE;
	v[0] = take_be32(&in);
	n = decode_extensions(&in, v + 1);
	return in.err != 0 ? in.err : (int64_t)(1 + 4 * n);
}

/* Slots: code, start and end of the message. Servers of version 1 and 2 send no message. */
int64_t
sftp_decode_status(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };

	if (cap < 3)
		return CODEC_SPACE;
	v[0] = take_be32(&in);
	v[1] = v[2] = 0;
	if (in.err == 0 && in.at != in.len)
		decode_span(&in, v + 1, v + 2);
	return in.err != 0 ? in.err : 3;
}

int64_t
sftp_decode_attrs(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };

	if (cap < SFTP_ATTRS_SLOTS)
		return CODEC_SPACE;
	decode_attrs(&in, v, 1, 0);
	return in.err != 0 ? in.err : SFTP_ATTRS_SLOTS;
}

/*
 * Slots: number n of names, the bits of the mask that all attributes have, those that any has,
 * then columns of n slots: start and end of the name, start and end of the long name, and the
 * seven of the attributes.
 */
#define NAME_MIN_LEN 12

int64_t
sftp_decode_name(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };
	uint32_t count = take_be32(&in);
	size_t n = count, i;
	int64_t common = ATTR_KNOWN, any = 0;
	int64_t *column;

	if (in.err != 0)
		return in.err;
	if (n > (in.len - in.at) / NAME_MIN_LEN)
		return CODEC_SHORT;
	if (cap < 3 || n > (cap - 3) / SFTP_NAME_COLUMNS)
		return CODEC_SPACE;
	column = v + 3;
	for (i = 0; i < n && in.err == 0; i++) {
		decode_span(&in, column + i, column + n + i);
		decode_span(&in, column + 2 * n + i, column + 3 * n + i);
		decode_attrs(&in, column + 4 * n + i, n, 0);
		common &= column[10 * n + i];
		any |= column[10 * n + i];
	}
	if (in.err != 0)
		return in.err;
	v[0] = count;
	v[1] = common;
	v[2] = any;
	return (int64_t)(3 + n * SFTP_NAME_COLUMNS);
}

int64_t
sftp_decode_u64s(const void *buf, size_t len, uint64_t *v, size_t n)
{
	struct octets in = { buf, len, 0, 0 };
	size_t i;

	for (i = 0; i < n; i++)
		v[i] = take_be64(&in);
	return in.err != 0 ? in.err : (int64_t)n;
}

/* Slots: number of users, number of groups, then start and end of each. */
int64_t
sftp_decode_users_groups(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 }, list;
	size_t at = 2, kind;
	uint32_t size;
	int64_t n;

	if (cap < at)
		return CODEC_SPACE;
	for (kind = 0; kind < 2; kind++) {
		size = take_be32(&in);
		list.p = in.p;
		list.at = in.at;
		list.err = 0;
		if (take(&in, size) == NULL)
			return in.err;
		list.len = in.at;
		for (n = 0; list.at != list.len; n++) {
			if (cap - at < 2)
				return CODEC_SPACE;
			decode_span(&list, v + at, v + at + 1);
			if (list.err != 0)
				return list.err;
			at += 2;
		}
		v[kind] = n;
	}
	return (int64_t)at;
}
