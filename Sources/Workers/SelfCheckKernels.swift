import TensorCore

/// What has CUDA kernels of its own, in the sizes and with the options that they tell apart: no gradients, no models.
extension SelfCheck {
    /// The checks of kernels alone; `compute-sanitizer` can run these.
    public func kernels() throws -> [Result] {
        try withNoGrad {
            try [
                try cachedAttention("", headDim: 64, valueDim: 64, kind: AttentionKind(scale: 0.125)),
                try cachedAttention(
                    ", many heads", headDim: 128, valueDim: 128, heads: 40, kind: AttentionKind(scale: 0.1)),
                try cachedAttention(
                    ", window and soft cap", headDim: 96, valueDim: 96,
                    kind: AttentionKind(scale: 0.3, window: 100, softCap: 2)),
                try cachedAttention(
                    ", window", headDim: 256, valueDim: 256, kind: AttentionKind(scale: 0.06, window: 5)),
                try cachedAttention(
                    ", float8", headDim: 128, valueDim: 128, heads: 14, kind: AttentionKind(scale: 0.1), float8: true),
                try cachedAttention(
                    ", float8, small heads", headDim: 64, valueDim: 64, kind: AttentionKind(scale: 0.3), float8: true),
                try cachedAttention(
                    ", float8, window and soft cap", headDim: 96, valueDim: 96,
                    kind: AttentionKind(scale: 0.3, window: 100, softCap: 2), float8: true),
                try cachedAttention(
                    ", float8, large heads", headDim: 256, valueDim: 256, kind: AttentionKind(scale: 0.06, window: 5),
                    float8: true),
                try cachedAttention(
                    ", float8, small values", headDim: 48, valueDim: 32, kind: AttentionKind(scale: 0.15), float8: true),
                try storedInFloat8(),
                try digests(),
                try cachedAttention(", small values", headDim: 48, valueDim: 32, kind: AttentionKind(scale: 0.15)),
            ] + layers() + quantized()
                + SelfCheckSampling(device: device, dtype: dtype).errors().map {
                    Result(name: $0.name, error: $0.error, tolerance: 1e-3)
                }
        }
    }

    private func cachedAttention(
        _ name: String, headDim: Int, valueDim: Int, heads: Int = 6, kind: AttentionKind, float8: Bool = false
    ) throws -> Result {
        let generator = try RandomGenerator(seed: 12)
        let query = try Tensor.randomNormal([3, heads, headDim], generator: generator)
        let keys = try Tensor.randomNormal([900, 2, headDim], generator: generator)
        let values = try Tensor.randomNormal([900, 2, valueDim], generator: generator)
        // Rounded once, here: the devices then read the same bytes.
        func pool(_ x: Tensor, _ device: Device, _ dtype: DType) throws -> Tensor {
            try float8 ? x.saturatedToFloat8().to(device) : x.to(device, dtype: dtype)
        }
        let longest = 777
        let slots = (0..<3 * longest).map { Int32($0 * 7 % 900) }
        func run(_ device: Device, _ dtype: DType) throws -> [Tensor] {
            try withNoGrad {
                [
                    try Tensor.cachedAttention(
                        query: query.to(device, dtype: dtype), keyPool: pool(keys, device, dtype),
                        valuePool: pool(values, device, dtype),
                        slots: Tensor(slots, shape: [3, longest], device: device),
                        lengths: Tensor([Int32(longest), 4, 109], device: device), kind: kind)
                ]
            }
        }
        return try worst("attention over the cache" + name, run(.cpu, .float32), run(device, dtype))
    }
}

// MARK: - Products with quantised weights

extension SelfCheck {
    /// Against the product with the weight that the codes stand for, at row counts on both sides of where kernels change.
    private func quantized() throws -> [Result] {
        let generator = try RandomGenerator(seed: 17)
        let weight = try Tensor.randomNormal([352, 256], generator: generator).multiplied(by: 0.1)
        let bias = try Tensor.randomNormal([352], generator: generator)
        let schemes: [(String, WeightQuantization)] = [("8 bits", .int8PerChannel), ("4 bits", .int4(group: 128))]
        return try schemes.map { name, scheme in
            let own = try QuantizedLinear(weight.to(device, dtype: dtype), scheme)
            let offset = try bias.to(device, dtype: dtype)
            let dense = try own.dequantized().to(.cpu)
            var expected: [Tensor] = [], found: [Tensor] = []
            for rows in [1, 7, 16, 33, 60, 130] {
                let x = try Tensor.randomNormal([rows, 256], generator: generator).to(device, dtype: dtype)
                expected.append(
                    try x.to(.cpu, dtype: .float32).linear(dense, bias: offset.to(.cpu, dtype: .float32)))
                found.append(try own(x, bias: offset))
            }
            return try worst("products with weights of \(name)", expected, found)
        }
    }
}

// MARK: - Storing in eight bits

