// CUPTI's activity records. The library is the one that libtorch_cpu has opened already; its headers are not needed to build.
#include "ctorch_trace.h"
#include "shim.hpp"

#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <mutex>
#include <unordered_map>

namespace ct {
namespace {

// CUpti_ActivityKind
enum Kind : uint32_t { memcpy_kind = 1, memset_kind = 2, driver_kind = 4, runtime_kind = 5, kernel_kind = 10 };
constexpr Kind recorded[] = {memcpy_kind, memset_kind, driver_kind, runtime_kind, kernel_kind};

// The beginnings of CUPTI's records, as cupti_activity.h of CUDA 13 lays them out; later versions only append.
// CUpti_ActivityKernel9 and 10.
struct KernelRecord {
    uint32_t kind;
    uint8_t unused0[12];
    uint64_t start, end;
    uint8_t unused1[60];
    uint32_t correlation;
    uint8_t unused2[8];
    const char *name;
};
static_assert(offsetof(KernelRecord, start) == 16 && offsetof(KernelRecord, end) == 24 &&
              offsetof(KernelRecord, correlation) == 92 && offsetof(KernelRecord, name) == 104);
// CUpti_ActivityMemcpy5, 6 and CUpti_ActivityMemset4.
struct CopyRecord {
    uint32_t kind;
    uint8_t unused0[4];
    uint64_t bytes, start, end;
    uint8_t unused1[12];
    uint32_t correlation;
};
static_assert(offsetof(CopyRecord, start) == 16 && offsetof(CopyRecord, end) == 24 && offsetof(CopyRecord, correlation) == 44);
// CUpti_ActivityAPI.
struct CallRecord {
    uint32_t kind, function;
    uint64_t start, end;
    uint32_t process, thread, correlation;
};
static_assert(offsetof(CallRecord, start) == 8 && offsetof(CallRecord, end) == 16 && offsetof(CallRecord, correlation) == 32);

// CUPTI knows callbacks without a context, so that there is one of these.
class Tracer {
  public:
    static Tracer &get() {
        static Tracer tracer;
        return tracer;
    }

    void start() {
        clear();
        for (const auto kind : recorded) check(enable_(kind), "cuptiActivityEnable");
        check(timestamp_(&started_), "cuptiGetTimestamp");
    }

    void clear() {
        check(flush_(1 /* incomplete buffers too */), "cuptiActivityFlushAll");
        const std::lock_guard lock(mutex_);
        spans_.clear();
        calls_.clear();
        dropped_ = 0;
        check(timestamp_(&started_), "cuptiGetTimestamp");
    }

    ct_trace stop() {
        uint64_t end = 0;
        check(timestamp_(&end), "cuptiGetTimestamp");
        check(flush_(1), "cuptiActivityFlushAll");
        for (const auto kind : recorded) check(disable_(kind), "cuptiActivityDisable");
        const std::lock_guard lock(mutex_);
        return {started_, end, dropped_, spans_.data(), calls_.data(), spans_.size(), calls_.size()};
    }

    std::string name(int32_t index) {
        const std::lock_guard lock(mutex_);
        TORCH_CHECK(index >= 0 && static_cast<size_t>(index) < names_.size(), "no kernel has the number ", index);
        return names_[index];
    }

  private:
    static constexpr size_t buffer_bytes = 8 << 20;

    Tracer() {
        const char *file = "libcupti.so.13";
        // A second copy would see nothing.
        void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
        if (!library) library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        TORCH_CHECK(library, file, ", which tells what runs on the device, is not found: ", dlerror(),
                    "; install nvidia-cuda-cupti 13.0 beside torch");
        find(library, register_, "cuptiActivityRegisterCallbacks");
        find(library, enable_, "cuptiActivityEnable");
        find(library, disable_, "cuptiActivityDisable");
        find(library, flush_, "cuptiActivityFlushAll");
        find(library, next_, "cuptiActivityGetNextRecord");
        find(library, lost_, "cuptiActivityGetNumDroppedRecords");
        find(library, timestamp_, "cuptiGetTimestamp");
        find(library, text_, "cuptiGetResultString");
        check(register_(take_buffer, give_buffer), "cuptiActivityRegisterCallbacks");
    }

