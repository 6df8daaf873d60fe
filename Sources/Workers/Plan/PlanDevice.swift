public import Config
import Foundation
public import TensorCore

/// What a plan counts on: a device that is there, or one that is described.
public struct PlanDevice: Sendable, Hashable {
    public var name: String
    public var isCUDA: Bool
    /// All of its memory in bytes; of the CPU, the machine's.
    public var memory: Int
    /// Operations a second of large bfloat16 products at best, and bytes a second of a large copy, read and written together.
    public var peak, bandwidth: Double
    /// Bytes a second between two such devices, each way.
    public var link: Double
    /// What the driver, libraries and the process take besides tensors.
    public var contextBytes: Int

    /// By the beginning of what the driver calls them; makers' figures for peak and link, bandwidth as copies reach it.
    private static let known: [(name: String, memory: Double, peak: Double, bandwidth: Double, link: Double)] = [
        ("NVIDIA H200", 139.8, 989e12, 4.2e12, 450e9), ("NVIDIA H100", 79.1, 989e12, 2.9e12, 450e9),
        ("NVIDIA B200", 178.3, 2250e12, 6.8e12, 900e9), ("NVIDIA A100", 79.1, 312e12, 1.7e12, 300e9),
        ("NVIDIA L40S", 44.4, 362e12, 0.75e12, 25e9), ("NVIDIA GeForce RTX 4090", 23.5, 165e12, 0.9e12, 12e9),
    ]

    /// Devices by short name, as `h200`.
    public static let names = ["h200", "h100", "b200", "a100", "l40s", "4090", "cpu"]

    public init?(named word: String) {
        if word == "cpu" {
            self = .cpu
            return
        }
        guard Self.names.contains(word), let found = Self.known.first(where: { $0.name.lowercased().hasSuffix(word) })
        else { return nil }
        self.init(found)
    }

    private init(_ found: (name: String, memory: Double, peak: Double, bandwidth: Double, link: Double)) {
        (name, isCUDA, memory) = (found.name, true, Int(found.memory * 0x1p30))
        (peak, bandwidth, link) = (found.peak, found.bandwidth, found.link)
        contextBytes = 700 << 20
    }

    /// This machine's memory, at a laptop core's rates for each core.
    public static var cpu: PlanDevice {
        let cores = Double(ProcessInfo.processInfo.activeProcessorCount)
        var device = PlanDevice(("CPU", 0, cores * 50e9, 20e9, 5e9))
        (device.isCUDA, device.memory) = (false, Int(ProcessInfo.processInfo.physicalMemory))
        device.contextBytes = 300 << 20
        return device
    }

    /// The device as it is: its memory as the driver says, less what other processes hold of it.
    /// - Throws: `TorchError`.
    public init(_ device: Device) throws {
        guard device.isCUDA else {
            self = .cpu
            return
        }
        let name = try device.name(), memory = try device.memory()
        let found = Self.known.first { name.hasPrefix($0.name) } ?? (name, 0, 300e12, 1.5e12, 50e9)
        self.init(found)
        self.name = name
        // The driver's context of this process is in use already, and is counted on its own.
        self.memory = min(memory.total, memory.free + memory.reserved + contextBytes)
    }

    /// Where a configuration computes.
    /// - Throws: ``WorkerError`` `device` when that is not here.
    public init(_ setting: RunConfig.Device) throws { try self.init(DeviceChoice(setting).open()) }

    /// One of several ranks' part: each GPU has its own memory, processes on the CPU share the machine's and its cores.
    func shared(by ranks: Int) -> PlanDevice {
        guard !isCUDA, ranks > 1 else { return self }
        var part = self
        part.memory /= ranks
        part.peak /= Double(ranks)
        part.bandwidth /= Double(ranks)
        return part
    }

    /// Bytes as `141GB`, `80GiB`, `512MiB` or a plain number of bytes; nil for anything else.
    public static func bytes(_ text: String) -> Int? {
        let units: [(String, Double)] = [
            ("TiB", 0x1p40), ("GiB", 0x1p30), ("MiB", 0x1p20), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("B", 1),
            ("", 1),
        ]
        for (unit, factor) in units where text.hasSuffix(unit) {
            guard let number = Double(text.dropLast(unit.count)), number > 0, number * factor < 1e18 else { return nil }
            return Int(number * factor)
        }
        return nil
    }
}
