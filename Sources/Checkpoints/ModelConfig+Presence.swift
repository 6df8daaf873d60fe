internal import OrderedCollections

extension ModelConfig {
    /// Whether the key is there at all, null included: `transformers` takes a class's default only for a key that is not.
    public func names(_ key: String) -> Bool { object[key] != nil }
}
