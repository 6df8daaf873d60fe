// A digest of a tensor's bytes, made where the tensor lies.
#include "cuda_driver.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "shim.hpp"

#pragma clang diagnostic ignored "-Wc23-extensions"

using namespace ct;

namespace {

constexpr char digest_text[] = {
#embed "cuda/digest.cu"
};
constexpr int64_t block_bytes = 1 << 14;

std::vector<std::string> digest_options() { return {"-DBLOCK=" + std::to_string(block_bytes)}; }

uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Four independent lanes, so that the multiplications overlap.
uint64_t digest_block(const unsigned char *bytes, size_t count, uint64_t seed) {
    uint64_t lane[4] = {seed, seed ^ 0x9e3779b97f4a7c15ull, seed + 0xd1b54a32d192ed03ull, ~seed};
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        for (int j = 0; j < 4; ++j) {
            uint64_t word;
            memcpy(&word, bytes + i + 8 * j, 8);
            lane[j] = (lane[j] ^ word) * 0x9fb21c651e98df25ull;
            lane[j] ^= lane[j] >> 32;
        }
    uint64_t rest = count;
    for (; i < count; ++i) rest = (rest ^ bytes[i]) * 0x100000001b3ull;
    return mix(lane[0]) ^ mix(lane[1] + 1) ^ mix(lane[2] + 2) ^ mix(lane[3] + 3) ^ mix(rest);
}

std::vector<uint64_t> host_parts(const at::Tensor &tensor, int64_t blocks) {
    const auto *bytes = static_cast<const unsigned char *>(tensor.const_data_ptr());
    const int64_t total = tensor.nbytes();
    std::vector<uint64_t> parts(blocks);
    ct::parallel_for(0, blocks, 64, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b)
            parts[b] = digest_block(bytes + b * block_bytes, std::min(block_bytes, total - b * block_bytes), mix(b + 1));
    });
    return parts;
}

// On the tensor's device: its bytes need not come to the host.
std::vector<uint64_t> device_parts(const at::Tensor &tensor, int64_t blocks) {
    auto parts = at::empty({blocks}, tensor.options().dtype(at::kLong));
    const void *bytes = tensor.const_data_ptr();
    long long total = static_cast<long long>(tensor.nbytes());
    void *parts_at = parts.mutable_data_ptr();
    int count = static_cast<int>(blocks);
    void *arguments[] = {&bytes, &total, &parts_at, &count};
    CudaKernel::get(tensor.device(), "digest.cu", digest_text, sizeof digest_text, digest_options(), "digest_blocks")
        .launch(tensor.device(), static_cast<unsigned>((blocks * 4 + 127) / 128), 1, 1, 128, 0, arguments);
    const auto host = parts.to(at::kCPU);
    const auto *first = static_cast<const uint64_t *>(host.const_data_ptr());
    return {first, first + blocks};
}

} // namespace

namespace ct {
void compile_digest(const std::string &architecture) {
    compile_cuda("digest.cu", digest_text, sizeof digest_text, digest_options(), architecture);
}
} // namespace ct

extern "C" int ct_digest(ct_tensor tensor, uint64_t *out, ct_message *error) {
    return guarded(error, [&] {
        const auto whole = T(tensor).detach().contiguous();
        const int64_t total = whole.nbytes(), blocks = (total + block_bytes - 1) / block_bytes;
        uint64_t state = mix(total);
        if (blocks > 0)
            for (auto part : whole.is_cuda() ? device_parts(whole, blocks) : host_parts(whole, blocks)) state = mix(state ^ part);
        *out = state;
    });
}
