internal import OrderedCollections

extension ModelConfig {
    /// Whether the key is there at all, null included: `transformers` takes a class's default only for a key that is not.
    public func names(_ key: String) -> Bool { object[key] != nil }

    /// How many numbers a classification head gives: the entries of `id2label`, else `num_labels`, else `transformers`' 2.
    ///
    /// - Throws: `CheckpointError.configuration` for a wrong type or a count below 1.
    public func labelCount() throws -> Int {
        let count = try nested("id2label")?.object.count ?? int("num_labels", default: 2)
        guard count >= 1, count <= 1 << 20 else {
            throw CheckpointError(.configuration, path, "'id2label' or 'num_labels' asks for \(count) labels")
        }
        return count
    }

    /// This configuration for another head: `architectures`, and as many labels as the head has rows.
    /// - Parameter padID: the `pad_token_id`, by which `transformers` finds a sequence's last token; nil to leave it as it is.
    public func withHead(architecture: String, labels: Int, padID: Int? = nil) -> ModelConfig {
        var config = self
        if let padID { config.object["pad_token_id"] = .int(padID) }
        config.object["architectures"] = .array([.string(architecture)])
        var names: JSONObject = [:], ids: JSONObject = [:]
        for index in 0..<labels {
            names["\(index)"] = .string("LABEL_\(index)")
            ids["LABEL_\(index)"] = .int(index)
        }
        config.object["id2label"] = .object(names)
        config.object["label2id"] = .object(ids)
        return config
    }
}
