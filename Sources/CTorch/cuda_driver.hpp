#pragma once
// CUDA kernels as text: compiled by NVRTC for the device at hand, kept on disk, launched by the driver on torch's stream. Both
// libraries are opened at run time, so that nothing here links to CUDA.
#include <c10/core/Device.h>
#include <string>
#include <vector>

namespace ct {

// One kernel of one compiled text on one device.
class CudaKernel {
  public:
    // Compiles `text` with `options` where that has not been done yet, and finds `name` in it.
    static CudaKernel &get(c10::Device device, const char *file, const char *text, size_t size,
                           const std::vector<std::string> &options, const char *name);

    // On the current stream of `device`. `arguments` point to the values.
    void launch(c10::Device device, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared_bytes, void **arguments);

  private:
    void *function = nullptr;
    unsigned allowed_shared = 48 * 1024;
};

// Ten times the major and the minor: 90 for Hopper.
int compute_capability(c10::Device device);

// Compiles for an architecture such as "sm_90", device or not; gives the binary.
std::string compile_cuda(const char *file, const char *text, size_t size, const std::vector<std::string> &options,
                         const std::string &architecture);

// How many multiprocessors a device has.
int multiprocessors(c10::Device device);

} // namespace ct
