// A digest of each 16 KiB of a tensor's bytes, as digest.cpp makes it on the host: four threads a block of bytes, one for each lane.
typedef unsigned long long word;

__device__ __forceinline__ word mixed(word z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

extern "C" __global__ void digest_blocks(const unsigned char *__restrict__ bytes, long long total, word *__restrict__ parts,
                                         int blocks) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, block = thread / 4, j = thread % 4;
    if (block >= blocks) return; // whole quads: the shuffles below stay within one
    const unsigned quad = 0xfu << (threadIdx.x % 32 / 4 * 4);
    const long long start = (long long)block * BLOCK;
    const int count = (int)(total - start < BLOCK ? total - start : BLOCK), rounds = count / 32;
    const word seed = mixed((word)block + 1);
    word lane = j == 0 ? seed : j == 1 ? seed ^ 0x9e3779b97f4a7c15ull : j == 2 ? seed + 0xd1b54a32d192ed03ull : ~seed;
    const unsigned char *at = bytes + start;
    // A view may begin at any element, so at any even address.
    const bool aligned = ((unsigned long long)at & 7) == 0;
    auto take = [&](word value) {
        lane = (lane ^ value) * 0x9fb21c651e98df25ull;
        lane ^= lane >> 32;
    };
    auto read = [&](int round) {
        const unsigned char *here = at + round * 32 + 8 * j;
        if (aligned) return *(const word *)here;
        word value = 0;
        for (int i = 7; i >= 0; --i) value = value << 8 | here[i];
        return value;
    };
    int round = 0;
    for (; round + 8 <= rounds; round += 8) {
        word ahead[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) ahead[i] = read(round + i);
#pragma unroll
        for (int i = 0; i < 8; ++i) take(ahead[i]);
    }
    for (; round < rounds; ++round) take(read(round));
    word sum = mixed(lane + j);
    if (j == 0) {
        word rest = count;
        for (int i = rounds * 32; i < count; ++i) rest = (rest ^ at[i]) * 0x100000001b3ull;
        sum ^= mixed(rest);
    }
    sum ^= __shfl_xor_sync(quad, sum, 1);
    sum ^= __shfl_xor_sync(quad, sum, 2);
    if (j == 0) parts[block] = sum;
}