extension SelfCheck {
    /// Keys and values of all sizes, too large ones and subnormal ones too, go into pools of float8 as bytes equal to those that
    /// separate operations give. Heads are not turned: which way a product's last bit went is not the question.
    private func storedInFloat8() throws -> Result {
        let generator = try RandomGenerator(seed: 15)
        let tokens = 90, dim = 64, keyHeads = 3
        let scales = try Tensor.randomNormal([tokens, 1], generator: generator).multiplied(by: 5).exp()
        let heads = try Tensor.randomNormal([tokens, (2 + 2 * keyHeads) * dim], generator: generator)
            .multiplied(by: scales).to(device, dtype: dtype)
        let slots = try Tensor((0..<tokens).map { Int32($0 * 7 % 100) }, device: device)
        func stored() throws -> [Tensor] {
            let pools = try (0..<2).map { _ in
                try Tensor.zeros([100, keyHeads, dim], dtype: .uint8, device: device).viewed(as: .float8e4m3)
            }
            _ = try heads.cloned().preparedHeads(
                HeadPreparation(queryHeads: 2, keyValueHeads: keyHeads, headDim: dim),
                storing: (pools[0], pools[1], slots))
            return pools
        }
        var result = try worst("store of heads in float8", withSeparateOperations { try stored() }, stored())
        result.tolerance = 0
        return result
    }
}

// MARK: - Digests

extension SelfCheck {
    /// The same on both devices, of every length around a block's and from every kind of address.
    private func digests() throws -> Result {
        let values = try Tensor.randomNormal([20_003], generator: RandomGenerator(seed: 19)).to(.cpu, dtype: .bfloat16)
        let ranges = [0..<0, 0..<1, 3..<20, 0..<8192, 0..<8193, 1..<8195, 5..<20_003, 0..<20_003]
        let own = try values.to(device)
        let differing = try ranges.count { range in
            try values.narrowed(0, range).digest() != own.narrowed(0, range).digest()
        }
        return Result(name: "digests of bytes", error: Double(differing), tolerance: 0)
    }
}

// MARK: - Between a layer's products

extension SelfCheck {
    private static let tokenCounts = [1, 3, 257]

    private func layers() throws -> [Result] {
        let generator = try RandomGenerator(seed: 14)
        func random(_ shape: [Int]) throws -> Tensor { try Tensor.randomNormal(shape, generator: generator) }
        let positions = try Tensor((0..<257).map { Int64($0 * 397) })
        let frequencies = try random([1, 40]).squared()
        return try [
            both("residual sum and norm", Self.tokenCounts.flatMap { try residualCases(tokens: $0, random) }),
            both("rms norms of rows", [rowCase(random)]),
            both("gated activations", Self.tokenCounts.flatMap { try gateCases(tokens: $0, random) }),
            both("norm, rotation and store of heads", Self.tokenCounts.flatMap { try headCases(tokens: $0, random) }),
            both("rotary kernel", [rotaryCase(random)]),
            [
                worst(
                    "rotary angles", angles(positions, frequencies, .cpu), angles(positions, frequencies, device))
            ],
        ].flatMap { $0 }
    }

    private func angles(_ positions: Tensor, _ frequencies: Tensor, _ device: Device) throws -> [Tensor] {
        let both = try positions.to(device).rotaryAngles(frequencies.to(device), factor: 1.2)
        return [both.cos, both.sin]
    }

    /// Something to compute on a device in a type.
    private struct Case {
        let inputs: [Tensor]
        let body: ([Tensor]) throws -> [Tensor]
    }

    /// Against the CPU's float32; and against the same device's separate operations, which round at the same places, so that little
    /// more than the order of sums tells the two apart.
    private func both(_ name: String, _ cases: [Case]) throws -> [Result] {
        func run(_ device: Device, _ dtype: DType) throws -> [Tensor] {
            try cases.flatMap { one in
                try one.body(
                    one.inputs.map {
                        $0.dtype == .float32 ? try $0.to(device, dtype: dtype, copy: true) : try $0.to(device)
                    })
            }
        }
        let candidate = try run(device, dtype)
        var separate = try worst(
            name + ", against separate operations", try withSeparateOperations { try run(device, dtype) }, candidate)
        separate.tolerance = dtype == .float32 ? 1e-6 : 1e-3
        return [try worst(name, run(.cpu, .float32), candidate), separate]
    }

    /// Plain weights as PreNorm layers have them, weights less one around both (Gemma), float32 weights, a multiplier (Granite).
    private func residualCases(tokens: Int, _ random: ([Int]) throws -> Tensor) throws -> [Case] {
        // One, two and four pieces a thread; a width that no kernel takes.
        try (tokens > 3 ? [64, 896, 3584] : [64, 896, 3584, 16384, 100]).map { columns in
            let inputs = try [
                random([tokens, columns]), random([tokens, columns]), random([columns]), random([columns]),
            ]
            return Case(inputs: inputs) { inputs in
                let plain = RMSNormTerms(weight: inputs[2], eps: 1e-5)
                let offset = RMSNormTerms(weight: inputs[2], eps: 1e-5, hasUnitOffset: true)
                let wide = RMSNormTerms(weight: try inputs[2].to(dtype: .float32), eps: 1e-5)
                let after = RMSNormTerms(weight: inputs[3], eps: 1e-3, hasUnitOffset: true)
                let x = inputs[0], delta = inputs[1]
                var all = [try x.rmsNorm(plain), try x.adding(delta, norm: after)]
                for (norm, deltaNorm, multiplier) in [
                    (plain, nil, 1), (offset, after, 1), (wide, nil, 0.22), (plain, after, 0.22),
                ] as [(RMSNormTerms, RMSNormTerms?, Double)] {
                    let both = try x.addingThenNorming(
                        delta, norm: deltaNorm, multiplier: multiplier, by: norm, keepsSum: true)
                    all += [both.sum, both.normed].compactMap { $0 }
                }
                return all
            }
        }
    }

