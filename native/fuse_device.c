/*
 * FUSE messages, the side of a daemon that reads the kernel's device: requests are taken apart,
 * replies made. The kernel is trusted more than a peer, but no length is believed.
 */
#include "fuse_wire.h"
#include "packed.h"

#define IN_HEADER_SLOTS 6
#define SECONDS_MAX (INT64_MAX / NS - 1)

/*
 * What stands behind the header, by opcode: u a number of 32 bits, q the bits of one of 64, p one
 * of 63, 0 four octets that do not matter, s a string with its NUL, d as many octets as the last u
 * says, r as many rows of 16 octets, v a u that these do not go by, t the times of SETATTR, i INIT.
 */
static const char *const forms[] = {
	[1] = "s",             /* LOOKUP: name */
	[2] = "q",             /* FORGET: lookups */
	[3] = "0000",          /* GETATTR */
	[4] = "u0qp00tu0uu0",  /* SETATTR: valid, fh, size, atime, mtime, mode, uid, gid */
	[5] = "",              /* READLINK */
	[6] = "ss",            /* SYMLINK: name, target */
	[8] = "uu00s",         /* MKNOD: mode, rdev, name */
	[9] = "u0s",           /* MKDIR: mode, name */
	[10] = "s",            /* UNLINK: name */
	[11] = "s",            /* RMDIR: name */
	[12] = "qss",          /* RENAME: directory, old name, new name */
	[13] = "qs",           /* LINK: node, name */
	[14] = "u0",           /* OPEN: flags */
	[15] = "qpu00000",     /* READ: fh, offset, size */
	[16] = "qpu00000d",    /* WRITE: fh, offset, size, data */
	[17] = "",             /* STATFS */
	[18] = "q0uq",         /* RELEASE: fh, flags, owner of locks */
	[20] = "qu0",          /* FSYNC: fh, flags */
	[21] = "uvsd",         /* SETXATTR: size, flags, name, value */
	[22] = "u0s",          /* GETXATTR: size, name */
	[23] = "u0",           /* LISTXATTR: size */
	[24] = "s",            /* REMOVEXATTR: name */
	[25] = "q00q",         /* FLUSH: fh, owner of locks */
	[26] = "i",            /* INIT: major, minor, max_readahead, flags */
	[27] = "u0",           /* OPENDIR: flags */
	[29] = "q0000",        /* RELEASEDIR: fh */
	[30] = "qu0",          /* FSYNCDIR: fh, flags */
	[31] = "qqppuuu0",     /* GETLK: fh, owner, first and last octet, type, pid, flags */
	[32] = "qqppuuu0",     /* SETLK: the same */
	[33] = "qqppuuu0",     /* SETLKW: the same */
	[34] = "u0",           /* ACCESS: mode */
	[35] = "uu00s",        /* CREATE: flags, mode, name */
	[36] = "q",            /* INTERRUPT: unique number */
	[38] = "",             /* DESTROY */
	[42] = "u0r",          /* BATCH_FORGET: number, rows of node and lookups */
	[43] = "qppu0",        /* FALLOCATE: fh, offset, length, mode */
	[44] = "qpu00000",     /* READDIRPLUS: fh, offset, size */
	[45] = "qu0ss",        /* RENAME2: directory, flags, old name, new name */
	[46] = "qqu0",         /* LSEEK: fh, offset, whence */
	[47] = "qpqqppq",      /* COPY_FILE_RANGE: fh, offset, node, fh, offset, length, flags */
};

static void
take_string(struct octets *in, int64_t *v)
{
	const uint8_t *nul;

	v[0] = v[1] = (int64_t)in->at;
	if (in->err != 0)
		return;
	nul = in->at < in->len ? memchr(in->p + in->at, 0, in->len - in->at) : NULL;
	if (nul == NULL) {
		in->err = CODEC_SHORT;
		return;
	}
	v[1] = (int64_t)(nul - in->p);
	in->at = (size_t)v[1] + 1;
}

static void
take_span(struct octets *in, uint64_t n, int64_t *v)
{
	v[0] = (int64_t)in->at;
	(void)take(in, n);
	v[1] = (int64_t)in->at;
}

static int64_t
time_of(int64_t s, uint32_t ns)
{
	s = s > SECONDS_MAX ? SECONDS_MAX : s < -SECONDS_MAX ? -SECONDS_MAX : s;
	return s * NS + (ns < NS ? ns : NS - 1);
}

