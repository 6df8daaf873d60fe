import TensorCore
import Testing

@testable import Workers

@Suite struct TimeBreakdownTests {
    private typealias Span = DeviceTrace.Span

    @Test func everyNanosecondIsCountedOnce() {
        let trace = DeviceTrace(
            start: 1000, end: 1100,
            spans: [
                // 5 until it is launched, 5 more until it runs.
                Span(start: 1010, end: 1030, name: 2, launched: 1005),
                // Launched while the one before it ran.
                Span(start: 1035, end: 1040, name: 3, launched: 1020),
                Span(start: 1060, end: 1080, name: 4, launched: 1055),
                // Half of it beside the one before it.
                Span(start: 1070, end: 1090, name: 2, launched: 1061),
            ],
            names: [DeviceTrace.copyName, DeviceTrace.fillName, "nvjet_tst_128x64", "rotary_store", "paged_decode"])
        let breakdown = TimeBreakdown(trace)
        func nanoseconds(_ category: TimeBreakdown.Category) -> Double {
            ((breakdown.seconds[category] ?? 0) * 1e9).rounded()
        }
        #expect(nanoseconds(.gemm) == 30)
        #expect(nanoseconds(.other) == 5)
        #expect(nanoseconds(.attention) == 20)
        #expect(nanoseconds(.host) == 5 + 15 + 10)
        #expect(nanoseconds(.gaps) == 5 + 5 + 5)
        #expect(nanoseconds(.copies) == 0)
        #expect(TimeBreakdown.Category.allCases.reduce(0) { $0 + nanoseconds($1) } == 100)
        #expect(abs(breakdown.share(.gemm) - 0.3) < 1e-9)
        #expect(breakdown.kernels.map(\.name) == ["nvjet_tst_128x64", "paged_decode", "rotary_store"])
        #expect(breakdown.kernels[0].count == 2 && abs(breakdown.kernels[0].meanSeconds - 20e-9) < 1e-15)
    }

    /// What links take beside kernels costs nothing, whichever began first.
    @Test func onlyLinksThatRunAloneCount() {
        let trace = DeviceTrace(
            start: 0, end: 100,
            spans: [
                Span(start: 10, end: 40, name: 2, launched: 2), Span(start: 15, end: 25, name: 3, launched: 12),
                // From another stream, over the end of the one before.
                Span(start: 35, end: 50, name: 2, launched: 20), Span(start: 60, end: 80, name: 3, launched: 40),
                Span(start: 70, end: 90, name: 2, launched: 61),
            ],
            names: [
                DeviceTrace.copyName, DeviceTrace.fillName, "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgs)",
                "nvjet_tst_128x64",
            ])
        let breakdown = TimeBreakdown(trace)
        func nanoseconds(_ category: TimeBreakdown.Category) -> Double {
            ((breakdown.seconds[category] ?? 0) * 1e9).rounded()
        }
        #expect(nanoseconds(.gemm) == 30)
        #expect(nanoseconds(.communication) == 5 + 25 + 10)
        // Until 10, from 50 to 60 and from 90.
        #expect(nanoseconds(.host) + nanoseconds(.gaps) == 30)
        #expect(TimeBreakdown.Category.allCases.reduce(0) { $0 + nanoseconds($1) } == 100)
        #expect(breakdown.kernels[0].category == .communication && breakdown.kernels[0].count == 3)
    }

    @Test func whatLiesOutsideIsCutOff() {
        let trace = DeviceTrace(
            start: 100, end: 200,
            spans: [
                Span(start: 10, end: 50, name: 2, launched: 5), Span(start: 90, end: 110, name: 2, launched: 80),
                Span(start: 190, end: 250, name: 2, launched: nil), Span(start: 210, end: 220, name: 2, launched: 205),
            ], names: [DeviceTrace.copyName, DeviceTrace.fillName, "kernel"])
        let breakdown = TimeBreakdown(trace)
        #expect(abs((breakdown.seconds[.other] ?? 0) - 20e-9) < 1e-15)
        // Nothing is known of its launch.
        #expect(abs((breakdown.seconds[.gaps] ?? 0) - 80e-9) < 1e-15)
        #expect(breakdown.kernels[0].count == 2)
    }

    @Test func nothingRanAtAll() {
        let breakdown = TimeBreakdown(DeviceTrace(start: 0, end: 50, spans: [], names: []))
        #expect(breakdown.share(.host) == 1 && breakdown.kernels.isEmpty)
    }

    @Test(arguments: [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", TimeBreakdown.Category.gemm),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNT", .gemm),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm>", .gemm),
        ("void cublasLt::splitKreduce_kernel<32, 16>", .gemm), ("dequantize", .gemm),
        ("void pytorch_flash::flash_fwd_kernel<cutlass::bfloat16_t>", .attention),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", .attention), ("paged_decode", .attention),
        ("merge_splits", .attention),
        ("void at::native::elementwise_kernel<128, 4>", .other), ("sample_rows", .other), ("rotary_store", .other),
        (DeviceTrace.copyName, .copies), (DeviceTrace.fillName, .copies),
    ])
    func knowsKernelsByTheirNames(_ name: String, _ category: TimeBreakdown.Category) {
        #expect(TimeBreakdown.category(name) == category)
    }
}
