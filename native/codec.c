#include "codec.h"
uint32_t codec_version(void) { return 1; }
