#include "parallel.hpp"

#include <dlfcn.h>

namespace ct {
namespace {

// The interface of libgomp, which libtorch links.
struct OpenMP {
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
    int (*thread)();
    int (*threads)();

    static const OpenMP &get() {
        static const OpenMP found = {
            reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel")),
            reinterpret_cast<decltype(thread)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num")),
            reinterpret_cast<decltype(threads)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads")),
        };
        return found;
    }
};

} // namespace

bool run_on_threads(int threads, ParallelRegion region, void *context) {
    const auto &omp = OpenMP::get();
    if (!omp.parallel || !omp.thread || !omp.threads) return false;
    omp.parallel(region, context, static_cast<unsigned>(threads), 0);
    return true;
}
int thread_of_region() { return OpenMP::get().thread(); }
int threads_of_region() { return OpenMP::get().threads(); }

} // namespace ct
