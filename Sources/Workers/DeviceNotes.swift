import Config
import TensorCore

extension ModelSettings {
    /// What these settings ask for and the device has no use for, or does far slower than it could.
    func notes(on device: Device) -> [String] {
        var notes: [String] = []
        if activationOffload, device == .cpu {
            notes.append(
                "model.activation_offload has no effect on the CPU: activations are in the host's memory already")
        }
        if dtype == .float32, device.isCUDA {
            notes.append(
                "model.dtype is float32: on a GPU attention goes sequence by sequence then, short ones tens of times slower than in bfloat16; "
                    + "set model.dtype: bfloat16 (the optimizer's masters stay float32)")
        }
        return notes
    }
}
