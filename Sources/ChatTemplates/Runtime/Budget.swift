import OrderedCollections

/// Counting against ``TemplateLimits``.
enum Budget {
    static func tooLong(_ limits: TemplateLimits) -> TemplateError {
        TemplateError(.limit, "the template makes more than the limit of \(limits.outputBytes) bytes of text")
    }
}

extension Interpreter {
    func step(_ count: Int = 1) throws {
        guard count <= stepsLeft else {
            stepsLeft = 0
            throw TemplateError(.limit, "the template runs longer than the limit of \(limits.steps) steps")
        }
        stepsLeft -= count
    }

    func enter() throws {
        depth += 1
        if depth > limits.recursionDepth {
            depth -= 1
            throw TemplateError(.limit, "the template recurses deeper than the limit of \(limits.recursionDepth)")
        }
    }

    func leave() { depth -= 1 }

    /// To be called before a string of so many bytes is made.
    func allocate(_ bytes: Int) throws {
        if bytes > limits.outputBytes { throw Budget.tooLong(limits) }
        bytesLeft -= bytes
        if bytesLeft < 0 {
            throw TemplateError(
                .limit, "the template makes more than the limit of \(limits.allocatedBytes) bytes of values")
        }
    }

    /// To be called before `count` pieces of `bytes` each are joined.
    func allocate(_ count: Int, times bytes: Int) throws {
        let (product, overflow) = max(count, 0).multipliedReportingOverflow(by: bytes)
        try allocate(overflow ? .max : product)
    }

    // MARK: Work on what is there already

    /// Bytes of text that count as one step when an operation goes over them all.
    private static var bytesPerStep: Int { 64 }

    /// To be called before an operation that goes over a string, or over a list's elements but not into them.
    func charge(_ value: Value) throws {
        switch value {
        case .string(let text), .markup(let text): try step(text.utf8.count / Interpreter.bytesPerStep)
        case .list(let elements), .tuple(let elements): try step(elements.items.count / 16)
        case .dictionary(let mapping): try step(mapping.entries.count / 16)
        default: break
        }
    }

    /// To be called before an operation on `value` that may look for a string or a value in it.
    func charge(_ value: Value, with arguments: Arguments) throws {
        try charge(value)
        for argument in arguments.positional { try charge(argument) }
        if let part = arguments.positional.first?.text { try chargeSearch(for: part, in: value) }
    }

    /// To be called before `part` is looked for in a string: each place may match nearly all of it.
    func chargeSearch(for part: String, in value: Value) throws {
        guard let text = value.text else { return }
        let (product, overflow) = text.utf8.count.multipliedReportingOverflow(by: part.utf8.count)
        try step(overflow ? limits.steps : product / 1024)
    }

    /// To be called before `value` is compared with each of so many others.
    func chargeSearch(for value: Value, among count: Int) throws {
        let (product, overflow) = count.multipliedReportingOverflow(by: 1 + value.size)
        try step(overflow ? limits.steps : product)
    }

    /// To be called before values are compared or hashed whole. What stands in a value many times is gone over many times.
    func chargeWhole(_ value: Value) throws { try step(value.size) }

    func chargeComparison(_ left: Value, _ right: Value) throws { try step(min(left.size, right.size)) }

    func string(_ text: String) throws -> Value {
        try allocate(text.utf8.count)
        return .string(text)
    }

    private static var slotBytes: Int { 24 }

    func list(_ items: [Value]) throws -> Value { .list(try checked(items)) }
    func tuple(_ items: [Value]) throws -> Value { .tuple(try checked(items)) }

    /// To be called before a list of so many elements is made.
    func reserve(_ count: Int) throws {
        try step(count)
        try allocate(count, times: Interpreter.slotBytes)
    }

    private func checked(_ items: [Value]) throws -> Elements {
        try reserve(items.count)
        let elements = Elements(items)
        try check(depth: elements.depth)
        return elements
    }

    func check(depth: Int) throws {
        if depth > limits.recursionDepth {
            throw TemplateError(.limit, "values nest deeper than the limit of \(limits.recursionDepth)")
        }
    }

    /// The values that iterating gives; one-shot iterators are used up.
    func elements(of value: Value) throws -> [Value] {
        switch value {
        case .list(let elements), .tuple(let elements): return elements.items
        case .dictionary(let mapping): return mapping.entries.keys.map(\.value)
        case .view(let view):
            try reserve(view.mapping.entries.count)
            return view.values
        case .range(let range):
            try reserve(range.count)
            return range.values
        case .string(let text), .markup(let text):
            try reserve(text.utf8.count)
            return text.unicodeScalars.map { .string(String($0)) }
        case .iterator(let iterator): return try iterator.remaining()
        case .undefined: return []
        case .bytes(let bytes): return bytes.map { .int(Int($0)) }
        case .object(let object): if let elements = try object.elements() { return elements }
        default: break
        }
        throw TemplateError(.type, "'\(value.typeName)' object is not iterable")
    }
}
