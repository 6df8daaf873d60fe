#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The GPUs that this process could use.
public enum VisibleDevices {
    /// How many the driver shows, `CUDA_VISIBLE_DEVICES` heeded; 0 without a driver. Opens no device.
    public static func count() -> Int {
        guard let driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) else { return 0 }
        typealias Initialize = @convention(c) (UInt32) -> Int32
        typealias Count = @convention(c) (UnsafeMutablePointer<Int32>) -> Int32
        guard let initialize = dlsym(driver, "cuInit"), let count = dlsym(driver, "cuDeviceGetCount") else { return 0 }
        var found: Int32 = 0
        guard unsafeBitCast(initialize, to: Initialize.self)(0) == 0,
            unsafeBitCast(count, to: Count.self)(&found) == 0
        else { return 0 }
        return Int(found)
    }
}
