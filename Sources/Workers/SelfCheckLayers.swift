import Models
import TensorCore

/// Gradients of what stands between a layer's products, in the sizes and with the options that kernels tell apart; and what
/// checkpoints make of them.
extension SelfCheck {
    func layerGradients() throws -> [Result] {
        var results: [Result] = []
        // One, two and four pieces a thread; a width that no kernel takes; more rows than blocks are there at once.
        for (rows, columns) in [(37, 96), (3, 896), (1030, 3584), (5, 16384), (9, 100)] {
            for isOffset in [false, true] {
                results.append(try residualGradients(rows: rows, columns: columns, isOffset: isOffset))
            }
        }
        results += try headGradients()
        for (name, activation) in [("silu", GateActivation.silu), ("gelu", .gelu), ("gelu tanh", .geluTanh)] {
            results.append(
                try compare("gradients of \(name) · up", [[33, 96], [2 * 208, 96], [40, 208]]) {
                    [try $0[0].linear($0[1]).gated(activation).linear($0[2])]
                })
        }
        return results + [try checkpoints()] + (device == .cpu ? [] : [try offload()])
    }

    private func residualGradients(rows: Int, columns: Int, isOffset: Bool) throws -> Result {
        let name = "gradients of residual sums and norms, \(rows) × \(columns)" + (isOffset ? ", weights less one" : "")
        return try compare(name, [[rows, columns], [rows, columns], [columns], [columns]]) { inputs in
            let norms = inputs[2...].map { RMSNormTerms(weight: $0, eps: 1e-5, hasUnitOffset: isOffset) }
            let both = try inputs[0].addingThenNorming(
                inputs[1], norm: isOffset ? norms[0] : nil, multiplier: isOffset ? 1 : 0.3, by: norms[1])
            let next = try (both.sum ?? inputs[0]).addingThenNorming(both.normed, by: norms[0])
            return [next.sum, next.normed].compactMap { $0 }
        }
    }

    private func headGradients() throws -> [Result] {
        let sizes = [
            (6, 2, 64, 64), (28, 4, 128, 128), (3, 1, 128, 96), (4, 2, 256, 64), (2, 2, 80, 0), (3, 1, 40, 24),
        ]
        return try sizes.flatMap { query, keyValue, dim, rotated in
            try [nil, false, true].map { isOffset in
                let tokens = 130, width = (query + 2 * keyValue) * dim
                let name =
                    "gradients of \(query) + 2 · \(keyValue) heads of \(dim), \(rotated) rotated"
                    + (isOffset.map { $0 ? ", normed by weights less one" : ", normed" } ?? "")
                return try compare(name, [[tokens, 48], [width, 48], [dim], [dim]]) { inputs in
                    var how = HeadPreparation(queryHeads: query, keyValueHeads: keyValue, headDim: dim)
                    if rotated > 0 {
                        let angles = try Tensor.arange(
                            0..<tokens * rotated / 2, dtype: .float32, device: inputs[0].device
                        ).multiplied(by: 0.37).reshaped([tokens, rotated / 2])
                        how.angles = (try angles.cos(), try angles.sin())
                    }
                    if let isOffset {
                        let norms = inputs[2...].map { RMSNormTerms(weight: $0, eps: 1e-6, hasUnitOffset: isOffset) }
                        how.norms = (norms[0], norms[1])
                    }
                    let heads = try inputs[0].linear(inputs[1]).preparedHeads(how)
                    return [heads.query, heads.key, heads.value]
                }
            }
        }
    }

    /// Gradients of a small model with `mode` and `offload`, on the device.
    private func gradients(_ mode: ActivationCheckpointing, _ offload: ActivationOffload? = nil) throws -> [Tensor] {
        let (_, make) = SelfCheckFamilies.models()[0]
        let model = try make(device, dtype)
        (model.checkpointing, model.activationOffload) = (mode, offload)
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        let ids = (0..<90).map { Int64($0 * 17 % 500) }
        try withGrad {
            let hidden = try model.hiddenStates(
                ids: Tensor(ids, device: device), positions: Tensor((0..<90).map(Int64.init), device: device),
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: 90)]))
            let targets = try Tensor(ids.reversed().map { $0 }, device: device)
            try model.tokenLogProbs(hidden: hidden, targets: targets).logProbs.mean().backward()
        }
        return try model.parameters.compactMap { try $0.tensor.grad() }
    }

    /// Layers that are run again against layers that keep all: the same kernels, and sums of attention's gradients in any order.
    private func checkpoints() throws -> Result {
        let plain = try gradients(.none)
        var result = Result(name: "checkpointed layers against those that keep all", error: 0, tolerance: tolerance)
        for mode in [
            ActivationCheckpointing.full, .selective(), .selective(keeps: [.attention, .queryKeyValue, .gateUp]),
        ] {
            result.error = max(result.error, try worst(result.name, plain, gradients(mode)).error)
        }
        return result
    }

    private func offload() throws -> Result {
        try worst(
            "what layers keep, carried to the host and back", gradients(.selective()),
            gradients(.selective(), ActivationOffload(device: device)))
    }
}
