#include "cuda_driver.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <fstream>
#include <link.h>
#include <map>
#include <mutex>
#include <sstream>
#include <unistd.h>

namespace ct {
namespace {

namespace fs = std::filesystem;

template <class Function> Function symbol(void *library, const char *name) {
    auto found = reinterpret_cast<Function>(dlsym(library, name));
    TORCH_CHECK(found, "the CUDA libraries lack ", name);
    return found;
}

// The driver works in the thread's current context: that of `device`, until the scope ends.
class InContext {
    const c10::impl::VirtualGuardImpl guard{c10::kCUDA};
    const c10::Device before;

  public:
    explicit InContext(c10::Device device) : before(guard.exchangeDevice(device)) {}
    ~InContext() { guard.uncheckedSetDevice(before); }
};

// The part of the driver's interface that launching takes.
struct Driver {
    int (*device_get)(int *, int);
    int (*attribute)(int *, int, int);
    int (*load)(void **, const void *);
    int (*function)(void **, void *, const char *);
    int (*set)(void *, int, int);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
    int (*error_name)(int, const char **);
    int (*current)(void **);
    int (*retain)(void **, int);
    int (*make_current)(void *);

    static const Driver &get() {
        static const Driver driver = [] {
            void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
            TORCH_CHECK(library, "cannot open libcuda.so.1: ", dlerror());
            return Driver{symbol<decltype(device_get)>(library, "cuDeviceGet"),
                          symbol<decltype(attribute)>(library, "cuDeviceGetAttribute"),
                          symbol<decltype(load)>(library, "cuModuleLoadData"),
                          symbol<decltype(function)>(library, "cuModuleGetFunction"),
                          symbol<decltype(set)>(library, "cuFuncSetAttribute"),
                          symbol<decltype(launch)>(library, "cuLaunchKernel"),
                          symbol<decltype(error_name)>(library, "cuGetErrorName"),
                          symbol<decltype(current)>(library, "cuCtxGetCurrent"),
                          symbol<decltype(retain)>(library, "cuDevicePrimaryCtxRetain"),
                          symbol<decltype(make_current)>(library, "cuCtxSetCurrent")};
        }();
        return driver;
    }

    void check(int status, const char *what) const {
        if (status == 0) return;
        const char *name = nullptr;
        error_name(status, &name);
        TORCH_CHECK(false, what, ": ", name ? name : "CUDA error", " (", status, ")");
    }

    // A thread that torch made for backward has the device's context only once torch itself has called the runtime there.
    void enter(c10::Device device) const {
        void *context = nullptr;
        check(current(&context), "cuCtxGetCurrent");
        if (context) return;
        int handle = 0;
        check(device_get(&handle, device.index()), "cuDeviceGet");
        check(retain(&context, handle), "cuDevicePrimaryCtxRetain");
        check(make_current(context), "cuCtxSetCurrent");
    }
};

// The folders that this process's CUDA libraries were opened from.
std::vector<std::string> library_folders() {
    std::vector<std::string> folders;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *out) {
            const std::string path = info->dlpi_name ? info->dlpi_name : "";
            const auto slash = path.rfind('/');
            if (slash == std::string::npos) return 0;
            const auto name = path.substr(slash + 1);
            for (const char *known : {"libtorch_cuda.so", "libcudart.so", "libcublas.so", "libtorch_cpu.so"})
                if (name.rfind(known, 0) == 0) static_cast<std::vector<std::string> *>(out)->push_back(path.substr(0, slash));
            return 0;
        },
        &folders);
    std::vector<std::string> all = folders;
    // The wheels' layout: nvidia/cu13/lib beside torch.
    for (const auto &folder : folders) all.push_back(folder + "/../../nvidia/cu13/lib");
    return all;
}