/* atime, mtime and ctime, of which the last does not matter. */
static void
take_times(struct octets *in, int64_t *v)
{
	int64_t atime = as_signed(take_64(in)), mtime = as_signed(take_64(in));
	uint32_t ns;

	(void)take_64(in);
	ns = take_32(in);
	v[0] = time_of(atime, ns);
	ns = take_32(in);
	v[1] = time_of(mtime, ns);
	(void)take_32(in);
}

/* 16 octets before 7.36, with the upper half of the flags and room behind them since then. */
static void
take_init(struct octets *in, int64_t *v)
{
	uint32_t flags;

	v[0] = take_32(in);
	v[1] = take_32(in);
	v[2] = take_32(in);
	flags = take_32(in);
	v[3] = flags;
	if (in->err == 0 && in->at < in->len) {
		v[3] |= (int64_t)(take_32(in) & INT32_MAX) << 32;
		(void)take(in, 44);
	}
}

int64_t
fuse_decode_request(const void *buf, size_t len, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };
	uint32_t size, opcode, last = 0;
	const char *form;
	size_t n = IN_HEADER_SLOTS;

	if (cap < FUSE_DECODE_SLOTS)
		return CODEC_SPACE;
	size = take_32(&in);
	opcode = take_32(&in);
	v[0] = opcode;
	v[1] = as_signed(take_64(&in));
	v[2] = as_signed(take_64(&in));
	v[3] = take_32(&in);
	v[4] = take_32(&in);
	v[5] = take_32(&in);
	(void)take_32(&in); /* no extensions: we ask for none */
	if (in.err != 0)
		return in.err;
	if (size != len)
		return CODEC_LENGTH;
	if (opcode >= sizeof forms / sizeof *forms || forms[opcode] == NULL)
		return IN_HEADER_SLOTS;
	for (form = forms[opcode]; *form != '\0' && in.err == 0; form++) {
		switch (*form) {
		case 'u':
			last = take_32(&in);
			v[n++] = last;
			break;
		case 'v':
			v[n++] = take_32(&in);
			break;
		case 'q':
			v[n++] = as_signed(take_64(&in));
			break;
		case 'p':
			v[n] = as_signed(take_64(&in));
			if (v[n++] < 0)
				fail(&in.err, CODEC_VALUE);
			break;
		case '0':
			(void)take_32(&in);
			break;
		case 's':
			take_string(&in, v + n);
			n += 2;
			break;
		case 'd':
			take_span(&in, last, v + n);
			n += 2;
			break;
		case 'r':
			take_span(&in, (uint64_t)last * 16, v + n);
			n += 2;
			break;
		case 't':
			take_times(&in, v + n);
			n += 2;
			break;
		case 'i':
			take_init(&in, v + n);
			n += 4;
			break;
		default:
			return CODEC_OP;
		}
	}
	if (in.err != 0)
		return in.err;
	return in.at != len ? CODEC_TRAILING : (int64_t)n;
}

/* Replies. */

static void
put_u32(struct output *out, int64_t v)
{
	put_32(out, v < 0 ? 0 : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v);
}

static void
put_u63(struct output *out, int64_t v)
{
	put_64(out, v < 0 ? 0 : (uint64_t)v);
}

static int64_t
seconds_of(int64_t ns)
{
	return ns / NS - (ns % NS < 0);
}

static void
put_attr(struct output *out, const int64_t *v)
{
	size_t i;

	put_64(out, (uint64_t)v[0]);
	put_u63(out, v[1]);
	put_u63(out, v[2]);
	for (i = 3; i < 6; i++)
		put_64(out, (uint64_t)seconds_of(v[i]));
	for (i = 3; i < 6; i++)
		put_32(out, (uint32_t)((v[i] % NS + NS) % NS));
	for (i = 6; i < 12; i++)
		put_u32(out, v[i]);
	put_32(out, 0);
}

/* Node, time-outs of name and attributes, attributes. */
static void
put_entry(struct output *out, const int64_t *v)
{
	size_t i;

	put_64(out, (uint64_t)v[0]);
	put_64(out, 0); /* generation: a number is not used for another node while we live */
	for (i = 1; i < 3; i++)
		put_u63(out, v[i] / NS);
	for (i = 1; i < 3; i++)
		put_u32(out, v[i] < 0 ? 0 : v[i] % NS);
	put_attr(out, v + 3);
}

static void
put_header(struct output *out, int64_t unique)
{
	put_32(out, 0);
	put_32(out, 0);
	put_64(out, (uint64_t)unique);
}

