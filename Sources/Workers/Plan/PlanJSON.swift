public import Checkpoints
import OrderedCollections
import TensorCore

extension TrainingPlanner.Result {
    /// The plan for programs: bytes and seconds.
    /// - Parameter mapping: of roles to devices, where there are several.
    public func json(mapping: MappingPlanner.Result? = nil) -> JSONValue {
        .object([
            "model": .object([
                "name": .string(model.name), "parameters": .int(model.parameterCount),
                "trained_parameters": .int(model.trained.reduce(0) { $0 + $1.count }),
            ]),
            "device": .object([
                "name": .string(device.name), "memory_bytes": .int(device.memory), "peak_flops": .double(device.peak),
                "bandwidth_bytes_per_second": .double(device.bandwidth), "count": .int(asIs.layout.devices),
            ]),
            "verdict": .string(verdict.rawValue), "configured": asIs.json, "least": least.json,
            "chosen": chosen?.json ?? .null, "reason": reason.map(JSONValue.string) ?? .null,
            "rejected": .array(rejected.map { .object(["what": .string($0.what), "why": .string($0.why)]) }),
            "remedies": .array(remedies.map(JSONValue.string)), "mapping": mapping?.json ?? .null,
        ])
    }
}

extension MappingPlanner.Result {
    var json: JSONValue {
        .object([
            "chosen": chosen?.json ?? .null, "reason": reason.map(JSONValue.string) ?? .null,
            "rejected": .array(rejected.map { .object(["what": .string($0.what), "why": .string($0.why)]) }),
        ])
    }
}

extension PlanMapping {
    var json: JSONValue {
        let pools = pools.map { pool in
            JSONValue.object([
                "name": .string(pool.name), "roles": .array(pool.roles.map(JSONValue.string)),
                "devices": .int(pool.devices), "layout": .string(pool.layout.description),
                "peak_bytes": .int(pool.peak),
                "phase": .string(pool.phase), "busy_seconds": .double(pool.busy),
            ])
        }
        return .object([
            "pools": .array(pools), "overlap": .string(overlap.rawValue), "step_seconds": .double(seconds),
            "idle": .double(idle), "settings": .array(settings.map(JSONValue.string)),
        ])
    }
}

extension TrainingPlanner.Candidate {
    var json: JSONValue {
        .object([
            "layout": .object([
                "dp": .int(layout.dp), "fsdp": .int(layout.fsdp), "tp": .int(layout.tp), "sp": .int(layout.sp),
                "ep": .int(layout.ep), "pp": .int(layout.pp), "sharding": .string(layout.sharding.rawValue),
                "rollout": .int(layout.rollout),
            ]),
            "settings": .array(settings.map(JSONValue.string)),
            "activation_checkpointing": .string(mode), "micro_batch_tokens": .int(microBatchTokens),
            "memory": memory.json,
            "seconds": .object(
                JSONObject(
                    uniqueKeysWithValues: time.phases.map { ($0.name, .double($0.seconds)) } + [
                        ("step", .double(time.total))
                    ])),
        ])
    }
}

extension MemoryForecast {
    var json: JSONValue {
        let phases = phases.map { phase in
            JSONValue.object([
                "phase": .string(phase.name), "total_bytes": .int(phase.total), "tensor_bytes": .int(phase.tensors),
                "parts": .object(
                    JSONObject(phase.parts.map { ($0.kind.rawValue, .int($0.bytes)) }) {
                        .int(($0.intValue ?? 0) + ($1.intValue ?? 0))
                    }),
            ])
        }
        return .object([
            "peak_bytes": .int(peak), "peak_tensor_bytes": .int(peakTensors),
            "host_bytes": .int(hostBytes + restingBytes),
            "rests_reference": .bool(rests.reference), "rests_critic": .bool(rests.critic),
            "rests_actor_states": .bool(rests.states), "resting_bytes": .int(restingBytes),
            "resting_traffic_bytes": .int(restingTraffic), "keeps_cache": .bool(keepsCache),
            "phases": .array(phases),
        ])
    }
}
