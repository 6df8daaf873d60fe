#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <immintrin.h>
#include <type_traits>
#include <vector>

#define CT_AVX512
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
namespace ct::avx512 {
#include "kernels.inc"
} // namespace ct::avx512
#pragma clang attribute pop

namespace ct {
const KernelTable kernels_avx512 = {
    "avx512",           avx512::rms_norm,       avx512::rms_norm_backward, avx512::rotary,
    avx512::silu_mul,   avx512::silu_mul_backward, avx512::row_statistics, avx512::row_backward,
    avx512::attention,  avx512::attention_backward, avx512::cached_attention, avx512::accumulate,
    avx512::load_rows,  avx512::store_rows,     avx512::exponentials, avx512::quantized_linear};
}
