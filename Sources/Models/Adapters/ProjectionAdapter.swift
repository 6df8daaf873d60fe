import TensorCore

/// The adapter of one projection. A fused projection (`qkv`, `gate_up`) has a pair A, B for each part that is a target: the A's
/// lie stacked by rows in one tensor, so that one product takes the input down for all of them; each B then fills its own rows.
final class ProjectionAdapter {
    /// One part of the projection: its rows there, and its rows in the stacked B. In A it has `rank` rows at its index.
    struct Part {
        let module: String
        let rows: Range<Int>
        let rowsInB: Range<Int>
    }

    let lora: LoRA
    /// The projection's own name, which the dropout masks go by.
    let name: String
    /// In the order of their rows.
    let parts: [Part]
    /// `[parts · rank, inputs]` and `[rows of all parts, rank]`, in the model's type.
    let down, up: Tensor

    init(lora: LoRA, name: String, parts: [Part], down: Tensor, up: Tensor) {
        self.lora = lora
        self.name = name
        self.parts = parts
        self.down = down
        self.up = up
    }

    private var rank: Int { lora.settings.rank }

    private func rankRows(_ index: Int) -> Range<Int> { index * rank..<(index + 1) * rank }

    /// `product [.., N]`, of which nobody else holds the memory, plus `scale · dropout(x) · Aᵀ · Bᵀ` in the rows of each part.
    func added(to product: Tensor, input x: Tensor) throws(TorchError) -> Tensor {
        // Scaled where the tensor is smallest.
        let down_TR = try lora.dropped(x, by: name).linear(down).multiplied(by: lora.scale)
        func rise(_ index: Int) throws(TorchError) -> Tensor {
            let part_TR = parts.count == 1 ? down_TR : try down_TR.narrowed(-1, rankRows(index))
            return try part_TR.linear(parts.count == 1 ? up : up.narrowed(0, parts[index].rowsInB))
        }
        guard isGradEnabled || isCheckpointing else {
            for (index, part) in parts.enumerated() { try product.narrowed(-1, part.rows).add(rise(index)) }
            return product
        }
        var pieces: [Tensor] = [], filled = 0
        let width = product.size(-1)
        func leaveOut(upTo row: Int) throws(TorchError) {
            guard row > filled else { return }
            pieces.append(
                try Tensor.zeros(
                    Array(product.shape.dropLast()) + [row - filled], dtype: product.dtype, device: product.device))
        }
        for (index, part) in parts.enumerated() {
            try leaveOut(upTo: part.rows.lowerBound)
            pieces.append(try rise(index))
            filled = part.rows.upperBound
        }
        try leaveOut(upTo: width)
        return try product.adding(pieces.count == 1 ? pieces[0] : Tensor.concatenate(pieces, dim: -1))
    }

    /// `weight + scale · B · A`, summed in float32, as a tensor of its own.
    func merged(into weight: Tensor) throws(TorchError) -> Tensor {
        try withNoGrad { () throws(TorchError) in
            let sum = try weight.detached().to(dtype: .float32, copy: true)
            for (index, part) in parts.enumerated() {
                let a = try down.narrowed(0, rankRows(index)).to(dtype: .float32)
                let b = try up.narrowed(0, part.rowsInB).to(dtype: .float32)
                try sum.narrowed(0, part.rows).add(b.matmul(a), scale: lora.settings.scale)
            }
            return try sum.to(dtype: weight.dtype)
        }
    }
}
