/* puffs frames: tables of numbers to octets. frame_ops.c says what the letters mean. */
#include "frames.h"

/* Each function takes slots that are known to be there. */

static void
encode_u32(struct output *out, int64_t v)
{
	if (v < 0 || v > UINT32_MAX)
		fail(&out->err, CODEC_VALUE);
	put_le32(out, (uint32_t)v);
}

static void
encode_i64(struct output *out, int64_t v)
{
	put_le64(out, (uint64_t)v);
}

static void
encode_span(struct output *out, char letter, const int64_t *v, const struct octets *base)
{
	size_t start, n;
	int code;

	if (v[0] < 0 || v[1] < v[0] || (uint64_t)v[1] > base->len) {
		fail(&out->err, CODEC_LENGTH);
		return;
	}
	start = (size_t)v[0];
	n = (size_t)(v[1] - v[0]);
	code = frame_check_string(letter, base->p + start, n);
	if (code != 0) {
		fail(&out->err, code);
		return;
	}
	put_le32(out, (uint32_t)n);
	put_octets(out, base->p + start, n);
}

static void
encode_cred(struct output *out, const int64_t *v, struct numbers *groups)
{
	int64_t i;

	encode_u32(out, v[0]);
	encode_u32(out, v[1]);
	encode_u32(out, v[2]);
	if (v[2] > MAX_GROUPS)
		fail(&out->err, CODEC_LENGTH);
	else if (v[2] > 0 && (uint64_t)v[2] > groups->len - groups->at)
		fail(&out->err, CODEC_SHORT);
	for (i = 0; i < v[2] && out->err == 0; i++)
		encode_u32(out, groups->v[groups->at++]);
}

static void
encode_vattr(struct output *out, const int64_t *v)
{
	uint32_t mask = 0;
	unsigned int i;

	for (i = 0; i < VATTR_FIELDS; i++) {
		if (v[i] == FRAME_VNOVAL)
			continue;
		mask |= 1u << i;
		if (!frame_check_vattr(i, v[i]))
			fail(&out->err, CODEC_VALUE);
	}
	put_le32(out, mask);
	for (i = 0; i < VATTR_FIELDS; i++)
		if (v[i] != FRAME_VNOVAL)
			encode_i64(out, v[i]);
}

static void
encode_newinfo(struct output *out, const int64_t *v)
{
	int code = frame_check_newinfo(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);

	if (code != 0) {
		fail(&out->err, code);
		return;
	}
	encode_i64(out, v[0]);
	encode_u32(out, v[1]);
	encode_u32(out, v[6]);
	encode_i64(out, v[2]);
	encode_i64(out, v[3]);
	encode_i64(out, v[4]);
	encode_i64(out, v[5]);
	if (v[6] != 0)
		encode_vattr(out, v + 7);
}

static void
encode_dirents(struct output *out, struct numbers *tab, const struct octets *base)
{
	const int64_t *column, *rows, *row;
	int64_t span[2];
	uint8_t *p;
	size_t left = tab->len - tab->at, n, i;
	int64_t plus;
	int has;

	if (left < DIRENT_HEAD_SLOTS) {
		fail(&out->err, CODEC_SHORT);
		return;
	}
	column = tab->v + tab->at;
	plus = column[2];
	if (column[0] < 0 || column[1] < 0 || column[1] > 1 || plus < 0 || plus > 1) {
		fail(&out->err, CODEC_VALUE);
		return;
	}
	left -= DIRENT_HEAD_SLOTS;
	if ((uint64_t)column[0] >
	    left / (size_t)(FRAME_DIRENT_COLUMNS + plus * FRAME_NEWINFO_SLOTS)) {
		fail(&out->err, CODEC_SHORT);
		return;
	}
	n = (size_t)column[0];
	encode_u32(out, column[0]);
	encode_u32(out, column[1]);
	column += DIRENT_HEAD_SLOTS;
	rows = column + n * FRAME_DIRENT_COLUMNS;
	for (i = 0; i < n && out->err == 0; i++) {
		row = rows + i * FRAME_NEWINFO_SLOTS;
		has = plus != 0 && row[0] != -1;
		if (column[i] < 0 || column[4 * n + i] < 0 || column[n + i] < VNON ||
		    column[n + i] >= VBAD) {
			fail(&out->err, CODEC_VALUE);
			return;
		}
		encode_i64(out, column[i]);
		encode_i64(out, column[4 * n + i]);
		p = room(out, 4);
		if (p != NULL)
			store_le32(p, (uint32_t)column[n + i] | (has ? DIRENT_NEWINFO : 0));
		span[0] = column[2 * n + i];
		span[1] = column[3 * n + i];
		encode_span(out, 'n', span, base);
		if (has)
			encode_newinfo(out, row);
	}
	tab->at += DIRENT_HEAD_SLOTS + n * FRAME_DIRENT_COLUMNS;
	if (plus != 0)
		tab->at += n * FRAME_NEWINFO_SLOTS;
}

