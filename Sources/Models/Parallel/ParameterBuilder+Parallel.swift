import TensorCore

extension ParameterBuilder {
    /// One or more projections of the same input, stacked by rows and shared by ranks as `share` says. `parts` are the checkpoint's
    /// module names.
    func linear(
        _ name: String, _ parts: [(name: String, rows: Int)], inputs: Int, bias: Bool, share: ProjectionShare
    ) throws -> Projection {
        switch share {
        case .whole(let gradient):
            let pieces = parts.map { RowPiece(name: $0.name, rows: $0.rows, held: 0..<$0.rows) }
            return try projection(name, pieces, inputs: inputs, held: 0..<inputs, bias: bias, gradient)
        case .columns(let blocks):
            let pieces = try pieces(parts, blocks)
            let copied = blocks.firstIndex { parallel.copies($0.units) > 1 && $0.mayCopy }
            let projection = try projection(name, pieces, inputs: inputs, held: 0..<inputs, bias: bias, .complete)
            if let copied, let group = parallel.tensor {
                projection.copied = CopiedRows(
                    first: pieces.prefix(copied).reduce(0) { $0 + $1.held.count },
                    copies: parallel.copies(blocks[copied].units),
                    group: group)
            }
            return projection
        case .rows(let units):
            let held = try parallel.share(units, of: "inputs of \(name)")
            let size = inputs / units
            let pieces = parts.map { RowPiece(name: $0.name, rows: $0.rows, held: 0..<$0.rows) }
            let columns = held.lowerBound * size..<held.upperBound * size
            return try projection(
                name, pieces, inputs: inputs, held: columns, bias: bias, .complete, addsToSum: parallel.tensor != nil)
        }
    }

    /// The rows of the parts that this rank holds; a part may be several blocks.
    private func pieces(_ parts: [(name: String, rows: Int)], _ blocks: [RowBlock]) throws -> [RowPiece] {
        var pieces: [RowPiece] = [], left = blocks[...]
        for part in parts {
            var first = 0
            while first < part.rows, let block = left.popFirst() {
                let own = try parallel.share(block.units, of: "outputs of \(part.name)", mayCopy: block.mayCopy)
                let size = block.rows / block.units
                let held = first + own.lowerBound * size..<first + own.upperBound * size
                // Neighbours are one piece: as a checkpoint has them, where a rank holds everything.
                if let last = pieces.last, last.name == part.name, last.held.upperBound == held.lowerBound {
                    pieces[pieces.count - 1].held = last.held.lowerBound..<held.upperBound
                } else {
                    pieces.append(RowPiece(name: part.name, rows: part.rows, held: held))
                }
                first += block.rows
            }
            precondition(first == part.rows, "blocks of \(first) rows for the \(part.rows) of '\(part.name)'")
        }
        return pieces
    }

    private func projection(
        _ name: String, _ pieces: [RowPiece], inputs: Int, held: Range<Int>, bias: Bool, _ gradient: GradientShare,
        addsToSum: Bool = false
    ) throws -> Projection {
        func named(_ kind: String) -> [RowPiece] {
            pieces.map { RowPiece(name: $0.name + kind, rows: $0.rows, held: $0.held) }
        }
        let weight = try stacked(
            name + ".weight", named(".weight"), columns: [inputs], held: held, gradient: gradient)
        guard bias else { return projection(weight) }
        let offset = try stacked(name + ".bias", named(".bias"), columns: [], gradient: addsToSum ? .stream : gradient)
        let projection = projection(weight, bias: addsToSum ? nil : offset)
        if addsToSum { projection.biasOfSum = offset }
        return projection
    }
}

/// Rows of a projection that several neighbours of a group hold alike, each with a part of their gradient.
struct CopiedRows {
    let first, copies: Int
    let group: ProcessGroup
}
