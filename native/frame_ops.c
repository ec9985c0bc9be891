/*
 * puffs frames. Little-endian, no padding.
 *
 * What an operation carries is one string of letters in the tables below; a request or reply is
 * built and taken apart by walking it. Each letter takes the same slots in both directions:
 *
 *   u  number of 32 bits                          1
 *   q  number of 64 bits, signed                  1
 *   Q  number of 64 bits, unsigned (bits kept)    1
 *   o  the same, not negative: offset, length     1
 *   r  length of an answer, at most FRAME_MAX     1
 *   B  0 or 1                                     1
 *   c  cookie                                     1
 *   z  cookie or 0                                1
 *   C  credentials: uid, gid, number of groups    3, and one for each group behind the last letter
 *   N  componentname: nameiop, flags, name, C     7, likewise
 *   V  attributes, then the mask of those present  18 (the mask counts in decoding only)
 *   I  newinfo: cookie, vtype, size, rdev, ttl of va, ttl of name, va present or not, V
 *                                                 25
 *   F  lock: type, start, length, pid             4
 *   S  statvfs                                    11
 *   n  name of a directory entry                  2: start and end
 *   e  the same or empty                          2
 *   x  name of an extended attribute              2
 *   y  the same or empty                          2
 *   t  target of a symbolic link                  2
 *   l  the same or empty                          2
 *   b  octets, at most 65536                      2
 *   h  file handle, 1 to 1020 octets              2
 *   m  text, at most 255 octets                   2
 *   P  length of the payload                      1, nothing in the body
 *   D  directory entries: see there
 *
 * Attributes are a mask of 17 bits and the fields whose bit is set, 8 octets each.
 */
#include "frames.h"

#define NO { NULL, NULL, 0 }

static const struct op vfs_ops[] = {
	NO, NO,
	{ "u", "", 0 }, /* unmount */
	NO, NO,
	{ "", "S", 0 },  /* statvfs */
	{ "uC", "", 0 }, /* sync */
	NO,
	{ "h", "I", 0 },         /* fhtonode */
	{ "", "h", OP_COOKIE },  /* nodetofh */
	NO, NO, NO,
	{ "uuy", "", 0 }, /* extattrctl */
};

static const struct op vn_ops[] = {
	{ "N", "I", OP_COOKIE },                /* lookup */
	{ "NV", "I", OP_COOKIE },               /* create */
	{ "NV", "I", OP_COOKIE },               /* mknod */
	{ "uC", "u", OP_COOKIE | OP_SETBACKS }, /* open */
	{ "uC", NULL, OP_COOKIE | OP_FAF },     /* close */
	{ "uC", "", OP_COOKIE },                /* access */
	{ "C", "Vo", OP_COOKIE },               /* getattr */
	{ "VC", "Vo", OP_COOKIE },              /* setattr */
	{ "oruC", "P", OP_COOKIE },             /* read */
	{ "oPuC", "", OP_COOKIE },              /* write */
	NO, NO,
	{ "u", "u", OP_COOKIE }, /* poll */
	NO, NO,
	{ "uC", "", OP_COOKIE | OP_SETBACKS }, /* mmap */
	{ "uooC", "", OP_COOKIE },             /* fsync */
	{ "ooC", "", OP_COOKIE },              /* seek */
	{ "cN", "", OP_COOKIE | OP_SETBACKS }, /* remove */
	{ "cN", "Vo", OP_COOKIE },             /* link */
	{ "cNczN", "", OP_COOKIE },            /* rename */
	{ "NV", "I", OP_COOKIE },              /* mkdir */
	{ "cN", "", OP_COOKIE | OP_SETBACKS }, /* rmdir */
	{ "NVt", "I", OP_COOKIE },             /* symlink */
	{ "oruC", "D", OP_COOKIE },            /* readdir */
	{ "C", "l", OP_COOKIE },               /* readlink */
	{ "N", NULL, OP_COOKIE | OP_FAF },     /* abortop */
	{ "", "", OP_COOKIE | OP_SETBACKS },   /* inactive */
	{ "o", NULL, OP_COOKIE | OP_FAF },     /* reclaim */
	NO, NO, NO, NO,
	{ "", "b", OP_COOKIE }, /* print */
	NO,
	{ "u", "q", OP_COOKIE },     /* pathconf */
	{ "QuFu", "F", OP_COOKIE },  /* advlock */
	NO, NO, NO, NO,
	{ "uxC", "b", OP_COOKIE }, /* getextattr */
	{ "uC", "b", OP_COOKIE },  /* listextattr */
	NO,
	{ "uxC", "", OP_COOKIE },   /* deleteextattr */
	{ "uxbuC", "", OP_COOKIE }, /* setextattr */
	NO,
	{ "oo", "", OP_COOKIE }, /* fallocate */
	{ "oo", "", OP_COOKIE }, /* fdiscard */
	/* Ours. */
	{ "ouC", "o", OP_COOKIE },    /* seek_data */
	{ "ocooC", "o", OP_COOKIE },  /* copy_file_range */
	{ "cNczNu", "", OP_COOKIE },  /* rename_with */
};

