internal import CTorch

/// What libtorch, or the shim in front of it, refused to do.
public struct TorchError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// An op failed; the message is torch's own.
        public static let operation = Code("operation")
        /// Device memory ran out.
        public static let outOfMemory = Code("outOfMemory")
        /// The device asked for is not on this machine, or its library could not be opened.
        public static let device = Code("device")
        /// A tensor's type or shape is not what the call needs.
        public static let mismatch = Code("mismatch")
        /// Another rank is late, dead or has failed; the message names it.
        public static let rank = Code("rank")
    }

    public let code: Code
    /// The op, as called.
    public let operation: String
    /// torch's message.
    public let message: String
    /// Shapes and types of the tensors that went in.
    public let operands: [String]

    public init(code: Code, operation: String, message: String, operands: [String] = []) {
        self.code = code
        self.operation = operation
        self.message = message
        self.operands = operands
    }

    public var description: String {
        // It names its own operation.
        if code == .rank { return message }
        let tensors = operands.isEmpty ? "" : " on " + operands.joined(separator: ", ")
        return "\(operation)\(tensors): \(message)"
    }
}

/// Runs a shim call that gives back nothing but a status.
func check(
    _ operation: @autoclosure () -> String, _ operands: [Tensor] = [],
    _ call: (UnsafeMutablePointer<ct_message?>) -> Int32
) throws(TorchError) {
    var message: ct_message?
    if call(&message) == 0 { return }
    throw failure(operation(), operands, message)
}

/// Runs a shim call that gives back one tensor.
func tensor(
    _ operation: @autoclosure () -> String, _ operands: [Tensor] = [],
    _ call: (UnsafeMutablePointer<ct_tensor?>, UnsafeMutablePointer<ct_message?>) -> Int32
) throws(TorchError) -> Tensor {
    var result: ct_tensor?
    var message: ct_message?
    if call(&result, &message) == 0, let result { return Tensor(owning: result) }
    throw failure(operation(), operands, message)
}

private func failure(_ operation: String, _ operands: [Tensor], _ message: ct_message?) -> TorchError {
    let text = message.map { String(cString: $0) } ?? "failed without a message"
    message.map { ct_string_free($0) }
    // As the watch over the other ranks marks what it found.
    let mark = "[rank] "
    if let range = text.firstRange(of: mark) {
        return TorchError(code: .rank, operation: operation, message: String(text[range.upperBound...]))
    }
    let isMemory = text.contains("out of memory") || text.contains("DefaultCPUAllocator: can't allocate")
    return TorchError(
        code: isMemory ? .outOfMemory : .operation, operation: operation, message: text,
        operands: operands.map(\.summary))
}
