public import TensorCore

extension AdamW {
    /// Groups of states that leave the device together: masters, and moments once there are any.
    struct RestingStates {
        var groups: [RestingTensors] = []
        var hasMasters = false, hasMoments = false
        /// Whether ``AdamW/rest()`` was the last that was asked for.
        var isResting = false

        /// Where a state's values are now.
        func current(_ tensor: Tensor) -> Tensor {
            for group in groups {
                let found = group.current(tensor)
                if !found.isSame(as: tensor) { return found }
            }
            return tensor
        }
    }

    /// Whether the states on the device are in host memory; the next step, and whatever writes to them, brings them back.
    public var isResting: Bool { resting.isResting }

    /// What resting gives back of the device's memory, as far as states are made.
    public var restingBytes: Int { resting.groups.reduce(0) { $0 + $1.byteCount } }

    /// What coming and going has taken so far.
    public var restingTraffic: RestingTraffic { resting.groups.reduce(.init()) { $0 + $1.traffic } }

    /// Gives the memory of the states on the device back, which lie in the host's memory until ``wake()``; those that settings keep in
    /// pinned host memory stay there. Waits for a step that is under way.
    public func rest() throws(TorchError) {
        try settle()
        func isHere(_ tensor: Tensor) -> Bool { tensor.device == device }
        if !resting.hasMasters {
            resting.hasMasters = true
            resting.groups.append(RestingTensors(masters.compactMap { $0 }.filter(isHere)))
        }
        if !resting.hasMoments, let moments {
            resting.hasMoments = true
            resting.groups.append(
                RestingTensors(
                    (moments.first + moments.second).flatMap { [$0.values] + ($0.scales.map { [$0] } ?? []) }
                        .filter(isHere)))
        }
        for group in resting.groups { try group.rest() }
        resting.isResting = true
    }

    /// Brings the states back. Does nothing while they are there.
    public func wake() throws(TorchError) {
        guard isResting else { return }
        for group in resting.groups { try group.wake() }
        resting.isResting = false
    }

    /// Runs `body`, which writes to the states, with these on the device; where they rested they rest again.
    func changing<Result>(_ body: () throws -> Result) throws -> Result {
        let wasResting = isResting
        try wake()
        for group in resting.groups { group.change() }
        let result = try body()
        if wasResting { try rest() }
        return result
    }

    /// The moments and masters to read from, wherever they are; makes the moments where there are none.
    func currentStates() throws(TorchError) -> (masters: [Tensor?], moments: Moments) {
        if moments == nil {
            let wasResting = isResting
            _ = try awakeMoments()
            if wasResting { try rest() }
        }
        guard var read = moments else { preconditionFailure("moments that were made") }
        read.first = read.first.map { $0.placed(resting.current) }
        read.second = read.second.map { $0.placed(resting.current) }
        for parameter in parameters where parameter.weight.count > 0 && parameter.weight.storageByteCount == 0 {
            throw TorchError(
                code: .operation, operation: "AdamW states",
                message: "the weights of '\(parameter.name)' rest in host memory; bring them to the device first")
        }
        return (masters.map { $0.map(resting.current) }, read)
    }
}
