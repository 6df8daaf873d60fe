#include "kernels.hpp"

#include <cstdlib>
#include <cstring>

namespace ct {

const KernelTable &kernels() {
    // FLEDGE_CPU_KERNELS=avx2|baseline lets a test run the narrower code on a wide machine.
    static const KernelTable &chosen = []() -> const KernelTable & {
        __builtin_cpu_init();
        const char *wanted = getenv("FLEDGE_CPU_KERNELS");
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        if (wanted && !strcmp(wanted, "baseline")) return kernels_baseline;
        if (avx512 && !(wanted && !strcmp(wanted, "avx2"))) return kernels_avx512;
        return avx2 ? kernels_avx2 : kernels_baseline;
    }();
    return chosen;
}

} // namespace ct