/* The length that is known now, into the header. */
static int64_t
finish(struct output *out)
{
	uint32_t len = (uint32_t)(out->at & UINT32_MAX);

	if (out->err != 0)
		return out->err;
	memcpy(out->p, &len, sizeof len);
	return (int64_t)out->at;
}

int64_t
fuse_encode_reply(void *to, size_t cap, int64_t unique, int64_t kind, const int64_t *v, size_t n)
{
	struct output out = { to, cap < INT32_MAX ? cap : INT32_MAX, 0, 0 };
	size_t need = FUSE_ATTR_SLOTS + (kind == FUSE_KIND_CREATE ? 5 : kind == FUSE_KIND_ENTRY ? 3 : 1);

	if (n != need)
		return n < need ? CODEC_SHORT : CODEC_TRAILING;
	put_header(&out, unique);
	switch (kind) {
	case FUSE_KIND_ENTRY:
		put_entry(&out, v);
		break;
	case FUSE_KIND_CREATE:
		put_entry(&out, v);
		put_64(&out, (uint64_t)v[15]);
		put_u32(&out, v[16]);
		put_32(&out, 0);
		break;
	case FUSE_KIND_ATTR:
		put_u63(&out, v[0] / NS);
		put_u32(&out, v[0] < 0 ? 0 : v[0] % NS);
		put_32(&out, 0);
		put_attr(&out, v + 1);
		break;
	default:
		return CODEC_OP;
	}
	return finish(&out);
}

int64_t
fuse_encode_dirents(void *to, size_t cap, int64_t unique, const int64_t *v, size_t n,
    const void *names, size_t nameslen)
{
	struct output out = { to, cap < INT32_MAX ? cap : INT32_MAX, 0, 0 };
	const uint8_t *name = names;
	size_t left = nameslen, pad;
	uint8_t zeros[8] = { 0 };

	put_header(&out, unique);
	for (; n != 0 && out.err == 0; n--, v += FUSE_DIRENT_SLOTS) {
		if (v[0] <= 0 || (uint64_t)v[0] > left)
			return CODEC_LENGTH;
		put_entry(&out, v + 3);
		put_64(&out, (uint64_t)v[6]); /* the inode number, of the attributes */
		put_u63(&out, v[2]);
		put_u32(&out, v[0]);
		put_u32(&out, v[1]);
		put_octets(&out, name, (size_t)v[0]);
		pad = (8 - (size_t)v[0] % 8) % 8;
		put_octets(&out, zeros, pad);
		name += v[0];
		left -= (size_t)v[0];
	}
	if (out.err == 0 && left != 0)
		return CODEC_TRAILING;
	return finish(&out);
}

#define DIRENT_MIN_LEN 152

int64_t
fuse_encode_page(void *to, size_t cap, int64_t *v, size_t n, const void *packed, size_t packedlen,
    const void *names, size_t nameslen)
{
	struct output out = { to, cap < INT32_MAX ? cap : INT32_MAX, 0, 0 };
	const uint8_t *p = packed, *name = names;
	const int64_t *number = v + 4, *offset = number + n, *length = offset + n;
	size_t left = nameslen, i, size;
	uint8_t zeros[8] = { 0 };
	struct packed a;

	if (n != packedlen / PACKED_LEN || packedlen % PACKED_LEN != 0)
		return CODEC_LENGTH;
	for (i = 0; i < n && out.err == 0; i++, p += PACKED_LEN) {
		if (length[i] <= 0 || (uint64_t)length[i] > left)
			return CODEC_LENGTH;
		size = ((size_t)length[i] + 7) & ~(size_t)7;
		if (size + DIRENT_MIN_LEN > out.cap - out.at)
			break;
		load_packed(p, &a);
		{
			int64_t row[] = { number[i], v[0], v[1], number[i], a.size,
				a.size / 512 + (a.size % 512 != 0), a.atime * NS, a.mtime * NS, a.mtime * NS, a.mode, a.nlink,
				v[2] < 0 ? a.uid : v[2], v[3] < 0 ? a.gid : v[3], 0, 4096 };

			put_entry(&out, row);
		}
		put_64(&out, (uint64_t)number[i]);
		put_u63(&out, offset[i]);
		put_u32(&out, length[i]);
		put_u32(&out, a.mode >> 12); /* as DT_ has the type */
		put_octets(&out, name, (size_t)length[i]);
		put_octets(&out, zeros, size - (size_t)length[i]);
		name += length[i];
		left -= (size_t)length[i];
	}
	v[0] = (int64_t)i;
	return out.err != 0 ? out.err : (int64_t)out.at;
}
