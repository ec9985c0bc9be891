#include <stdint.h>
uint32_t codec_version(void);
