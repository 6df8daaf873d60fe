import TensorCore

/// Draws of a device against the CPU's for the same logits and uniform numbers.
struct SelfCheckSampling {
    let device: Device
    let dtype: DType

    /// What is to be checked: a name and how far the device is off, infinite for a wrong token.
    func errors() throws -> [(name: String, error: Double)] {
        var all: [(String, Double)] = []
        for vocabulary in [50, 49_152, 151_936] {
            for ties in [false, true] {
                let name = "draws from \(vocabulary) tokens" + (ties ? " with ties" : "")
                all.append((name, try draws(vocabulary, ties: ties)))
            }
        }
        // Rows that do not begin at a multiple of 16 bytes.
        all.append(("draws from 1003 tokens", try draws(1003, ties: false)))
        all.append(("adjusted logits", try adjustments()))
        all.append(("likeliest tokens", try likeliest()))
        return all
    }

    private static let filters: [RowSampling] = [
        RowSampling(), RowSampling(temperature: 0), RowSampling(temperature: 0.6), RowSampling(topK: 1),
        RowSampling(topK: 50), RowSampling(topK: 3000), RowSampling(topP: 0.3217), RowSampling(topP: 0.9071),
        RowSampling(topP: 0.9913), RowSampling(minP: 0.05), RowSampling(minP: 1),
        RowSampling(temperature: 1.5, topK: 40, topP: 0.8971),
        RowSampling(temperature: 0.7, topK: 400, topP: 0.9371, minP: 0.01),
    ]

    private func logits(_ rows: Int, _ vocabulary: Int, ties: Bool) throws -> Tensor {
        let generator = try RandomGenerator(seed: UInt64(vocabulary))
        let random = try Tensor.randomNormal([rows, vocabulary], generator: generator).multiplied(by: 3)
        return try (ties ? random.floor() : random).to(dtype: dtype)
    }

    private func draws(_ vocabulary: Int, ties: Bool) throws -> Double {
        let generator = try RandomGenerator(seed: 21)
        let uniforms = try Tensor.random([2 * Self.filters.count], generator: generator).values(Float.self)
        let rows = (Self.filters + Self.filters).enumerated().map { index, filter in
            var row = filter
            row.uniform = Double(uniforms[index])
            return row
        }
        let host = try logits(rows.count, vocabulary, ties: ties)
        let expected = try host.sample(rows), found = try host.to(device).sample(rows)
        // Filters of one row leave the others as they are.
        let plain = rows.map { RowSampling(temperature: $0.temperature, uniform: $0.uniform) }
        let alone = try host.to(device).sample(plain)
        var error = 0.0
        for row in rows.indices {
            if !rows[row].isFiltered(vocabulary: vocabulary), alone.tokens[row] != found.tokens[row] {
                return .infinity
            }
            if found.tokens[row] == expected.tokens[row] {
                error = max(error, Double(abs(found.logProbs[row] - expected.logProbs[row])))
            } else if try !isRounding(host, row, rows[row], found.tokens[row]) {
                return .infinity
            }
        }
        return error
    }

    /// Whether the CPU draws that token by a uniform number that differs by rounding: a sum of 150,000 float32 weights
    /// is exact to some 1e-6.
    private func isRounding(_ host: Tensor, _ row: Int, _ sampling: RowSampling, _ token: Int64) throws -> Bool {
        let logits = try host.narrowed(0, row..<row + 1)
        for shift in [-4e-6, -1e-6, 1e-6, 4e-6] {
            var near = sampling
            near.uniform = min(max(0, near.uniform + shift), 1 - 0x1p-24)
            if try logits.sample([near]).tokens[0] == token { return true }
        }
        return false
    }

    private func adjustments() throws -> Double {
        let host = try logits(7, 1003, ties: false)
        func run(_ device: Device) throws -> Tensor {
            let count = 300
            let own = try host.to(device, copy: true)
            try own.adjust(
                LogitAdjustments(
                    rows: Tensor((0..<count).map { Int32($0 % 8 - 1) }, device: device),
                    tokens: Tensor((0..<count).map { Int32($0 * 3) }, device: device),
                    factors: Tensor((0..<count).map { 0.5 + Float($0 % 5) / 4 }, device: device),
                    offsets: Tensor((0..<count).map { Float($0 % 3) - 1 }, device: device)))
            return own
        }
        return try SelfCheck.distance(run(device), run(.cpu))
    }

    private func likeliest() throws -> Double {
        let host = try logits(5, 5000, ties: false).to(dtype: .float32)
        let chosen = (0..<5).map { Int32($0 * 900) }
        func run(_ device: Device) throws -> TopLogProbs {
            try host.to(device).topLogProbs(
                count: 20, chosen: Tensor(chosen, device: device),
                temperatures: Tensor([Float(1), 0.5, 0, 2, 1], device: device))
        }
        let expected = try run(.cpu), found = try run(device)
        guard try found.chosenRanks.to(.cpu).equals(expected.chosenRanks) else { return .infinity }
        return max(
            try SelfCheck.distance(found.logProbs, expected.logProbs),
            try SelfCheck.distance(found.chosenLogProbs, expected.chosenLogProbs))
    }
}