// NVRTC looks for its builtins by name alone, and finds those that are open already: opens the ones beside it.
void open_builtins(void *compiler) {
    Dl_info info;
    if (!dladdr(compiler, &info) || !info.dli_fname) return;
    std::error_code ignored;
    for (const auto &entry : fs::directory_iterator(fs::path(info.dli_fname).parent_path(), ignored))
        if (entry.path().filename().string().rfind("libnvrtc-builtins.so", 0) == 0) dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
}

struct Compiler {
    int (*create)(void **, const char *, const char *, int, const char *const *, const char *const *);
    int (*compile)(void *, int, const char *const *);
    int (*log_size)(void *, size_t *);
    int (*log)(void *, char *);
    int (*binary_size)(void *, size_t *);
    int (*binary)(void *, char *);
    int (*destroy)(void **);
    int major = 0, minor = 0;

    static const Compiler &get() {
        static const Compiler compiler = [] {
            const char *names[] = {"libnvrtc.so.13", "libnvrtc.so"};
            void *library = nullptr;
            if (const char *named = getenv("FLEDGE_NVRTC")) library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
            for (const char *name : names)
                if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
            for (const auto &folder : library_folders())
                for (const char *name : names)
                    if (!library) library = dlopen((folder + "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
            TORCH_CHECK(library, "libnvrtc.so.13, which compiles the CUDA kernels, is not found; install nvidia-cuda-nvrtc 13.0 "
                                 "beside torch, or name the library in FLEDGE_NVRTC");
            Compiler c{symbol<decltype(create)>(library, "nvrtcCreateProgram"),
                       symbol<decltype(compile)>(library, "nvrtcCompileProgram"),
                       symbol<decltype(log_size)>(library, "nvrtcGetProgramLogSize"),
                       symbol<decltype(log)>(library, "nvrtcGetProgramLog"),
                       symbol<decltype(binary_size)>(library, "nvrtcGetCUBINSize"),
                       symbol<decltype(binary)>(library, "nvrtcGetCUBIN"),
                       symbol<decltype(destroy)>(library, "nvrtcDestroyProgram")};
            symbol<int (*)(int *, int *)>(library, "nvrtcVersion")(&c.major, &c.minor);
            open_builtins(dlsym(library, "nvrtcVersion"));
            return c;
        }();
        return compiler;
    }
};

uint64_t digest(const std::string &text) {
    uint64_t state = 0xcbf29ce484222325ull;
    for (unsigned char c : text) state = (state ^ c) * 0x100000001b3ull;
    return state;
}

// Where compiled kernels are kept; empty where there is no place for them.
fs::path cache_folder() {
    if (const char *named = getenv("FLEDGE_KERNEL_CACHE")) return named;
    if (const char *cache = getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "fledge" / "kernels";
    if (const char *home = getenv("HOME"); home && *home) return fs::path(home) / ".cache" / "fledge" / "kernels";
    return {};
}

// A compiled text: from disk where it is there, else compiled and kept. The name holds a digest of all that decides it.
std::string binary(const char *file, const char *text, size_t size, const std::vector<std::string> &options,
                   const std::string &architecture) {
    std::string key(text, size);
    for (const auto &option : options) key += '\0' + option;
    key += '\0' + architecture + '\0' + std::to_string(Compiler::get().major) + '.' + std::to_string(Compiler::get().minor);
    char name[128];
    snprintf(name, sizeof name, "%s-%s-%016llx.cubin", file, architecture.c_str(), static_cast<unsigned long long>(digest(key)));
    const auto folder = cache_folder();
    if (!folder.empty()) {
        std::ifstream kept(folder / name, std::ios::binary);
        std::stringstream content;
        if (kept && content << kept.rdbuf() && content.str().size() > 64) return content.str();
    }
    auto made = compile_cuda(file, text, size, options, architecture);
    if (!folder.empty()) {
        // A cache that cannot be written costs the next start a second; it is no error.
        std::error_code ignored;
        fs::create_directories(folder, ignored);
        const auto part = folder / (std::string(name) + "." + std::to_string(getpid()));
        std::ofstream out(part, std::ios::binary);
        if (out && out.write(made.data(), static_cast<std::streamsize>(made.size())) && (out.close(), out.good()))
            fs::rename(part, folder / name, ignored);
        else fs::remove(part, ignored);
    }
    return made;
}

} // namespace

std::string compile_cuda(const char *file, const char *text, size_t size, const std::vector<std::string> &options,
                         const std::string &architecture) {
    const auto &c = Compiler::get();
    const std::string source(text, size);
    void *program = nullptr;
    TORCH_CHECK(c.create(&program, source.c_str(), file, 0, nullptr, nullptr) == 0, "NVRTC takes no program");
    std::vector<std::string> all = options;
    all.push_back("-arch=" + architecture);
    all.push_back("--std=c++17");
    std::vector<const char *> raw;
    for (const auto &option : all) raw.push_back(option.c_str());
    const int status = c.compile(program, static_cast<int>(raw.size()), raw.data());
    std::string log, result;
    size_t count = 0;
    if (status != 0 && c.log_size(program, &count) == 0) {
        log.resize(count);
        c.log(program, log.data());
    }
    if (status == 0 && c.binary_size(program, &count) == 0) {
        result.resize(count);
        c.binary(program, result.data());
    }
    c.destroy(&program);
    TORCH_CHECK(status == 0 && !result.empty(), "NVRTC cannot compile ", file, " for ", architecture, ": ", log);
    return result;
}

int compute_capability(c10::Device device) {
    const auto &driver = Driver::get();
    int handle = 0, major = 0, minor = 0;
    driver.check(driver.device_get(&handle, device.index()), "cuDeviceGet");
    driver.check(driver.attribute(&major, 75, handle), "cuDeviceGetAttribute");
    driver.check(driver.attribute(&minor, 76, handle), "cuDeviceGetAttribute");
    return 10 * major + minor;
}

CudaKernel &CudaKernel::get(c10::Device device, const char *file, const char *text, size_t size,
                            const std::vector<std::string> &options, const char *name) {
    static std::mutex mutex;
    static std::map<std::string, CudaKernel> kernels;
    static std::map<std::string, void *> modules;
    std::string key = std::to_string(device.index()) + file;
    for (const auto &option : options) key += ' ' + option;
    const std::lock_guard lock(mutex);
    auto &kernel = kernels[key + ' ' + name];
    if (kernel.function) return kernel;
    const auto &driver = Driver::get();
    const InContext scope(device);
    driver.enter(device);
    void *&module = modules[key];
    if (!module) {
        const auto code = binary(file, text, size, options, "sm_" + std::to_string(compute_capability(device)));
        driver.check(driver.load(&module, code.data()), "cuModuleLoadData");
    }
    driver.check(driver.function(&kernel.function, module, name), name);
    return kernel;
}

void CudaKernel::launch(c10::Device device, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared_bytes,
                        void **arguments) {
    const auto &driver = Driver::get();
    const InContext scope(device);
    driver.enter(device);
    if (shared_bytes > allowed_shared) {
        driver.check(driver.set(function, 8 /* the most dynamic shared memory */, static_cast<int>(shared_bytes)),
                     "cuFuncSetAttribute");
        allowed_shared = shared_bytes;
    }
    const c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    void *stream = guard.getStreamNativeHandle(guard.getStream(device));
    driver.check(driver.launch(function, x, y, z, threads, 1, 1, shared_bytes, stream, arguments, nullptr), "cuLaunchKernel");
}

int multiprocessors(c10::Device device) {
    const auto &driver = Driver::get();
    int handle = 0, count = 0;
    driver.check(driver.device_get(&handle, device.index()), "cuDeviceGet");
    driver.check(driver.attribute(&count, 16, handle), "cuDeviceGetAttribute");
    return count;
}

} // namespace ct
