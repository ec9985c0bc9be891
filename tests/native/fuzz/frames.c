/*
 * Any octets as a puffs frame. Promises: no access outside, no undefined behaviour, and what is
 * accepted has one form only: encoding the slots again gives the same octets.
 */
#include "check.h"

#define HEAD FRAME_HEADER_LEN
#define FAF_AND_CLASS 0x17

static void
again(const uint8_t *frame, size_t head, const int64_t *v, int64_t n, int is_reply)
{
	uint8_t *out = exactly(head);
	size_t slots = (size_t)n - FRAME_HEADER_SLOTS;
	int64_t *args = copy_of(v + FRAME_HEADER_SLOTS, slots * sizeof *v);
	int64_t len;

	if (is_reply)
		len = frame_encode_reply(out, head, v[1] & FAF_AND_CLASS, v[2], v[3], v[4], v[5], v[6],
		    v[10], args, slots, frame, head);
	else
		len = frame_encode_request(out, head, v[1], v[2], v[3], v[4], v[7], v[9], v[10], args,
		    slots, frame, head);
	CHECK(len == (int64_t)head);
	CHECK(memcmp(out, frame, 32) == 0);
	CHECK(memcmp(out + HEAD, frame + HEAD, head - HEAD) == 0);
	free(args);
	free(out);
}

static void
decode(const uint8_t *frame, size_t len, int64_t beside, int is_reply, size_t cap)
{
	int64_t *v = exactly(cap * sizeof *v), n;

	n = is_reply ? frame_decode_reply(frame, len, beside, v, cap)
		     : frame_decode_request(frame, len, beside, v, cap);
	CHECK(n >= CODEC_SPACE && n <= (int64_t)cap);
	if (n >= 0) {
		CHECK(n >= FRAME_HEADER_SLOTS);
		again(frame, (size_t)(v[0] - v[10]), v, n, is_reply);
	}
	free(v);
}

static void
all(const uint8_t *frame, size_t len)
{
	static const size_t caps[] = { 0, 10, 11, 12, 20, 64, 200, 4096 };
	int64_t *v = exactly(FRAME_HEADER_SLOTS * sizeof *v), payload_len;
	size_t i;

	(void)frame_length(frame, len);
	CHECK(frame_header(frame, len, v, FRAME_HEADER_SLOTS - 1) < 0);
	if (frame_header(frame, len, v, FRAME_HEADER_SLOTS) == FRAME_HEADER_SLOTS) {
		payload_len = v[10];
		CHECK(v[0] >= HEAD && v[0] <= FRAME_MAX && payload_len <= v[0] - HEAD);
		if ((uint64_t)v[0] <= len) {
			uint8_t *head = copy_of(frame, (size_t)(v[0] - payload_len));

			decode(head, (size_t)(v[0] - payload_len), payload_len, 0, 200);
			decode(head, (size_t)(v[0] - payload_len), payload_len, 1, 4096);
			free(head);
		}
	}
	i = len % (sizeof caps / sizeof caps[0]);
	decode(frame, len, -1, 0, caps[i]);
	decode(frame, len, -1, 1, caps[i]);
	decode(frame, len, -1, 0, 200);
	decode(frame, len, -1, 1, 4096);
	free(v);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *frame;

	all(data, len);
	if (len >= HEAD) {
		/* The same with a length that is right, so that the body is reached. */
		frame = copy_of(data, len);
		frame[0] = (uint8_t)len;
		frame[1] = (uint8_t)(len >> 8);
		frame[2] = (uint8_t)(len >> 16);
		frame[3] = 0;
		all(frame, len);
		free(frame);
	}
	return 0;
}
