import Config
import TensorCore

extension ModelSettings {
    /// What these settings ask for and the device has no use for, or does far slower than it could.
    /// - Parameter samples: whether answers are drawn.
    func notes(on device: Device, samples: Bool) -> [String] {
        var notes: [String] = []
        if activationOffload, device == .cpu {
            notes.append(
                "model.activation_offload has no effect on the CPU: activations are in the host's memory already")
        }
        if dtype == .float32, device.isCUDA, samples {
            notes.append(
                "model.dtype is float32: a GPU takes several times as long for a pass as in bfloat16, and more than ten times to sample; "
                    + "set model.dtype: bfloat16 (the optimizer's masters stay float32)")
        }
        return notes
    }
}
