/*
 * SFTP version 3 with OpenSSH's extensions, server side: requests and directory listings. The
 * other replies are so few fields that Python's struct is faster than a call of C.
 */
#include "sftp_wire.h"

#define TYPE_NAME 104
#define TYPE_EXTENDED 200

/* By type: what follows the id; letters as for sftp_encode, and see decode_form. */
static const char *const forms[] = {
	NULL,
	"v",   /* INIT */
	NULL,
	"sua", /* OPEN */
	"b",   /* CLOSE */
	"bqu", /* READ */
	"bqd", /* WRITE */
	"s",   /* LSTAT */
	"b",   /* FSTAT */
	"sa",  /* SETSTAT */
	"ba",  /* FSETSTAT */
	"s",   /* OPENDIR */
	"b",   /* READDIR */
	"s",   /* REMOVE */
	"sa",  /* MKDIR */
	"s",   /* RMDIR */
	"s",   /* REALPATH */
	"s",   /* STAT */
	"ss",  /* RENAME */
	"s",   /* READLINK */
	"ss"   /* SYMLINK */
};

/* By SFTP_KIND_ number. */
static const struct extension {
	const char *name, *form;
} extensions[] = {
	{ "posix-rename@openssh.com", "ss" },
	{ "hardlink@openssh.com", "ss" },
	{ "statvfs@openssh.com", "s" },
	{ "fstatvfs@openssh.com", "b" },
	{ "fsync@openssh.com", "b" },
	{ "lsetstat@openssh.com", "sa" },
	{ "limits@openssh.com", "" },
	{ "expand-path@openssh.com", "s" },
	{ "copy-data", "bqQbq" },
	{ "home-directory", "s" },
	{ "users-groups-by-id@openssh.com", "nn" }
};

static void
decode_path(struct octets *in, int64_t *v)
{
	decode_span(in, v, v + 1);
	if (in->err == 0 && v[1] != v[0] && memchr(in->p + v[0], 0, (size_t)(v[1] - v[0])) != NULL)
		in->err = CODEC_NAME;
}

static void
decode_handle(struct octets *in, int64_t *v)
{
	decode_span(in, v, v + 1);
	if (v[1] - v[0] > SFTP_HANDLE_MAX)
		fail(&in->err, CODEC_LENGTH);
}

static void
decode_u63(struct octets *in, int64_t *v)
{
	*v = as_signed(take_be64(in));
	if (*v < 0)
		fail(&in->err, CODEC_VALUE);
}

/* A span of whole 32-bit numbers. */
static void
decode_numbers(struct octets *in, int64_t *v)
{
	decode_span(in, v, v + 1);
	if ((v[1] - v[0]) % 4 != 0)
		fail(&in->err, CODEC_LENGTH);
}

static void
decode_form(struct octets *in, const char *form, int64_t *v)
{
	for (; *form != '\0' && in->err == 0; form++) {
		switch (*form) {
		case 's':
			decode_path(in, v);
			v += 2;
			break;
		case 'b':
			decode_handle(in, v);
			v += 2;
			break;
		case 'n':
			decode_numbers(in, v);
			v += 2;
			break;
		case 'd':
			decode_span(in, v, v + 1);
			v += 2;
			break;
		case 'u':
			*v++ = take_be32(in);
			break;
		case 'q':
			decode_u63(in, v++);
			break;
		case 'Q':
			*v++ = as_signed(take_be64(in));
			break;
		case 'a':
			decode_attrs(in, v, 1, ~(ATTR_KNOWN | ATTR_EXTENDED));
			v += SFTP_ATTRS_SLOTS;
			break;
		default: /* v: the version and what else a client tells of itself */
			v[0] = take_be32(in);
			v[1] = (int64_t)decode_extensions(in, v + 2);
			break;
		}
	}
}

/* The number of the extension whose name comes next, or TYPE_EXTENDED and the name's span. */
static int64_t
decode_extension(struct octets *in, int64_t *v)
{
	size_t n = sizeof extensions / sizeof *extensions, i, len;

	decode_span(in, v, v + 1);
	len = (size_t)(v[1] - v[0]);
	for (i = 0; i < n && in->err == 0; i++) {
		if (len == strlen(extensions[i].name) &&
		    memcmp(in->p + v[0], extensions[i].name, len) == 0)
			return SFTP_KIND_EXTENSION + (int64_t)i;
	}
	return TYPE_EXTENDED;
}

int64_t
sftp_decode_request(const void *buf, size_t len, size_t start, size_t end, int64_t type,
    int64_t *v, size_t cap)
{
	struct octets in = { buf, end, start, 0 };
	int64_t kind = type;

	if (start > end || end > len || cap < SFTP_REQUEST_SLOTS)
		return CODEC_SPACE;
	if (type == TYPE_EXTENDED) {
		kind = decode_extension(&in, v);
		if (kind != TYPE_EXTENDED)
			decode_form(&in, extensions[kind - SFTP_KIND_EXTENSION].form, v);
	} else if (type < 0 || (uint64_t)type >= sizeof forms / sizeof *forms ||
	    forms[type] == NULL) {
		return CODEC_OP;
	} else {
		decode_form(&in, forms[type], v);
	}
	return in.err != 0 ? in.err : kind;
}

/* The next `n` octets of `from` as a string. */
static void
put_next(struct output *out, struct octets *from, int64_t n)
{
	const uint8_t *p;

	if (n < 0 || (uint64_t)n > from->len - from->at) {
		fail(&out->err, CODEC_LENGTH);
		return;
	}
	p = take(from, (size_t)n);
	put_be32(out, (uint32_t)n);
	put_octets(out, p, (size_t)n);
}

int64_t
sftp_encode_name(void *to, size_t cap, int64_t id, const int64_t *v, size_t n, const void *names,
    size_t nameslen, const void *longnames, size_t longlen)
{
	struct output out = { to, cap < UINT32_MAX ? cap : UINT32_MAX, 0, 0 };
	struct output head = { to, 4, 0, 0 };
	struct octets name = { names, nameslen, 0, 0 }, longname = { longnames, longlen, 0, 0 };
	int64_t attrs[SFTP_ATTRS_SLOTS];
	size_t i;

	(void)room(&out, 4);
	put_8(&out, TYPE_NAME);
	encode_u32(&out, id);
	put_be32(&out, (uint32_t)n);
	for (i = 0; i < n && out.err == 0; i++) {
		put_next(&out, &name, v[i]);
		put_next(&out, &longname, v[n + i]);
		memcpy(attrs, v + 3 * n + 6 * i, 6 * sizeof *attrs);
		attrs[6] = v[2 * n + i];
		encode_attrs(&out, attrs);
	}
	if (out.err != 0)
		return out.err;
	if (name.at != name.len || longname.at != longname.len)
		return CODEC_TRAILING;
	put_be32(&head, (uint32_t)(out.at - 4));
	return (int64_t)out.at;
}