    /// Rows that are part of wider ones, as latent vectors are.
    private func rowCase(_ random: ([Int]) throws -> Tensor) throws -> Case {
        Case(inputs: [try random([37, 640]), try random([512])]) {
            [try $0[0].narrowed(1, 64..<576).rmsNorm($0[1], eps: 1e-6)]
        }
    }

    private func gateCases(tokens: Int, _ random: ([Int]) throws -> Tensor) throws -> [Case] {
        try [8, 192, 4864, 36].map { half in
            Case(inputs: [try random([tokens, 2 * half]).multiplied(by: 3)]) { inputs in
                try [GateActivation.silu, .gelu, .geluTanh].map { try inputs[0].gated($0) }
            }
        }
    }

    private struct HeadSizes {
        let query, keyValue, dim, rotated: Int
    }

    private func headCases(tokens: Int, _ random: ([Int]) throws -> Tensor) throws -> [Case] {
        let sizes = [
            HeadSizes(query: 14, keyValue: 2, dim: 64, rotated: 64),
            HeadSizes(query: 5, keyValue: 5, dim: 96, rotated: 96),
            HeadSizes(query: 28, keyValue: 4, dim: 128, rotated: 128),
            HeadSizes(query: 4, keyValue: 1, dim: 256, rotated: 256),
            // Partly rotated, not rotated, odd numbers of pieces, and sizes that no kernel takes.
            HeadSizes(query: 3, keyValue: 1, dim: 128, rotated: 96),
            HeadSizes(query: 6, keyValue: 3, dim: 64, rotated: 0),
            HeadSizes(query: 2, keyValue: 2, dim: 80, rotated: 80),
            HeadSizes(query: 4, keyValue: 2, dim: 40, rotated: 24),
        ]
        return try sizes.flatMap { size in
            try [nil, false, true].map { try headCase(tokens: tokens, size, isOffset: $0, random) }
        }
    }

    /// - Parameter isOffset: whether the norms' weights are stored less one; nil: no norms.
    private func headCase(
        tokens: Int, _ size: HeadSizes, isOffset: Bool?, _ random: ([Int]) throws -> Tensor
    ) throws -> Case {
        let slotCount = 300
        // Each token its own slot, out of order; every third is not kept.
        let slots = try Tensor((0..<tokens).map { $0 % 3 == 1 ? Int32(-1) : Int32($0 * 7 % slotCount) })
        let pool = [slotCount, size.keyValue, size.dim]
        let inputs = try [
            random([tokens, (size.query + 2 * size.keyValue) * size.dim]), random([size.dim]), random([size.dim]),
            random(pool), random(pool),
        ]
        return Case(inputs: inputs + [slots]) { inputs in
            var how = HeadPreparation(queryHeads: size.query, keyValueHeads: size.keyValue, headDim: size.dim)
            if size.rotated > 0 {
                let half = size.rotated / 2
                let angles = try Tensor.arange(0..<tokens * half, dtype: .float32, device: inputs[0].device)
                    .multiplied(by: 0.37).reshaped([tokens, half])
                how.angles = (try angles.cos(), try angles.sin())
            }
            if let isOffset {
                func norm(_ weight: Tensor) -> RMSNormTerms {
                    RMSNormTerms(weight: weight, eps: 1e-6, hasUnitOffset: isOffset)
                }
                how.norms = (norm(inputs[1]), norm(inputs[2]))
            }
            let (keys, values) = (inputs[3], inputs[4])
            // Without pools first, from a copy: the kernel works in place.
            let apart = try inputs[0].cloned().preparedHeads(how)
            let stored = try inputs[0].preparedHeads(how, storing: (keys, values, inputs[5]))
            return [apart.query, apart.key, apart.value, stored.query, stored.key, stored.value, keys, values]
        }
    }

    private func rotaryCase(_ random: ([Int]) throws -> Tensor) throws -> Case {
        Case(inputs: [try random([21, 4, 96])]) { inputs in
            let angles = try Tensor.arange(0..<21 * 32, dtype: .float32, device: inputs[0].device)
                .multiplied(by: 0.01).reshaped([21, 32])
            return [try inputs[0].partlyRotary(cos: angles.cos(), sin: angles.sin())]
        }
    }
}
