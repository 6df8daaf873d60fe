internal import CTorch

/// A source of random numbers whose state can be saved and put back.
public final class RandomGenerator {
    let raw: ct_generator
    public let device: Device

    /// - Throws: when `device` is not there.
    public init(seed: UInt64, device: Device = .cpu) throws(TorchError) {
        var result: ct_generator?
        try check("RandomGenerator on \(device)") {
            ct_generator_create(device.typeCode, device.index, seed, &result, $0)
        }
        guard let result else { preconditionFailure("the generator was not made") }
        raw = result
        self.device = device
    }

    deinit { ct_generator_free(raw) }

    /// The whole state, as uint8 `[N]` on the CPU.
    public func state() throws(TorchError) -> Tensor {
        try tensor("generator state") { ct_generator_get_state(raw, $0, $1) }
    }

    /// Goes on from a state that ``state()`` gave.
    public func restore(_ state: Tensor) throws(TorchError) {
        try check("restore generator", [state]) { ct_generator_set_state(raw, state.raw, $0) }
    }
}
