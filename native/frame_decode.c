/* puffs frames: octets to tables of numbers. frame_ops.c says what the letters mean. */
#include "frames.h"

/* Each function reads octets and fills slots that are known to be there. */

static void
decode_span(struct octets *in, char letter, int64_t *v)
{
	uint32_t n = take_le32(in);
	size_t start = in->at;
	const uint8_t *p = take(in, n);
	int code;

	if (p == NULL)
		return;
	code = frame_check_string(letter, p, n);
	if (code != 0) {
		fail(&in->err, code);
		return;
	}
	v[0] = (int64_t)start;
	v[1] = (int64_t)in->at;
}

static void
decode_cred(struct octets *in, int64_t *v, struct slots *groups)
{
	uint32_t uid = take_le32(in), gid = take_le32(in), n = take_le32(in), i;
	const uint8_t *p;

	if (in->err == 0 && n > MAX_GROUPS)
		in->err = CODEC_LENGTH;
	p = take(in, (size_t)n * 4);
	if (p == NULL)
		return;
	if (n > groups->cap - groups->at) {
		in->err = CODEC_SPACE;
		return;
	}
	v[0] = uid;
	v[1] = gid;
	v[2] = n;
	for (i = 0; i < n; i++)
		groups->v[groups->at++] = load_le32(p + i * 4);
}

static void
decode_vattr(struct octets *in, int64_t *v)
{
	uint32_t mask = take_le32(in);
	unsigned int i;

	if (in->err == 0 && mask > VATTR_ALL)
		in->err = CODEC_VALUE;
	if (in->err != 0)
		return;
	v[VATTR_FIELDS] = mask;
	for (i = 0; i < VATTR_FIELDS; i++) {
		if ((mask & 1u << i) == 0) {
			v[i] = FRAME_VNOVAL;
			continue;
		}
		v[i] = as_signed(take_le64(in));
		if (in->err == 0 && !frame_check_vattr(i, v[i]))
			in->err = CODEC_VALUE;
		if (in->err != 0)
			return;
	}
}

