import Flow

/// Numbers of each answer token, beside the tokens themselves.
enum RowColumn: String, Codable, CaseIterable {
    case rolloutLogProbs, advantages, oldLogProbs, refLogProbs, importanceWeights, values, returns
    /// 1 at the tokens that are learned.
    case responseMask
}

/// What training needs of answers; texts and prompts' facts stay with the controller. Ranks keep the rows of a call: those that follow
/// carry what is new, and name what is kept.
struct TrainingRows: Codable {
    struct Sequences: Codable {
        var groups: [Int]
        var prompts, responses: PackedRows<Int32>
    }

    /// Which rows they are, of those that the controller has told of; nil: nobody is to keep them.
    var id: Int?
    /// nil where they are kept.
    var sequences: Sequences?
    /// Columns that are kept.
    var kept: [RowColumn] = []
    private(set) var rolloutLogProbs, advantages, oldLogProbs, refLogProbs, importanceWeights, values,
        returns: PackedRows<Float>?
    private(set) var responseMask: PackedRows<UInt8>?

    init(id: Int) { self.id = id }

    /// All of them.
    init(_ trajectories: [Trajectory]) {
        sequences = Sequences(trajectories)
        for column in RowColumn.allCases { take(column, trajectories) }
    }

    /// The rows of numbers that a column has.
    subscript(column: RowColumn) -> PackedRows<Float>? {
        get {
            switch column {
            case .rolloutLogProbs: rolloutLogProbs
            case .advantages: advantages
            case .oldLogProbs: oldLogProbs
            case .refLogProbs: refLogProbs
            case .importanceWeights: importanceWeights
            case .values: values
            case .returns: returns
            case .responseMask: nil
            }
        }
        set {
            switch column {
            case .rolloutLogProbs: rolloutLogProbs = newValue
            case .advantages: advantages = newValue
            case .oldLogProbs: oldLogProbs = newValue
            case .refLogProbs: refLogProbs = newValue
            case .importanceWeights: importanceWeights = newValue
            case .values: values = newValue
            case .returns: returns = newValue
            case .responseMask: break
            }
        }
    }

    /// Takes a column in, where all trajectories have it.
    mutating func take(_ column: RowColumn, _ trajectories: [Trajectory]) {
        if column == .responseMask {
            guard trajectories.contains(where: { $0.responseMask != nil }) else { return }
            responseMask = PackedRows(
                trajectories.map { one in
                    one.responseMask.map { $0.map { $0 ? 1 : 0 } } ?? [UInt8](repeating: 1, count: one.response.count)
                })
        } else if let rows = column.rows(of: trajectories) {
            self[column] = PackedRows(rows)
        }
    }

    /// Takes over what `other` keeps of the columns that this names.
    mutating func complete(from other: TrainingRows) {
        if sequences == nil { sequences = other.sequences }
        for column in kept {
            if column == .responseMask { responseMask = other.responseMask } else { self[column] = other[column] }
        }
    }

    /// Takes in what else `other` has, for later.
    mutating func add(_ other: TrainingRows) {
        for column in RowColumn.allCases where self[column] == nil { self[column] = other[column] }
        if responseMask == nil { responseMask = other.responseMask }
    }

    var trajectories: [Trajectory] {
        guard let sequences else { return [] }
        let responses = sequences.responses.rows, rollout = rolloutLogProbs?.rows, advantages = advantages?.rows
        let old = oldLogProbs?.rows, ref = refLogProbs?.rows, weights = importanceWeights?.rows
        let mask = responseMask?.rows, values = values?.rows, returns = returns?.rows
        return sequences.prompts.rows.enumerated().map { index, prompt in
            var trajectory = Trajectory(
                prompt: PromptTask(
                    group: sequences.groups[index], tokens: prompt, text: "", dataSource: "", groundTruth: ""),
                response: responses[index], text: "", rolloutLogProbs: rollout?[index] ?? [], isTruncated: false,
                weightVersion: 0, weightDigest: "")
            trajectory.advantages = advantages?[index] ?? []
            trajectory.oldLogProbs = old?[index]
            trajectory.refLogProbs = ref?[index]
            trajectory.importanceWeights = weights?[index]
            trajectory.responseMask = mask?[index].map { $0 != 0 }
            trajectory.values = values?[index]
            trajectory.returns = returns?[index]
            return trajectory
        }
    }
}

extension TrainingRows.Sequences {
    init(_ trajectories: [Trajectory]) {
        groups = trajectories.map(\.prompt.group)
        prompts = PackedRows(trajectories.map(\.prompt.tokens))
        responses = PackedRows(trajectories.map(\.response))
    }
}

extension RowColumn {
    /// nil where a trajectory is without.
    func rows(of trajectories: [Trajectory]) -> [[Float]]? {
        switch self {
        case .rolloutLogProbs: trajectories.map(\.rolloutLogProbs)
        case .advantages: trajectories.map(\.advantages)
        case .oldLogProbs: Self.all(trajectories.map(\.oldLogProbs))
        case .refLogProbs: Self.all(trajectories.map(\.refLogProbs))
        case .importanceWeights: Self.all(trajectories.map(\.importanceWeights))
        case .values: Self.all(trajectories.map(\.values))
        case .returns: Self.all(trajectories.map(\.returns))
        case .responseMask: nil
        }
    }

    private static func all(_ rows: [[Float]?]) -> [[Float]]? {
        let present = rows.compactMap { $0 }
        return present.count == rows.count && !rows.isEmpty ? present : nil
    }
}
