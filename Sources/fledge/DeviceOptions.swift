import ArgumentParser
import TensorCore
import Workers

/// What a command computes on, and in which type.
struct DeviceOptions: ParsableArguments {
    @Option(help: "auto, cpu, cuda or cuda:N.")
    var device = "auto"

    @Option(help: "float32 or bfloat16; by default float32 on the CPU and bfloat16 on CUDA.")
    var dtype: String?

    func validate() throws {
        _ = try Self.choice(device)
        _ = try asked
    }

    static func choice(_ name: String) throws -> DeviceChoice {
        guard let choice = DeviceChoice(name) else {
            throw ValidationError("--device '\(name)' is not auto, cpu, cuda or cuda:N")
        }
        return choice
    }

    private var asked: DType? {
        get throws {
            switch dtype {
            case nil: nil
            case "float32"?: .float32
            case "bfloat16"?: .bfloat16
            case let other?: throw ValidationError("--dtype '\(other)' is not float32 or bfloat16")
            }
        }
    }

    func open() throws -> (device: Device, dtype: DType) {
        let device = try Self.choice(device).open()
        return (device, try dtype(on: device))
    }

    func dtype(on device: Device) throws -> DType { try asked ?? (device.isCUDA ? .bfloat16 : .float32) }
}
