#pragma once
// Loops over torch's own threads. ATen's parallel_for is a template that runs in turn wherever it is compiled without OpenMP,
// and clang's OpenMP is another library than the one libtorch brings: so libtorch's is asked for directly.
#include <ATen/Parallel.h>
#include <c10/util/ParallelGuard.h>
#include <algorithm>
#include <atomic>
#include <exception>

namespace ct {

using ParallelRegion = void (*)(void *);

// Runs `region(context)` on `threads` threads of libtorch's OpenMP; false, having done nothing, where there is none.
bool run_on_threads(int threads, ParallelRegion region, void *context);
int thread_of_region();
int threads_of_region();

// `body(first, last)` over pieces of [begin, end) of at least `grain` each, at once; throws what the first body to fail threw.
template <class Body> void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body &body) {
    if (begin >= end) return;
    const int64_t count = end - begin;
    const int64_t threads = std::min<int64_t>(at::get_num_threads(), (count + grain - 1) / std::max<int64_t>(grain, 1));
    struct Context {
        const Body &body;
        int64_t begin, end;
        std::atomic_flag failed = ATOMIC_FLAG_INIT;
        std::exception_ptr failure;
    } context{body, begin, end, {}, {}};
    const auto region = [](void *raw) {
        auto &c = *static_cast<Context *>(raw);
        const int64_t thread = thread_of_region(), count = c.end - c.begin, of = threads_of_region();
        const int64_t piece = (count + of - 1) / of, first = c.begin + thread * piece;
        if (first >= c.end) return;
        try {
            const c10::ParallelGuard guard(true);
            const at::internal::ThreadIdGuard id(static_cast<int>(thread));
            c.body(first, std::min(c.end, first + piece));
        } catch (...) {
            if (!c.failed.test_and_set()) c.failure = std::current_exception();
        }
    };
    if (threads > 1 && !at::in_parallel_region() && run_on_threads(static_cast<int>(threads), region, &context)) {
        if (context.failure) std::rethrow_exception(context.failure);
        return;
    }
    body(begin, end);
}

} // namespace ct