static const struct op error_op = { "um", NULL, OP_FAF };
static const struct op flush_op = { "ooe", "", 0 };
static const struct op unmount_op = { "", "", 0 };

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

const struct op *
frame_op(unsigned int opclass, unsigned int optype)
{
	const struct op *op = NULL;

	switch (opclass & CLASS_MASK) {
	case 1:
		if (optype < COUNT(vfs_ops))
			op = &vfs_ops[optype];
		break;
	case 2:
		if (optype < COUNT(vn_ops))
			op = &vn_ops[optype];
		break;
	case 4:
		if (optype <= 9)
			op = &error_op;
		break;
	case 5:
		if (optype <= 6)
			op = &flush_op;
		break;
	case 7:
		if (optype == 0)
			op = &unmount_op;
		break;
	}
	return op != NULL && op->request != NULL ? op : NULL;
}

size_t
frame_fixed_slots(const char *form)
{
	size_t n = 0;

	for (; *form != '\0'; form++) {
		switch (*form) {
		case 'C': n += 3; break;
		case 'N': n += 7; break;
		case 'V': n += VATTR_SLOTS; break;
		case 'I': n += FRAME_NEWINFO_SLOTS; break;
		case 'F': n += 4; break;
		case 'S': n += 11; break;
		case 'n': case 'e': case 'x': case 'y': case 't': case 'l': case 'b': case 'h':
		case 'm': n += 2; break;
		default: n += 1; break;
		}
	}
	return n;
}

int
frame_check_string(char letter, const uint8_t *p, size_t n)
{
	switch (letter) {
	case 'n':
	case 'e':
		if ((n == 0 && letter == 'n') || n > MAX_NAME)
			return CODEC_NAME;
		return n != 0 && (memchr(p, '/', n) != NULL || memchr(p, 0, n) != NULL)
		    ? CODEC_NAME : 0;
	case 'x':
	case 'y':
		if ((n == 0 && letter == 'x') || n > MAX_NAME)
			return CODEC_NAME;
		return n != 0 && memchr(p, 0, n) != NULL ? CODEC_NAME : 0;
	case 't':
	case 'l':
		if ((n == 0 && letter == 't') || n > MAX_TARGET)
			return CODEC_NAME;
		return n != 0 && memchr(p, 0, n) != NULL ? CODEC_NAME : 0;
	case 'b':
		return n > MAX_XATTR ? CODEC_LENGTH : 0;
	case 'h':
		return n == 0 || n > MAX_HANDLE ? CODEC_LENGTH : 0;
	default:
		return n > MAX_TEXT ? CODEC_LENGTH : 0;
	}
}

int
frame_check_vattr(unsigned int i, int64_t v)
{
	switch (i) {
	case 0: /* vtype */
		return v > VNON && v < VBAD;
	case 1: /* mode */
		return v >= 0 && v <= 07777;
	case 3: /* uid */
	case 4: /* gid */
		return v >= 0 && v <= UINT32_MAX;
	case 9: /* atime, mtime, ctime, birthtime */
	case 10:
	case 11:
	case 12:
		return v != FRAME_VNOVAL;
	default:
		return v >= 0;
	}
}

int
frame_check_newinfo(int64_t cookie, int64_t vtype, int64_t size, int64_t rdev, int64_t va_ttl,
    int64_t cn_ttl, int64_t has_va)
{
	if (cookie < 0)
		return CODEC_COOKIE;
	if (vtype < VNON || vtype >= VBAD || (vtype == VNON && cookie != 0))
		return CODEC_VALUE;
	if (size < 0 || rdev < 0 || va_ttl < 0 || cn_ttl < 0 || has_va < 0 || has_va > 1)
		return CODEC_VALUE;
	return 0;
}

int
frame_check_payload(const char *form, int64_t payload_len)
{
	return payload_len != 0 && strchr(form, 'P') == NULL ? CODEC_LENGTH : 0;
}
