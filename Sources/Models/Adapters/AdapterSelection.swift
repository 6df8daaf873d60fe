import TensorCore

/// Which parts of a model's projections an adapter is for.
struct AdapterSelection {
    let targets: [(projection: Projection, parts: [Parameter.Part])]
    let leftOut: [String]

    /// - Parameter isLenient: lets names pass that mean nothing in `model`, as PEFT does.
    /// - Throws: ``ModelError`` with code `adapter` when a name of the settings means nothing in `model`.
    init(_ settings: LoRASettings, model: some SequenceModel, isLenient: Bool = false) throws(ModelError) {
        try settings.check()
        let linear = model.projections.filter { $0 !== model.headProjection }
        let all = linear.flatMap { $0.parts.map(\.module) }
        let others = Self.others(model, besides: linear)
        if case .modules(let names) = settings.targets, !isLenient {
            for name in names where !all.contains(where: { LoRASettings.matches($0, name) }) {
                throw Self.unknown(name, all, others)
            }
        }
        for name in settings.excluded where !isLenient && !all.contains(where: { LoRASettings.matches($0, name) }) {
            throw ModelError(
                .adapter, "LoRA: excluded module '\(name)' is no linear layer of this model; " + Self.known(all))
        }
        targets = linear.compactMap { projection in
            let parts = projection.parts.filter { settings.targets($0.module) && !settings.excludes($0.module) }
            return parts.isEmpty ? nil : (projection, parts)
        }
        guard !targets.isEmpty else {
            throw ModelError(.adapter, "LoRA: no layer is left to adapt: the excluded modules cover all targets")
        }
        let experts = others.filter { Self.isExpert($0) && settings.targets($0) && !settings.excludes($0) }
        leftOut =
            experts.isEmpty
            ? []
            : [
                "\(experts.count) weights of experts (\(experts[0]) …) get no adapter: experts are computed by grouped products, "
                    + "which adapters do not reach; attention and shared layers are adapted"
            ]
    }

    /// Modules whose weights are no projection: embeddings, the head, norms, experts.
    private static func others(_ model: some SequenceModel, besides linear: [Projection]) -> [String] {
        let names = model.parameters.flatMap { parameter in
            linear.contains { $0.weight.isSame(as: parameter.tensor) } ? [] : parameter.parts.map(\.module)
        }
        return names
    }

    private static func isExpert(_ module: String) -> Bool {
        module.split(separator: ".").contains { $0 == "experts" }
    }

    private static func unknown(_ name: String, _ all: [String], _ others: [String]) -> ModelError {
        guard let other = others.first(where: { LoRASettings.matches($0, name) }) else {
            return ModelError(.adapter, "LoRA: target module '\(name)' is not in this model; " + known(all))
        }
        let reason =
            isExpert(other)
            ? "the weights of experts are computed by grouped products, which adapters do not reach"
            : "only the linear layers inside the decoder can be adapted, not embeddings, norms or the output head"
        return ModelError(.adapter, "LoRA: target module '\(name)' (\(other)): \(reason); " + known(all))
    }

    private static func known(_ modules: [String]) -> String {
        let ends = Set(modules.map { String($0.split(separator: ".").last ?? "") })
        return "its linear layers are " + ends.sorted().joined(separator: ", ")
    }
}

extension Projection {
    /// Which rows are which tensor of the checkpoint.
    var parts: [Parameter.Part] { parameter?.parts ?? [] }
}

extension Parameter {
    /// The module that the tensor belongs to.
    var module: String { name.hasSuffix(".weight") ? String(name.dropLast(7)) : name }
}

extension Parameter.Part {
    /// The module that the tensor belongs to.
    var module: String { name.hasSuffix(".weight") ? String(name.dropLast(7)) : name }
}
