// Devices, memory, threads, random generators.
#include "shim.hpp"

#include "kernels.hpp"
#include "parallel.hpp"
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <sys/resource.h>
#include <torch/version.h>
#include <unistd.h>

using namespace ct;

namespace {

// Bytes of this process's memory in use now, from /proc/self/statm.
int64_t resident_bytes() {
    long pages = 0, resident = 0;
    if (FILE *file = fopen("/proc/self/statm", "r")) {
        if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
        fclose(file);
    }
    return static_cast<int64_t>(resident) * sysconf(_SC_PAGESIZE);
}

at::Generator &generator(ct_generator g) { return *reinterpret_cast<at::Generator *>(g); }

} // namespace

extern "C" {

const char *ct_torch_version(void) { return TORCH_VERSION; }

int ct_cuda_load(const char *library_folder, ct_message *error) {
    return guarded(error, [&] {
        // One RTLD_GLOBAL open registers the CUDA kernels and hooks with the dispatcher of libtorch_cpu.
        static std::string loaded;
        if (!loaded.empty()) return;
        const std::string path = std::string(library_folder ? library_folder : "") + (library_folder && *library_folder ? "/" : "") + "libtorch_cuda.so";
        if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
            const char *reason = dlerror();
            TORCH_CHECK(false, "cannot open ", path, ": ", reason ? reason : "no reason given");
        }
        loaded = path;
    });
}

int ct_cuda_device_count(void) {
    try {
        return at::detail::getCUDAHooks().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
    } catch (...) {
        return 0;
    }
}

int ct_device_name(int index, ct_message *out, ct_message *error) {
    return guarded(error, [&] {
        // The driver's own API: the runtime's property struct changes with every CUDA version.
        void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        TORCH_CHECK(driver, "cannot open libcuda.so.1: ", dlerror());
        auto initialize = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
        auto get = reinterpret_cast<int (*)(int *, int)>(dlsym(driver, "cuDeviceGet"));
        auto name = reinterpret_cast<int (*)(char *, int, int)>(dlsym(driver, "cuDeviceGetName"));
        TORCH_CHECK(initialize && get && name, "libcuda.so.1 lacks cuInit, cuDeviceGet or cuDeviceGetName");
        char text[256] = {0};
        int handle = 0;
        TORCH_CHECK(initialize(0) == 0 && get(&handle, index) == 0 && name(text, 255, handle) == 0,
                    "the CUDA driver has no device ", index);
        *out = copy(text);
    });
}

CT_DO(ct_device_synchronize, (int type, int index, ct_message *error), {
    if (type != 0) c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
})
CT_DO(ct_device_make_current, (int index, ct_message *error), {
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)));
})
CT_DO(ct_device_empty_cache, (int type, int index, ct_message *error), {
    if (type != 0) {
        // Expandable segments are unmapped after a wait for the current device alone, which is another where a rank has not made its own
        // current.
        const c10::DeviceGuard guard(c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)));
        c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
        c10::getDeviceAllocator(at::kCUDA)->emptyCache();
    }
})
CT_DO(ct_device_reset_peak, (int type, int index, ct_message *error), {
    if (type != 0) {
        at::globalContext().lazyInitDevice(at::kCUDA);
        c10::getDeviceAllocator(at::kCUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index));
    }
})

int ct_device_memory(int type, int index, ct_memory_stats *out, ct_message *error) {
    return guarded(error, [&] {
        memset(out, 0, sizeof *out);
        if (type == 0) {
            rusage usage;
            getrusage(RUSAGE_SELF, &usage);
            out->allocated = out->reserved = resident_bytes();
            out->peak_allocated = out->peak_reserved = static_cast<int64_t>(usage.ru_maxrss) * 1024;
            out->total = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
            out->free = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
            return;
        }
        // The allocator knows no device before libtorch has begun with CUDA.
        at::globalContext().lazyInitDevice(at::kCUDA);
        auto *allocator = c10::getDeviceAllocator(at::kCUDA);
        const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        out->allocated = stats.allocated_bytes[0].current;
        out->peak_allocated = stats.allocated_bytes[0].peak;
        out->reserved = stats.reserved_bytes[0].current;
        out->peak_reserved = stats.reserved_bytes[0].peak;
        const auto [free_bytes, total_bytes] = allocator->getMemoryInfo(static_cast<c10::DeviceIndex>(index));
        out->free = static_cast<int64_t>(free_bytes);
        out->total = static_cast<int64_t>(total_bytes);
    });
}

void ct_set_num_threads(int count) { at::set_num_threads(count); }
int ct_num_threads(void) { return at::get_num_threads(); }
void ct_set_deterministic(bool on) { at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/true); }
bool ct_cpu_has_native_bf16(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
}
const char *ct_cpu_kernel_level(void) { return kernels().name; }

int ct_generator_create(int type, int index, uint64_t seed, ct_generator *out, ct_message *error) {
    return guarded(error, [&] {
        at::Generator g = type == 0 ? at::make_generator<at::CPUGeneratorImpl>(seed)
                                    : at::detail::getCUDAHooks().getNewGenerator(static_cast<c10::DeviceIndex>(index));
        g.set_current_seed(seed);
        *out = reinterpret_cast<ct_generator>(new at::Generator(std::move(g)));
    });
}
void ct_generator_free(ct_generator g) { delete reinterpret_cast<at::Generator *>(g); }
CT_OP(ct_generator_get_state, (ct_generator g, CT_RESULT), generator(g).get_state())
CT_DO(ct_generator_set_state, (ct_generator g, ct_tensor state, ct_message *error), generator(g).set_state(T(state)))

CT_OP(ct_rand, (const int64_t *sizes, int ndim, ct_generator g, ct_options o, CT_RESULT),
      at::rand(ints(sizes, ndim), generator(g), options(o)))
CT_OP(ct_randn, (const int64_t *sizes, int ndim, ct_generator g, ct_options o, CT_RESULT),
      at::randn(ints(sizes, ndim), generator(g), options(o)))
CT_OP(ct_randint,
      (int64_t low, int64_t high, const int64_t *sizes, int ndim, ct_generator g, ct_options o, CT_RESULT),
      at::randint(low, high, ints(sizes, ndim), generator(g), options(o)))

} // extern "C"