/* 48 octets, and the attributes when there are any. */
static void
decode_newinfo(struct octets *in, int64_t *v)
{
	const uint8_t *p = take(in, 48);
	unsigned int i;

	if (p == NULL)
		return;
	v[0] = as_signed(load_le64(p));
	v[1] = load_le32(p + 8);
	v[6] = load_le32(p + 12);
	v[2] = as_signed(load_le64(p + 16));
	v[3] = as_signed(load_le64(p + 24));
	v[4] = as_signed(load_le64(p + 32));
	v[5] = as_signed(load_le64(p + 40));
	in->err = frame_check_newinfo(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
	if (in->err != 0)
		return;
	if (v[6] != 0) {
		decode_vattr(in, v + 7);
	} else {
		for (i = 0; i < VATTR_FIELDS; i++)
			v[7 + i] = FRAME_VNOVAL;
		v[7 + VATTR_FIELDS] = 0;
	}
}

static void
decode_dirents(struct octets *in, struct slots *tab)
{
	uint32_t n = take_le32(in), end = take_le32(in), vtype, namelen;
	int64_t *column, *rows;
	const uint8_t *p;
	size_t left = tab->cap - tab->at, i, k;
	int code, plus = 0;

	if (in->err == 0 && end > 1)
		in->err = CODEC_VALUE;
	if (in->err == 0 && n > (in->len - in->at) / DIRENT_MIN_LEN)
		in->err = CODEC_SHORT;
	if (in->err != 0)
		return;
	if (left < DIRENT_HEAD_SLOTS || n > (left - DIRENT_HEAD_SLOTS) / FRAME_DIRENT_COLUMNS) {
		in->err = CODEC_SPACE;
		return;
	}
	column = tab->v + tab->at + DIRENT_HEAD_SLOTS;
	rows = column + (size_t)n * FRAME_DIRENT_COLUMNS;
	left -= DIRENT_HEAD_SLOTS + (size_t)n * FRAME_DIRENT_COLUMNS;
	for (i = 0; i < n; i++) {
		p = take(in, 24);
		if (p == NULL)
			return;
		vtype = load_le32(p + 16);
		namelen = load_le32(p + 20);
		column[i] = as_signed(load_le64(p));
		column[n + i] = vtype & ~(uint32_t)DIRENT_NEWINFO;
		column[2 * (size_t)n + i] = (int64_t)in->at;
		column[4 * (size_t)n + i] = as_signed(load_le64(p + 8));
		if (column[i] < 0 || column[4 * (size_t)n + i] < 0 || column[n + i] >= VBAD) {
			in->err = CODEC_VALUE;
			return;
		}
		p = take(in, namelen);
		if (p == NULL)
			return;
		column[3 * (size_t)n + i] = (int64_t)in->at;
		code = frame_check_string('n', p, namelen);
		if (code != 0) {
			in->err = code;
			return;
		}
		if ((vtype & DIRENT_NEWINFO) != 0 && !plus) {
			if (n > left / FRAME_NEWINFO_SLOTS) {
				in->err = CODEC_SPACE;
				return;
			}
			plus = 1;
			for (k = 0; k < (size_t)n * FRAME_NEWINFO_SLOTS; k++)
				rows[k] = -1;
		}
		if ((vtype & DIRENT_NEWINFO) != 0) {
			decode_newinfo(in, rows + i * FRAME_NEWINFO_SLOTS);
			if (in->err != 0)
				return;
		}
	}
	tab->v[tab->at] = n;
	tab->v[tab->at + 1] = end;
	tab->v[tab->at + 2] = plus;
	tab->at += DIRENT_HEAD_SLOTS + (size_t)n * FRAME_DIRENT_COLUMNS;
	if (plus)
		tab->at += (size_t)n * FRAME_NEWINFO_SLOTS;
}

/* The body of one message; returns the number of slots in use or a code. */
static int64_t
decode_form(const char *form, struct octets *in, int64_t payload_len, int64_t *v, size_t at,
    size_t cap)
{
	size_t fixed = frame_fixed_slots(form);
	struct slots groups = { v, cap, at + fixed };
	struct slots dirents = { v, cap, at };
	unsigned int i;

	if (cap < at || fixed > cap - at)
		return CODEC_SPACE;
	for (; *form != '\0' && in->err == 0; form++) {
		switch (*form) {
		case 'u':
			v[at++] = take_le32(in);
			break;
		case 'q':
		case 'Q':
			v[at++] = as_signed(take_le64(in));
			break;
		case 'o':
		case 'z':
			v[at] = as_signed(take_le64(in));
			if (v[at] < 0)
				fail(&in->err, *form == 'o' ? CODEC_VALUE : CODEC_COOKIE);
			at++;
			break;
		case 'c':
			v[at] = as_signed(take_le64(in));
			if (v[at] <= 0)
				fail(&in->err, CODEC_COOKIE);
			at++;
			break;
		case 'r':
			v[at] = take_le32(in);
			if (v[at] > FRAME_MAX)
				fail(&in->err, CODEC_LENGTH);
			at++;
			break;
		case 'N':
			v[at] = take_le32(in);
			v[at + 1] = take_le32(in);
			if (v[at] > 3)
				fail(&in->err, CODEC_VALUE);
			decode_span(in, 'n', v + at + 2);
			decode_cred(in, v + at + 4, &groups);
			at += 7;
			break;
		case 'C':
			decode_cred(in, v + at, &groups);
			at += 3;
			break;
		case 'V':
			decode_vattr(in, v + at);
			at += VATTR_SLOTS;
			break;
		case 'I':
			decode_newinfo(in, v + at);
			at += FRAME_NEWINFO_SLOTS;
			break;
		case 'F':
			v[at] = take_le32(in);
			for (i = 1; i < 4; i++)
				v[at + i] = as_signed(take_le64(in));
			if (v[at] > 2 || v[at + 1] < 0 || v[at + 2] < 0)
				fail(&in->err, CODEC_VALUE);
			at += 4;
			break;
		case 'S':
			for (i = 0; i < 11; i++)
				v[at++] = as_signed(take_le64(in));
			break;
		case 'P':
			v[at++] = payload_len;
			break;
		case 'D':
			decode_dirents(in, &dirents);
			groups.at = dirents.at;
			break;
		default:
			decode_span(in, *form, v + at);
			at += 2;
			break;
		}
	}
	if (in->err != 0)
		return in->err;
	if (in->at != in->len)
		return CODEC_TRAILING;
	return (int64_t)groups.at;
}

int64_t
frame_length(const void *buf, size_t len)
{
	uint32_t n;

	if (len < 4)
		return 0;
	n = load_le32(buf);
	return n < FRAME_HEADER_LEN || n > FRAME_MAX ? CODEC_LENGTH : (int64_t)n;
}

int64_t
frame_header(const void *buf, size_t len, int64_t *v, size_t cap)
{
	const uint8_t *p = buf;
	uint32_t pid;

	if (cap < FRAME_HEADER_SLOTS)
		return CODEC_SPACE;
	if (len < FRAME_HEADER_LEN)
		return CODEC_SHORT;
	v[0] = load_le32(p);
	v[1] = p[4] | p[5] << 8;
	v[2] = p[6] | p[7] << 8;
	v[3] = as_signed(load_le64(p + 8));
	v[4] = as_signed(load_le64(p + 16));
	v[5] = load_le32(p + 24);
	v[6] = load_le32(p + 28);
	pid = load_le32(p + 32);
	v[7] = pid <= INT32_MAX ? (int64_t)pid : (int64_t)pid - ((int64_t)1 << 32);
	v[8] = load_le32(p + 36);
	v[9] = load_le32(p + 40);
	v[10] = load_le32(p + 44);
	if (v[0] < FRAME_HEADER_LEN || v[0] > FRAME_MAX || v[10] > v[0] - FRAME_HEADER_LEN)
		return CODEC_LENGTH;
	if (v[3] < 0 || v[5] > MAX_ERRNO || v[6] > MAX_SETBACKS)
		return CODEC_VALUE;
	if (v[4] < 0)
		return CODEC_COOKIE;
	return FRAME_HEADER_SLOTS;
}

/* Open `buf` for the body; checks the lengths of the two parts of the frame against the header. */
static int
open_body(struct octets *body, const void *buf, size_t len, int64_t beside, const int64_t *v)
{
	int64_t head = v[0] - v[10];

	if (beside < 0 ? (uint64_t)v[0] != len : (uint64_t)head != len || beside != v[10])
		return CODEC_LENGTH;
	body->p = buf;
	body->len = (size_t)head;
	body->at = FRAME_HEADER_LEN;
	body->err = 0;
	return 0;
}

int64_t
frame_decode_request(const void *buf, size_t len, int64_t beside, int64_t *v, size_t cap)
{
	const struct op *op;
	struct octets body;
	int64_t n = frame_header(buf, len, v, cap);
	unsigned int opclass;
	int code;

	if (n < 0)
		return n;
	opclass = (unsigned int)v[1];
	op = frame_op(opclass, (unsigned int)v[2]);
	if (op == NULL || (opclass & ~(unsigned int)(CLASS_MASK | FLAG_FAF)) != 0)
		return CODEC_OP;
	if ((op->flags & OP_FAF) != 0 && (opclass & FLAG_FAF) == 0)
		return CODEC_OP;
	if ((op->flags & OP_COOKIE) != 0 && v[4] == 0)
		return CODEC_COOKIE;
	if (v[5] != 0 || v[6] != 0)
		return CODEC_VALUE;
	code = frame_check_payload(op->request, v[10]);
	if (code == 0)
		code = open_body(&body, buf, len, beside, v);
	if (code != 0)
		return code;
	return decode_form(op->request, &body, v[10], v, FRAME_HEADER_SLOTS, cap);
}

int64_t
frame_decode_reply(const void *buf, size_t len, int64_t beside, int64_t *v, size_t cap)
{
	const struct op *op;
	struct octets body;
	int64_t n = frame_header(buf, len, v, cap);
	unsigned int opclass;
	const char *form = "";
	int code;

	if (n < 0)
		return n;
	opclass = (unsigned int)v[1];
	if ((opclass & ~(unsigned int)CLASS_MASK) != FLAG_RESPONSE)
		return CODEC_OP;
	op = frame_op(opclass, (unsigned int)v[2]);
	/* The answer to an operation that the peer does not know is an error, and legal. */
	if (v[5] == 0) {
		if (op == NULL || op->reply == NULL)
			return CODEC_OP;
		form = op->reply;
	}
	if (v[6] != 0 && (op == NULL || v[5] != 0 || (op->flags & OP_SETBACKS) == 0))
		return CODEC_VALUE;
	code = frame_check_payload(form, v[10]);
	if (code == 0)
		code = open_body(&body, buf, len, beside, v);
	if (code != 0)
		return code;
	return decode_form(form, &body, v[10], v, FRAME_HEADER_SLOTS, cap);
}
