public import TensorCore

/// What hears of a forward pass's way through a decoder. Who spreads the weights over ranks brings a layer's together before it runs.
///
/// What a hook returns goes on in the place of `x` `[T, C]`: the same values, with what it wants autograd to remember.
public protocol LayerHooks: AnyObject {
    /// Before the embedding is read.
    func willBegin() throws
    /// - Parameter layer: counts the layers of this process's model from 0.
    func willRun(layer: Int, _ x: Tensor) throws -> Tensor
    /// After the layer's output is complete. A layer whose activations are not kept runs again in backward without hooks.
    func didRun(layer: Int, _ x: Tensor) throws -> Tensor
}