/* The body; `payload_len` gets what a P says unless it is known already. */
static void
encode_form(const char *form, struct output *out, int64_t *payload_len, const int64_t *v,
    size_t len, const struct octets *base)
{
	size_t at = 0, fixed = frame_fixed_slots(form);
	struct numbers groups = { v, len, fixed };
	struct numbers dirents = { v, len, 0 };
	unsigned int i;

	if (fixed > len) {
		fail(&out->err, CODEC_SHORT);
		return;
	}
	for (; *form != '\0' && out->err == 0; form++) {
		switch (*form) {
		case 'u':
			encode_u32(out, v[at++]);
			break;
		case 'q':
		case 'Q':
			encode_i64(out, v[at++]);
			break;
		case 'o':
		case 'z':
			if (v[at] < 0)
				fail(&out->err, *form == 'o' ? CODEC_VALUE : CODEC_COOKIE);
			encode_i64(out, v[at++]);
			break;
		case 'c':
			if (v[at] <= 0)
				fail(&out->err, CODEC_COOKIE);
			encode_i64(out, v[at++]);
			break;
		case 'r':
			if (v[at] > FRAME_MAX)
				fail(&out->err, CODEC_LENGTH);
			encode_u32(out, v[at++]);
			break;
		case 'N':
			if (v[at] > 3)
				fail(&out->err, CODEC_VALUE);
			encode_u32(out, v[at]);
			encode_u32(out, v[at + 1]);
			encode_span(out, 'n', v + at + 2, base);
			encode_cred(out, v + at + 4, &groups);
			at += 7;
			break;
		case 'C':
			encode_cred(out, v + at, &groups);
			at += 3;
			break;
		case 'V':
			encode_vattr(out, v + at);
			at += VATTR_SLOTS;
			break;
		case 'I':
			encode_newinfo(out, v + at);
			at += FRAME_NEWINFO_SLOTS;
			break;
		case 'F':
			if (v[at] > 2 || v[at + 1] < 0 || v[at + 2] < 0)
				fail(&out->err, CODEC_VALUE);
			encode_u32(out, v[at]);
			for (i = 1; i < 4; i++)
				encode_i64(out, v[at + i]);
			at += 4;
			break;
		case 'S':
			for (i = 0; i < 11; i++)
				encode_i64(out, v[at++]);
			break;
		case 'P':
			if (*payload_len == 0 && v[at] > 0)
				*payload_len = v[at];
			else if (v[at] != *payload_len && v[at] != -1)
				fail(&out->err, CODEC_LENGTH);
			at++;
			break;
		case 'D':
			encode_dirents(out, &dirents, base);
			groups.at = dirents.at;
			break;
		default:
			encode_span(out, *form, v + at, base);
			at += 2;
			break;
		}
	}
	if (out->err == 0 && groups.at != len)
		out->err = CODEC_TRAILING;
}

