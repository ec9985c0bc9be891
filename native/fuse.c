/*
 * FUSE messages (include/uapi/linux/fuse.h, 7.12 to 7.45), the kernel's side: requests are written,
 * replies and notifications read. Numbers are in the byte order of the host, for both ends run on
 * it. A message is one datagram, so that what it is called is what was received.
 */
#include "fuse_wire.h"

#define TTL_MAX 86400000000000
#define VATTR_MASK 0x18fdf /* all but fsid (5), birthtime, gen and flags (12 to 14) */
#define ENTRY_SLOTS 22
#define DIRENT_SLOTS 5
#define NAME_LEN_MAX 255
#define INIT_SHORT 24

static void
encode_u32(struct output *out, int64_t v)
{
	if (v < 0 || v > UINT32_MAX)
		fail(&out->err, CODEC_VALUE);
	put_32(out, (uint32_t)(v & UINT32_MAX));
}

/* Encoding. */

static void
encode_span(struct output *out, int is_string, const int64_t *v, const uint8_t *base,
    size_t baselen)
{
	size_t n;

	if (v[0] < 0 || v[1] < v[0] || (uint64_t)v[1] > baselen) {
		fail(&out->err, CODEC_LENGTH);
		return;
	}
	n = (size_t)(v[1] - v[0]);
	if (is_string && n != 0 && memchr(base + v[0], 0, n) != NULL)
		fail(&out->err, CODEC_NAME);
	put_octets(out, base + v[0], n);
	if (is_string)
		put_8(out, 0);
}