    template <class Function> static void find(void *library, Function *&function, const char *name) {
        function = reinterpret_cast<Function *>(dlsym(library, name));
        TORCH_CHECK(function, "libcupti.so.13 lacks ", name);
    }

    void check(int status, const char *what) const {
        if (status == 0) return;
        const char *text = nullptr;
        text_(status, &text);
        TORCH_CHECK(false, what, ": ", text ? text : "CUPTI error", " (", status, ")");
    }

    static void take_buffer(uint8_t **buffer, size_t *size, size_t *most) {
        *buffer = static_cast<uint8_t *>(std::aligned_alloc(8, buffer_bytes));
        *size = *buffer ? buffer_bytes : 0;
        *most = 0;
    }

    // CUPTI may call this on a thread of its own.
    static void give_buffer(void *context, uint32_t stream, uint8_t *buffer, size_t, size_t valid) {
        auto &tracer = get();
        {
            const std::lock_guard lock(tracer.mutex_);
            void *record = nullptr;
            while (valid > 0 && tracer.next_(buffer, valid, &record) == 0) tracer.add(record);
            size_t lost = 0;
            if (tracer.lost_(context, stream, &lost) == 0) tracer.dropped_ += lost;
        }
        std::free(buffer);
    }

    void add(const void *record) {
        uint32_t kind;
        std::memcpy(&kind, record, sizeof kind);
        if (kind == driver_kind || kind == runtime_kind) {
            const auto &r = *static_cast<const CallRecord *>(record);
            calls_.push_back({r.start, r.end, r.correlation});
        } else if (kind == kernel_kind) {
            const auto &r = *static_cast<const KernelRecord *>(record);
            add({r.start, r.end, r.correlation, intern(r.name)});
        } else if (kind == memcpy_kind || kind == memset_kind) {
            const auto &r = *static_cast<const CopyRecord *>(record);
            add({r.start, r.end, r.correlation, kind == memcpy_kind ? -1 : -2});
        }
    }

    // Without an end: a record of something that has not run to it.
    void add(const ct_trace_span &span) {
        if (span.start && span.end >= span.start) spans_.push_back(span);
    }

    int32_t intern(const char *mangled) {
        const auto [place, isNew] = indices_.try_emplace(mangled ? mangled : "", static_cast<int32_t>(names_.size()));
        if (isNew) {
            int status = -1;
            char *readable = abi::__cxa_demangle(place->first.c_str(), nullptr, nullptr, &status);
            names_.push_back(status == 0 && readable ? readable : place->first);
            std::free(readable);
        }
        return place->second;
    }

    using BufferRequest = void(uint8_t **, size_t *, size_t *);
    using BufferComplete = void(void *, uint32_t, uint8_t *, size_t, size_t);
    int (*register_)(BufferRequest *, BufferComplete *);
    int (*enable_)(uint32_t);
    int (*disable_)(uint32_t);
    int (*flush_)(uint32_t);
    int (*next_)(uint8_t *, size_t, void **);
    int (*lost_)(void *, uint32_t, size_t *);
    int (*timestamp_)(uint64_t *);
    int (*text_)(int, const char **);

    std::mutex mutex_;
    std::vector<ct_trace_span> spans_;
    std::vector<ct_trace_call> calls_;
    std::unordered_map<std::string, int32_t> indices_;
    std::vector<std::string> names_;
    uint64_t started_ = 0, dropped_ = 0;
};

} // namespace
} // namespace ct

using namespace ct;

extern "C" {

CT_DO(ct_trace_start, (ct_message *error), Tracer::get().start())
CT_DO(ct_trace_clear, (ct_message *error), Tracer::get().clear())
CT_DO(ct_trace_stop, (ct_trace *out, ct_message *error), *out = Tracer::get().stop())
CT_DO(ct_trace_name, (int32_t name, ct_message *out, ct_message *error), *out = copy(Tracer::get().name(name)))

} // extern "C"