/* The header over the first octets of `out`, whose body is complete. Returns the octets in `out`. */
static int64_t
finish(struct output *out, const int64_t *h, int64_t payload_len)
{
	struct output head = { out->p, FRAME_HEADER_LEN, 0, 0 };
	int64_t framelen;

	if (out->err != 0)
		return out->err;
	if (h[0] < 0 || h[0] > UINT16_MAX || h[1] < 0 || h[1] > UINT16_MAX || h[2] < 0)
		return CODEC_VALUE;
	if (h[3] < 0)
		return CODEC_COOKIE;
	if (h[4] < 0 || h[4] > MAX_ERRNO || h[5] < 0 || h[5] > MAX_SETBACKS)
		return CODEC_VALUE;
	if (h[6] < INT32_MIN || h[6] > INT32_MAX || h[7] < 0 || h[7] > UINT32_MAX)
		return CODEC_VALUE;
	if (payload_len < 0 || payload_len > FRAME_MAX || out->at > FRAME_MAX)
		return CODEC_LENGTH;
	framelen = (int64_t)out->at + payload_len;
	if (framelen > FRAME_MAX)
		return CODEC_LENGTH;
	put_le32(&head, (uint32_t)framelen);
	put_le32(&head, (uint32_t)h[0] | (uint32_t)h[1] << 16);
	encode_i64(&head, h[2]);
	encode_i64(&head, h[3]);
	put_le32(&head, (uint32_t)h[4]);
	put_le32(&head, (uint32_t)h[5]);
	put_le32(&head, (uint32_t)h[6]);
	put_le32(&head, 0);
	put_le32(&head, (uint32_t)h[7]);
	put_le32(&head, (uint32_t)payload_len);
	return (int64_t)out->at;
}

int64_t
frame_encode_request(void *to, size_t cap, int64_t opclass, int64_t optype, int64_t id,
    int64_t cookie, int64_t pid, int64_t buflen, int64_t payload_len, const int64_t *v, size_t n,
    const void *base, size_t baselen)
{
	const struct op *op = NULL;
	const struct octets strings = { base, baselen, 0, 0 };
	struct output out = { to, cap, 0, 0 };
	int64_t head[8] = { opclass, optype, id, cookie, 0, 0, pid, buflen };

	if (opclass >= 0 && (opclass & ~(int64_t)(CLASS_MASK | FLAG_FAF)) == 0 && optype >= 0 &&
	    optype <= UINT16_MAX)
		op = frame_op((unsigned int)opclass, (unsigned int)optype);
	if (op == NULL)
		return CODEC_OP;
	if ((op->flags & OP_FAF) != 0)
		head[0] |= FLAG_FAF;
	if ((op->flags & OP_COOKIE) != 0 && cookie <= 0)
		return CODEC_COOKIE;
	(void)room(&out, FRAME_HEADER_LEN);
	encode_form(op->request, &out, &payload_len, v, n, &strings);
	if (out.err == 0)
		out.err = frame_check_payload(op->request, payload_len);
	return finish(&out, head, payload_len);
}

int64_t
frame_encode_reply(void *to, size_t cap, int64_t opclass, int64_t optype, int64_t id,
    int64_t cookie, int64_t rv, int64_t setbacks, int64_t payload_len, const int64_t *v, size_t n,
    const void *base, size_t baselen)
{
	const struct op *op = NULL;
	const struct octets strings = { base, baselen, 0, 0 };
	struct output out = { to, cap, 0, 0 };
	int64_t head[8] = { opclass | FLAG_RESPONSE, optype, id, cookie, rv, setbacks, 0, 0 };
	const char *form = "";

	if (opclass < 0 || (opclass & ~(int64_t)CLASS_MASK) != 0 || optype < 0 ||
	    optype > UINT16_MAX)
		return CODEC_OP;
	op = frame_op((unsigned int)opclass, (unsigned int)optype);
	if (rv == 0) {
		if (op == NULL || op->reply == NULL)
			return CODEC_OP;
		form = op->reply;
	}
	if (setbacks != 0 && (op == NULL || rv != 0 || (op->flags & OP_SETBACKS) == 0))
		return CODEC_VALUE;
	(void)room(&out, FRAME_HEADER_LEN);
	encode_form(form, &out, &payload_len, v, n, &strings);
	if (out.err == 0)
		out.err = frame_check_payload(form, payload_len);
	return finish(&out, head, payload_len);
}
