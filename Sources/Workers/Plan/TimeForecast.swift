import Models
import TensorCore
import TrainingEngine

/// Seconds of a step by phase, from operations and bytes, and from shares of a device's rates that are reached.
public struct TimeForecast: Sendable, Hashable {
    /// What of the rates is reached: assumed, unless measured.
    public struct Shares: Sendable, Hashable {
        /// Of the peak, by training's passes and by log-probabilities; of the least time, by generation; of the bandwidth, by
        /// the optimizer.
        public var training = 0.55, scoring = 0.6, generation = 0.6, memory = 0.8
        /// Rows of a micro-batch at which products reach half of that.
        public var halfRateRows = 256.0
        /// Bytes a second between host and device.
        public var hostLink = 25e9
        /// Bytes a second of the same link where whole roles come and go, with nothing beside: 47 to 55e9 on H200s.
        public var restingLink = 50e9
        /// Seconds of a small operation between devices.
        public var message = 15e-6
        public init() {}
    }

    public private(set) var phases: [(name: String, seconds: Double)] = []
    public var total: Double { phases.reduce(0) { $0 + $1.seconds } }

    public static func == (a: Self, b: Self) -> Bool { a.phases.map(\.seconds) == b.phases.map(\.seconds) }
    public func hash(into hasher: inout Hasher) { hasher.combine(total) }

    init(
        _ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice, memory: MemoryForecast,
        shares: Shares = Shares()
    ) {
        let devices = Double(layout.devices), products = Double(model.productWeights)
        let head = Double(model.vocabulary * model.hidden), tokens = Double(work.batchTokens) * Double(work.epochs)
        let width = Double(work.promptTokens + work.responseTokens)
        // Causal: half of the square, two products; as if each sequence had its own prompt.
        let attention =
            2 * Double(model.layers * model.queryHeads * model.headDim) * width * width
            * Double(work.sequences * work.epochs)
        let forward = 2 * products * tokens + attention
        let again: Double =
            switch work.checkpointing.mode(layer: 0) {
            case .none: 0
            case .selective: 0.6
            case .full: 1
            }
        if work.generates {
            phases.append(("generate", Self.generation(model, work, layout, device: device, shares: shares)))
        }
        let scorings =
            (work.recomputesLogProbs ? 1 : 0) + (work.needsReference ? 1 : 0) + (work.trainsCritic ? 1 : 0)
        if scorings > 0 {
            let seconds = forward / Double(work.epochs) / (devices * device.peak * shares.scoring)
            phases.append(("log-prob", Double(scorings) * seconds))
        }
        // What rests comes before its turn and goes after it; nothing else runs meanwhile.
        if memory.restingTraffic > 0 {
            phases.append(("turns", Double(memory.restingTraffic) / shares.restingLink))
        }
        guard work.learns else { return }
        let operations = 3 * forward + again * (forward - 2 * head * tokens) + 2 * head * tokens
        let share = DeviceShare(model, work, layout), micros = Double(memory.microBatches * work.optimizerSteps)
        // Each micro-batch reads the weights anew and adds to all gradients, and products of few rows stay below the rate.
        let rows = Double(memory.microTokens), fullness = rows / (rows + shares.halfRateRows)
        let gathering =
            micros * Double(3 * share.whole + 2 * share.gradients)
            / (device.bandwidth * shares.memory)
        // Stages wait for the first micro-batch to come, and after the last one.
        let stages = Double(memory.microBatches + layout.pp - 1) / Double(memory.microBatches)
        let compute = (operations / (devices * device.peak * shares.training * fullness) + gathering) * stages
        let traffic = Self.traffic(share, microBatches: memory.microBatches)
        // Gathers run beside products, tensor parallelism's sums between them.
        let update = max(compute, traffic.hidden / device.link) + traffic.exposed / device.link
        if work.trainsCritic { phases.append(("update critic", update)) }
        phases.append(("update", update))
        let touched = 2 * (share.masters + share.moments + share.weights) + 2 * share.gradients
        let streamed = Double(memory.hostBytes) / shares.hostLink
        phases.append(
            (
                "optimizer step",
                Double(work.optimizerSteps) * max(Double(touched) / (device.bandwidth * shares.memory), streamed)
            ))
        if layout.devices > 1, work.generates {
            phases.append(("weight sync", Double(share.rolloutCopy) / device.link))
        }
    }

    /// Seconds in which a layout's devices draw all answers of a step.
    static func generation(
        _ model: PlanModel, _ work: PlanWork, _ layout: PlanLayout, device: PlanDevice, shares: Shares = Shares()
    ) -> Double {
        let groups = max(1, layout.devices / layout.rollout), tp = Double(layout.rollout)
        var sizes = model.decoder
        (sizes.bytesPerElement, sizes.cacheBytesPerElement) = (work.dtype.size, work.dtype.size)
        let limit = RolloutLimit(
            RolloutCase(
                prompts: (work.prompts + groups - 1) / groups, input: work.promptTokens, output: work.responseTokens
            ),
            samples: work.samples, maxRows: work.engine.maxRows, sizes: sizes,
            machine: MachineSpeed(bandwidth: device.bandwidth * tp, peak: device.peak * tp))
        // Each token of a row waits for two sums a layer.
        let rows = (work.prompts + groups - 1) / groups * work.samples, most = max(1, work.engine.maxRows)
        let steps = Double(work.responseTokens * ((rows + most - 1) / most))
        let waiting = tp > 1 ? steps * Double(2 * model.layers) * shares.message : 0
        return limit.seconds / shares.generation + waiting
    }

    /// Bytes that one device sends in a step, those that run beside products and those that do not.
    private static func traffic(_ share: DeviceShare, microBatches: Int) -> (hidden: Double, exposed: Double) {
        let layout = share.layout, work = share.work, model = share.model, tp = Double(layout.tp)
        let steps = Double(work.optimizerSteps), micros = steps * Double(microBatches)
        func ring(_ ranks: Int) -> Double { Double(ranks - 1) / Double(ranks) }
        let reduce = Double(work.reduceDType.size), trained = Double(share.trainedCount)
        // Weights come together for forward and again for backward, or once a mini-batch; gradients go out after each backward.
        let gathers = layout.sharding == .gradOp ? steps : 2 * micros
        let hidden =
            ring(layout.shards)
            * (gathers * Double(share.whole) + micros * trained * Double(layout.shards) * reduce)
        // Ranks with the same rows add up once a mini-batch, after the last layer.
        let sums = steps * 2 * ring(layout.copies) * trained * reduce
        let width = Double(work.dtype.size)
        let stream =
            Double(work.batchTokens * work.epochs) / Double(layout.dataRanks * layout.sp) * Double(model.hidden) * width
        let tensorParallel = tp > 1 ? 8 * stream * (tp - 1) / tp * Double(model.layers) : 0
        let sequence = layout.sp > 1 ? 8 * stream / Double(layout.sp) * Double(model.layers) : 0
        return (hidden, sums + tensorParallel + sequence)
    }
}
