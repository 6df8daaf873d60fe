public import Models

/// A model's parameters in the groups that are brought together and reduced at once: each layer's, and the rest.
public struct ParameterUnits {
    /// Embedding, final norm and head: needed at both ends of a pass.
    public let root: [Parameter]
    /// One for each layer of this process's model, in the order in which they run.
    public let layers: [[Parameter]]

    public init(_ parameters: [Parameter]) {
        var root: [Parameter] = [], layers: [Int: [Parameter]] = [:]
        for parameter in parameters {
            if let layer = Self.layer(of: parameter.name) {
                layers[layer, default: []].append(parameter)
            } else {
                root.append(parameter)
            }
        }
        self.root = root
        self.layers = layers.sorted { $0.key < $1.key }.map(\.value)
    }

    /// The number in `model.layers.N.…`.
    static func layer(of name: String) -> Int? {
        let parts = name.split(separator: ".", maxSplits: 3)
        guard parts.count == 4, parts[0] == "model", parts[1] == "layers" else { return nil }
        return Int(parts[2])
    }
}
