import Models
import TensorCore

/// What a model's passes over one micro-batch take besides weights and gradients, in bytes: the one account of it, of plans and of
/// inspections.
struct PassBytes {
    private let layer: ActivationBytes.Layer
    private let dtype: DType
    private let checkpointing: ActivationCheckpointing
    private let tokens: Int
    /// The final norm's input and result.
    let last: Int
    /// The one layer that backward is in, where it is run again.
    let transient: Int
    /// The chunk of logits that the head works on, and what belongs to it.
    let logits: Int

    /// - Parameter answers: tokens that are scored.
    init(
        _ layer: ActivationBytes.Layer, vocabulary: Int, dtype: DType, checkpointing: ActivationCheckpointing,
        tokens: Int,
        answers: Int, isCUDA: Bool
    ) {
        self.layer = layer
        self.dtype = dtype
        self.checkpointing = checkpointing
        self.tokens = tokens
        let width = dtype.size
        last = 2 * tokens * layer.hidden * width
        let again = ActivationBytes.transient(layer, dtype: dtype)
        let whole = ActivationBytes(layer, dtype: dtype, mode: .none).total
        transient = (checkpointing.mode(layer: 0) == .none ? again - whole : again) * tokens

        let most = (5 << 28) / (max(1, vocabulary) * width) / 256 * 256
        let chunk = isCUDA ? min(max(most, 256), 8192) : 256
        let parts = (answers + chunk - 1) / chunk, rows = (answers + max(1, parts) - 1) / max(1, parts)
        let hidden = 2 * answers * layer.hidden * width
        logits = rows * ((vocabulary + 7) / 8 * 8) * (isCUDA ? width : 2 * width) + hidden + 12 * answers
    }

    /// What a layer keeps until backward comes to it.
    func kept(layer index: Int) -> Int {
        ActivationBytes(layer, dtype: dtype, mode: checkpointing.mode(layer: index)).total * tokens
    }
}
