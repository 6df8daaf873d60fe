import TensorCore

/// How AdamW stores moments.
public enum MomentType: Sendable, Hashable, CaseIterable {
    case float32
    /// As in training wholly in bfloat16.
    case bfloat16
    /// Codes with a scale for each 256 elements (Dettmers et al. 2022); tensors of less than 4096 elements stay float32.
    case int8

    static let smallestCoded = 4096
    static let block = 256

    /// Whether a tensor of `count` elements has codes.
    func codes(_ count: Int) -> Bool { self == .int8 && count >= Self.smallestCoded }

    /// Bytes of one moment of a tensor.
    public func bytes(_ count: Int) -> Int {
        switch self {
        case .bfloat16: 2 * count
        case .int8 where codes(count): count + 4 * ((count + Self.block - 1) / Self.block)
        case .float32, .int8: 4 * count
        }
    }
}

/// One moment of one tensor, where and as it is stored.
struct Moment {
    /// Values, or codes.
    let values: Tensor
    /// Of codes.
    let scales: Tensor?
    private let isSigned: Bool

    init(_ shape: [Int], type: MomentType, isSigned: Bool, place: StatePlace) throws(TorchError) {
        let count = shape.reduce(1, *)
        self.isSigned = isSigned
        if type.codes(count) {
            values = try place.zeros(shape, .uint8)
            scales = try place.zeros([(count + MomentType.block - 1) / MomentType.block], .float32)
        } else {
            values = try place.zeros(shape, type == .bfloat16 ? .bfloat16 : .float32)
            scales = nil
        }
    }

    private init(_ other: Moment, _ place: (Tensor) -> Tensor) {
        (values, scales, isSigned) = (place(other.values), other.scales.map(place), other.isSigned)
    }

    /// The same moment where `place` says that its tensors are.
    func placed(_ place: (Tensor) -> Tensor) -> Moment { Moment(self, place) }

    /// The values, in float32 on the host where they are stored as codes, which belong to the blocks of this very tensor.
    func plain() throws(TorchError) -> Tensor {
        guard let scales else { return values }
        return try values.to(.cpu).decodedMoments(scales: scales.to(.cpu), isSigned: isSigned).reshaped(values.shape)
    }

    /// Takes over a saved moment, however that is stored: the same bits where it is stored alike.
    func restore(_ saved: Tensor, savedScales: () throws -> Tensor) throws {
        guard let scales else {
            let whole =
                saved.dtype == .uint8
                ? try saved.decodedMoments(scales: savedScales(), isSigned: isSigned).reshaped(values.shape) : saved
            try values.copy(from: whole)
            return
        }
        if saved.dtype == .uint8 {
            try values.copy(from: saved)
            try scales.copy(from: savedScales())
        } else {
            let encoded = try saved.encodedMoments(isSigned: isSigned)
            try values.copy(from: encoded.codes)
            try scales.copy(from: encoded.scales)
        }
    }
}

/// Where a state lies.
enum StatePlace {
    case device(Device)
    /// Page-locked, for a step that streams it through the device.
    case pinnedHost

    func zeros(_ shape: [Int], _ dtype: DType) throws(TorchError) -> Tensor {
        switch self {
        case .device(let device): try Tensor.zeros(shape, dtype: dtype, device: device)
        case .pinnedHost: try Tensor.pinnedZeros(shape, dtype: dtype)
        }
    }
}
