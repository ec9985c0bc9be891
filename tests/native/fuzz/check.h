/* What the fuzzers share. A broken promise of the codec ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"

#define CHECK(promise)                                                            \
	do {                                                                      \
		if (!(promise)) {                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #promise); \
			abort();                                                  \
		}                                                                 \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Memory of exactly `n` octets, so that the sanitizer sees one step beyond. */
static inline void *
exactly(size_t n)
{
	void *p = malloc(n != 0 ? n : 1);

	CHECK(p != NULL);
	return p;
}

static inline void *
copy_of(const void *from, size_t n)
{
	void *p = exactly(n);

	if (n != 0)
		memcpy(p, from, n);
	return p;
}

#endif
