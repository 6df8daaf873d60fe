import Models
import TensorCore
import TrainingEngine

/// What training's passes take besides what stays.
struct TrainingBytes {
    let share: DeviceShare
    let tokens, microBatches: Int
    private let kept, transient, last, logits: Int
    private(set) var hostActivations = 0

    init(_ share: DeviceShare, tokens: Int, microBatches: Int, isCUDA: Bool) {
        self.share = share
        self.tokens = tokens
        self.microBatches = microBatches
        let model = share.model, work = share.work, split = share.layout.tp
        let stages = share.layout.pp, mine = (model.layers + stages - 1) / stages
        let answers = min(
            tokens,
            max(
                1,
                tokens * work.responseTokens
                    / max(1, work.responseTokens + work.promptTokens / max(1, work.sharesPrefix ? work.samples : 1))))
        let passes = PassBytes(
            model.layer, vocabulary: model.vocabulary, dtype: work.dtype, checkpointing: work.checkpointing,
            tokens: tokens,
            answers: answers, isCUDA: isCUDA)
        // A pipeline's first stage has as many micro-batches under way as there are stages.
        var all = (0..<mine).reduce(0) { $0 &+ passes.kept(layer: $1) / split } * stages
        if work.offloadsActivations, isCUDA, work.checkpointing != .none {
            let stays = (0..<min(2, mine)).reduce(0) { $0 &+ passes.kept(layer: $1) / split }
            hostActivations = max(0, all - stays)
            all = min(all, stays)
        }
        kept = all
        last = passes.last
        transient = passes.transient / split
        logits = passes.logits / split
    }

    /// Forward alone: one layer at a time.
    var scoring: [(MemoryForecast.Kind, Int)] {
        [(.gathered, share.gathered), (.layer, transient), (.activations, last), (.logits, logits)]
    }

    /// A critic's backward, with all activations and all gradients.
    var updateOfCritic: [(MemoryForecast.Kind, Int)] {
        let flight = share.flight(microBatches: microBatches)
        let inFlight =
            share.layout.devices > 1
            ? max(flight.layers, flight.end) : share.gradientWidth != share.width ? share.largestGradient : 0
        return [
            (.gathered, share.gathered), (.gradients, share.criticGradients), (.gradientInFlight, inFlight),
            (.activations, kept + last), (.layer, transient),
        ]
    }

    /// Backward begins with all activations and ends with all gradients; with gradients of an earlier micro-batch it has both.
    var update: [(MemoryForecast.Kind, Int)] {
        if share.layout.devices > 1 { return updateOfSeveral }
        let gradients = share.gradients
        // Products add to gradients where they lie, unless these are summed in another type; the embedding's is made whole first, at
        // the very end.
        let isApart = share.gradientWidth != share.width
        let flight = isApart ? share.largestGradient : 0
        let lastFlight = isApart || microBatches > 1 ? share.largestGradient : 0
        let head = share.model.tensors.first { $0.part == (share.model.isTied ? .embedding : .head) }
        let headGradient = share.model.usesAdapter ? 0 : (head?.count ?? 0) / share.layout.tp * share.gradientWidth
        let first: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, microBatches > 1 ? gradients : min(gradients, headGradient)),
            (.gradientInFlight, flight), (.activations, kept + last), (.logits, logits),
        ]
        let early: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, microBatches > 1 ? gradients : min(gradients, headGradient)),
            (.gradientInFlight, flight), (.activations, kept + last), (.layer, transient),
        ]
        let late: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, gradients), (.gradientInFlight, flight),
            (.activations, kept / max(1, share.model.layers)), (.layer, transient),
        ]
        let embedding: [(MemoryForecast.Kind, Int)] = [
            (.gathered, share.gathered), (.gradients, gradients), (.gradientInFlight, lastFlight),
            (.activations, kept / max(1, share.model.layers)),
        ]
        return Self.worst([first, early, late, embedding])
    }

    /// The same of one of several devices: at the head, in the last layer, in the first, and where the root's gradients travel.
    private var updateOfSeveral: [(MemoryForecast.Kind, Int)] {
        let flight = share.flight(microBatches: microBatches), layers = flight.head + flight.layers
        let before = microBatches > 1 ? share.gradients : 0, all = share.gradients,
            oneLayer = kept / max(1, share.model.layers)
        return Self.worst([
            [
                (.gathered, share.gathered), (.gradients, before), (.gradientInFlight, flight.head),
                (.activations, kept + last), (.logits, logits),
            ],
            [
                (.gathered, share.gathered), (.gradients, before), (.gradientInFlight, layers),
                (.activations, kept + last), (.layer, transient),
            ],
            [
                (.gathered, share.gathered), (.gradients, all), (.gradientInFlight, layers), (.activations, oneLayer),
                (.layer, transient),
            ],
            [(.gathered, share.gatheredAtEnd), (.gradients, all), (.gradientInFlight, flight.end)],
        ])
    }

    private static func worst(_ moments: [[(MemoryForecast.Kind, Int)]]) -> [(MemoryForecast.Kind, Int)] {
        moments.max { a, b in a.reduce(0) { $0 &+ $1.1 } < b.reduce(0) { $0 &+ $1.1 } } ?? []
    }

    func step(offloaded: Bool) -> [(MemoryForecast.Kind, Int)] {
        let settings = share.work.optimizer, element = 1 << 24
        let bytes =
            (settings.offloadsMasters && share.masters > 0 ? 4 : 0)
            + (settings.offloadsMoments ? 2 * settings.moments.bytes(element) / element : 0)
        let loads = min(3, (share.trainedCount + element - 1) / element)
        return [
            (.gradients, share.gradients), (.slabs, offloaded ? loads * min(element, share.trainedCount) * bytes : 0),
        ]
    }
}
