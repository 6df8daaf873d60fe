public import TensorCore

extension MachineSpeed {
    /// Measures a device: a copy of 1 GiB (CPU: 256 MiB) and a product of square matrices of 8192 (CPU: 2048) random numbers,
    /// the best of several.
    public static func measure(_ device: Device, dtype: DType) throws -> MachineSpeed {
        let generator = try RandomGenerator(seed: 1, device: device)
        let isCUDA = device.isCUDA
        defer { try? device.emptyCache() }
        return try withNoGrad {
            let count = isCUDA ? 1 << 28 : 1 << 26
            let source = try Tensor.random([count], generator: generator)
            let target = try Tensor.empty([count], device: device)
            let copySeconds = try best(of: 5, device, times: isCUDA ? 10 : 1) { try target.copy(from: source) }
            let size = isCUDA ? 8192 : 2048
            // Random numbers: on zeros a GPU runs faster than on any real work.
            let a = try Tensor.randomNormal([size, size], generator: generator, dtype: dtype)
            let b = try Tensor.randomNormal([size, size], generator: generator, dtype: dtype)
            let productSeconds = try best(of: 3, device, times: isCUDA ? 10 : 1) { _ = try a.linear(b) }
            let operations = 2 * Double(size) * Double(size) * Double(size)
            return MachineSpeed(
                bandwidth: Double(2 * source.byteCount) / copySeconds, peak: operations / productSeconds)
        }
    }

    /// Seconds of one `body`, `times` of them queued at once, after a first that does not count.
    private static func best(of rounds: Int, _ device: Device, times: Int, _ body: () throws -> Void) throws -> Double {
        try body()
        try device.synchronize()
        var best = Double.infinity
        for _ in 0..<rounds {
            let start = ContinuousClock.now
            for _ in 0..<times { try body() }
            try device.synchronize()
            best = min(best, (ContinuousClock.now - start) / .seconds(1) / Double(times))
        }
        return best
    }
}
