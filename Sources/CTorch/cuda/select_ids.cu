// A step's input ids: known ones, and those that the step before has drawn and nobody has read yet.
extern "C" __global__ void select_ids(const int *__restrict__ known, const int *__restrict__ source,
                                      const int *__restrict__ previous, int *__restrict__ ids, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) ids[i] = source[i] >= 0 ? previous[source[i]] : known[i];
}