int64_t
fuse_encode(void *to, size_t cap, int64_t opcode, int64_t unique, int64_t nodeid, int64_t uid,
    int64_t gid, int64_t pid, const char *form, const int64_t *v, size_t n, const void *base,
    size_t baselen)
{
	struct output out = { to, cap < FUSE_REQUEST_MAX ? cap : FUSE_REQUEST_MAX, 0, 0 };
	struct output head = { to, 4, 0, 0 };
	size_t at = 0, need;
	int64_t beside = 0;

	(void)room(&out, 4);
	encode_u32(&out, opcode);
	put_64(&out, (uint64_t)unique);
	put_64(&out, (uint64_t)nodeid);
	encode_u32(&out, uid);
	encode_u32(&out, gid);
	encode_u32(&out, pid);
	put_32(&out, 0); /* no extensions */
	for (; *form != '\0' && out.err == 0; form++) {
		need = *form == 's' || *form == 'b' ? 2 : *form == '0' ? 0 : 1;
		if (need > n - at)
			return CODEC_SHORT;
		switch (*form) {
		case 's':
		case 'b':
			encode_span(&out, *form == 's', v + at, base, baselen);
			break;
		case 'u':
			encode_u32(&out, v[at]);
			break;
		case 'q':
			put_64(&out, (uint64_t)v[at]);
			break;
		case '0':
			put_32(&out, 0);
			break;
		case 'd':
			beside = v[at];
			if (beside < 0 || beside > FUSE_DATA_MAX)
				fail(&out.err, CODEC_LENGTH);
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
	put_32(&head, (uint32_t)((int64_t)out.at + beside));
	return (int64_t)out.at;
}

/* Decoding. */

int64_t
fuse_header(const void *buf, size_t len, size_t total, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };
	int64_t size, error;

	if (cap < 2)
		return CODEC_SPACE;
	size = take_32(&in);
	error = (int64_t)take_32(&in);
	if (error > INT32_MAX)
		error -= (int64_t)1 << 32;
	v[0] = error;
	v[1] = as_signed(take_64(&in));
	if (in.err != 0)
		return in.err;
	if (size < 0 || (uint64_t)size != total)
		return CODEC_LENGTH;
	/* A notification has its code there; a reply 0 or a negative errno, as Linux has them. */
	if (v[1] == 0 ? error <= 0 : error > 0 || error <= -512)
		return CODEC_VALUE;
	return 2;
}

static int64_t
take_u63(struct octets *in)
{
	int64_t v = as_signed(take_64(in));

	if (v < 0)
		fail(&in->err, CODEC_VALUE);
	return v;
}

/* What is larger than a signed number holds is as large as that. */
static int64_t
take_clamped(struct octets *in)
{
	uint64_t v = take_64(in);

	return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static int64_t
ttl(struct octets *in, uint64_t s, uint32_t ns)
{
	if (ns >= NS) {
		fail(&in->err, CODEC_VALUE);
		return 0;
	}
	return s >= TTL_MAX / NS ? TTL_MAX : (int64_t)s * NS + ns;
}

static int64_t
timestamp(struct octets *in, int64_t s, uint32_t ns)
{
	if (ns >= NS || s > INT64_MAX / NS - 1 || s < INT64_MIN / NS + 2) {
		fail(&in->err, CODEC_VALUE);
		return 0;
	}
	return s * NS + ns;
}

/* The type of a vnode from the upper bits of a mode, or from what a directory says, 0 if none. */
static int64_t
vtype_of(uint32_t ifmt)
{
	static const int64_t vtypes[16] = { [1] = 7, [2] = 4, [4] = 2, [6] = 3, [8] = 1, [10] = 5,
		[12] = 6 };

	return ifmt < 16 ? vtypes[ifmt] : 0;
}

/* struct fuse_attr, 88 octets, to 18 slots: a Vattr and the mask of what is there. */
static void
decode_attr(struct octets *in, int64_t *v)
{
	int64_t s[3], blocks;
	uint32_t ns[3], mode;
	size_t i;

	v[5] = v[12] = v[13] = v[14] = 0;
	v[6] = as_signed(take_64(in) & INT64_MAX);
	v[7] = take_u63(in);
	blocks = take_clamped(in);
	v[16] = blocks > INT64_MAX / 512 ? INT64_MAX : blocks * 512;
	for (i = 0; i < 3; i++)
		s[i] = as_signed(take_64(in));
	for (i = 0; i < 3; i++)
		ns[i] = take_32(in);
	for (i = 0; i < 3; i++)
		v[9 + i] = timestamp(in, s[i], ns[i]);
	mode = take_32(in);
	v[0] = vtype_of(mode >> 12);
	v[1] = mode & 07777;
	if (v[0] == 0)
		fail(&in->err, CODEC_VALUE);
	v[2] = take_32(in);
	v[3] = take_32(in);
	v[4] = take_32(in);
	v[15] = take_32(in);
	v[8] = take_32(in);
	(void)take_32(in);
	v[17] = VATTR_MASK;
}

/* struct fuse_entry_out, 128 octets. Of node 0, which says that there is none, no attributes. */
static void
decode_entry(struct octets *in, int64_t *v)
{
	uint64_t valid[2];
	uint32_t ns;

	v[0] = as_signed(take_64(in));
	v[1] = as_signed(take_64(in));
	valid[0] = take_64(in);
	valid[1] = take_64(in);
	ns = take_32(in);
	v[2] = ttl(in, valid[0], ns);
	ns = take_32(in);
	v[3] = ttl(in, valid[1], ns);
	if (v[0] != 0) {
		decode_attr(in, v + 4);
	} else {
		memset(v + 4, 0, 18 * sizeof *v);
		(void)take(in, 88);
	}
}

static void
decode_name(struct octets *in, uint32_t namelen, int64_t *v)
{
	const uint8_t *name;

	if (namelen == 0 || namelen > NAME_LEN_MAX) {
		fail(&in->err, CODEC_NAME);
		return;
	}
	v[0] = (int64_t)in->at;
	name = take(in, namelen);
	v[1] = (int64_t)in->at;
	if (name != NULL &&
	    (memchr(name, 0, namelen) != NULL || memchr(name, '/', namelen) != NULL))
		fail(&in->err, CODEC_NAME);
}

/* Entries, behind the node of each if `plus`; one that does not fit ends them, as in Linux. */
static int64_t
decode_dirents(struct octets *in, int plus, int64_t *v, size_t cap)
{
	size_t head = plus ? 152 : 24, slots = DIRENT_SLOTS + (plus ? ENTRY_SLOTS : 0), size;
	uint32_t namelen;
	int64_t n = 0;

	while (in->err == 0 && in->len - in->at >= head) {
		memcpy(&namelen, in->p + in->at + head - 8, sizeof namelen);
		if (namelen == 0 || namelen > NAME_LEN_MAX)
			return CODEC_NAME;
		size = (head + namelen + 7) & ~(size_t)7;
		if (size > in->len - in->at)
			break;
		if (cap < slots)
			return CODEC_SPACE;
		if (plus)
			decode_entry(in, v + DIRENT_SLOTS);
		v[0] = as_signed(take_64(in) & INT64_MAX);
		v[2] = take_u63(in);
		(void)take_32(in);
		v[1] = vtype_of(take_32(in));
		decode_name(in, namelen, v + 3);
		if (v[2] == 0)
			fail(&in->err, CODEC_VALUE);
		(void)take(in, size - head - namelen);
		v += slots;
		cap -= slots;
		n++;
	}
	return in->err != 0 ? in->err : n;
}

static void
decode_init(struct octets *in, int64_t *v)
{
	memset(v, 0, 13 * sizeof *v);
	v[0] = take_32(in);
	v[1] = take_32(in);
	if (in->len == 8)
		return; /* another major version */
	v[2] = take_32(in);
	v[3] = take_32(in);
	v[4] = take_16(in);
	v[5] = take_16(in);
	v[6] = take_32(in);
	if (in->len == INIT_SHORT)
		return; /* before 7.23 */
	v[7] = take_32(in);
	v[8] = take_16(in);
	v[9] = take_16(in);
	v[10] = take_32(in);
	v[11] = take_32(in);
	v[12] = take_16(in);
	(void)take(in, 22);
}

static void
decode_statfs(struct octets *in, int64_t *v)
{
	size_t i;

	for (i = 2; i < 7; i++) /* blocks, bfree, bavail, files, ffree */
		v[i] = take_clamped(in);
	v[7] = v[6];
	v[8] = v[9] = 0;
	v[0] = take_32(in);
	v[10] = take_32(in);
	v[1] = take_32(in);
	(void)take(in, 28);
	if (v[1] == 0)
		v[1] = v[0];
}

static void
decode_lock(struct octets *in, int64_t *v)
{
	v[0] = take_clamped(in);
	v[1] = take_clamped(in);
	v[2] = take_32(in);
	v[3] = take_32(in);
	if (v[2] > 2 || (v[2] != 2 && v[1] < v[0]))
		fail(&in->err, CODEC_VALUE);
}

/* A name with a NUL behind it. */
static void
decode_named(struct octets *in, uint32_t namelen, int64_t *v)
{
	const uint8_t *nul;

	decode_name(in, namelen, v);
	nul = take(in, 1);
	if (nul != NULL && *nul != 0)
		fail(&in->err, CODEC_NAME);
}

static void
decode_store(struct octets *in, int64_t *v)
{
	uint32_t size;

	v[0] = as_signed(take_64(in));
	v[1] = take_u63(in);
	size = take_32(in);
	(void)take_32(in);
	v[2] = (int64_t)in->at;
	(void)take(in, size);
	v[3] = (int64_t)in->at;
}

int64_t
fuse_decode(const void *buf, size_t len, int64_t kind, int64_t *v, size_t cap)
{
	struct octets in = { buf, len, 0, 0 };
	uint32_t namelen;
	int64_t n = 0;

	if (cap < FUSE_DECODE_SLOTS)
		return CODEC_SPACE;
	switch (kind) {
	case FUSE_KIND_ENTRY:
		decode_entry(&in, v);
		n = ENTRY_SLOTS;
		break;
	case FUSE_KIND_CREATE:
		decode_entry(&in, v);
		n = ENTRY_SLOTS;
		/* FALLTHROUGH */
	case FUSE_KIND_OPEN:
		v[n++] = as_signed(take_64(&in));
		v[n++] = take_32(&in);
		(void)take_32(&in);
		break;
	case FUSE_KIND_ATTR: {
		uint64_t s = take_64(&in);
		uint32_t ns = take_32(&in);

		(void)take_32(&in);
		v[0] = ttl(&in, s, ns);
		decode_attr(&in, v + 1);
		n = 19;
		break;
	}
	case FUSE_KIND_COUNT: /* of octets written, of an attribute's octets, of events */
		v[0] = take_32(&in);
		(void)take_32(&in);
		n = 1;
		break;
	case FUSE_KIND_OFFSET:
		v[0] = take_u63(&in);
		n = 1;
		break;
	case FUSE_KIND_STATFS:
		decode_statfs(&in, v);
		n = 11;
		break;
	case FUSE_KIND_LOCK:
		decode_lock(&in, v);
		n = 4;
		break;
	case FUSE_KIND_INIT:
		decode_init(&in, v);
		n = 13;
		break;
	case FUSE_KIND_DIRENTS:
	case FUSE_KIND_DIRENTS_PLUS:
		return decode_dirents(&in, kind == FUSE_KIND_DIRENTS_PLUS, v, cap);
	case FUSE_KIND_NOTIFY + 1: /* POLL */
		v[0] = as_signed(take_64(&in));
		n = 1;
		break;
	case FUSE_KIND_NOTIFY + 2: /* INVAL_INODE */
		for (; n < 3; n++)
			v[n] = as_signed(take_64(&in));
		break;
	case FUSE_KIND_NOTIFY + 3: /* INVAL_ENTRY */
		v[0] = as_signed(take_64(&in));
		namelen = take_32(&in);
		v[1] = take_32(&in);
		decode_named(&in, namelen, v + 2);
		n = 4;
		break;
	case FUSE_KIND_NOTIFY + 4: /* STORE */
		decode_store(&in, v);
		n = 4;
		break;
	case FUSE_KIND_NOTIFY + 5: /* RETRIEVE */
		v[0] = as_signed(take_64(&in));
		v[1] = as_signed(take_64(&in));
		v[2] = take_u63(&in);
		v[3] = take_32(&in);
		(void)take_32(&in);
		n = 4;
		break;
	case FUSE_KIND_NOTIFY + 6: /* DELETE */
		v[0] = as_signed(take_64(&in));
		v[1] = as_signed(take_64(&in));
		namelen = take_32(&in);
		(void)take_32(&in);
		decode_named(&in, namelen, v + 2);
		n = 4;
		break;
	case FUSE_KIND_NOTIFY + 7: /* RESEND */
	case FUSE_KIND_NOTIFY + 8: /* INC_EPOCH */
		break;
	default:
		return CODEC_OP;
	}
	if (in.err != 0)
		return in.err;
	return in.at != len ? CODEC_TRAILING : n;
}
