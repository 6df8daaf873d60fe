// Foundation's ICU brings 31 MB of locale tables into a static binary, and Fledge formats nothing by locale. Defined here
// before the linker looks into Foundation's archive, this empty package (ICU's documented "stub data") takes their place.
// Hidden, so that a build against the shared Foundation is not touched.
#include <stdint.h>

__attribute__((visibility("hidden"), aligned(16))) const struct {
    uint16_t header_size;
    uint8_t magic[2];
    uint16_t info_size, reserved_word;
    uint8_t big_endian, charset, uchar_size, reserved_byte;
    uint8_t format[4], format_version[4], data_version[4];
    uint32_t zero;
    uint64_t more_zero;
    uint32_t count, reserved;
} icudt76_dat = {32, {0xda, 0x27}, 20, 0, 0, 0, 2, 0, {'T', 'o', 'C', 'P'}, {1, 0, 0, 0}, {0}, 0, 0, 0, 0};
