// How far the kernels are from the machine: every row of the matmul table carries the share of its
// floor, the larger of bytes / read bandwidth and operations / FMA peak, both measured here in the
// same run with the same threads. Times on a shared machine vary; shares of one run compare.
//
//   kernels_bench [--isa=scalar|avx2|avx512] [--threads=N] [Google Benchmark's own options]

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cli/machine_rates.h"
#include "core/kernels/attention.h"
#include "core/kernels/combine.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/kernels/matmul.h"
#include "core/kernels/moe_gate.h"
#include "core/kernels/quantised.h"
#include "core/kernels/rms_norm.h"
#include "core/kernels/sample.h"
#include "core/kernels/swiglu.h"
#include "core/model/step_cost.h"
#include "core/tensor/aligned_buffer.h"

namespace bottega {
namespace {

using benchmark::Counter;
using benchmark::State;

struct Machine {
  std::unique_ptr<ThreadPool> pool;
  Cpu cpu{};
  MachineRates rates;
};

Machine& ThisMachine() {
  static Machine machine;
  return machine;
}
const Cpu& BenchCpu() { return ThisMachine().cpu; }

using Clock = std::chrono::steady_clock;

// Share of the floor: its time over the time taken, all iterations together.
void ReportShare(State& state, const StepCost& cost, Clock::time_point start) {
  const std::chrono::duration<double> elapsed = Clock::now() - start;
  state.counters["floor_share"] = FloorSeconds(cost, ThisMachine().rates) *
                                  static_cast<double>(state.iterations()) / elapsed.count();
}

// Weights larger than the cache in all: each call takes the next matrix, as layers and experts do.
void MatMulBench(State& state, int64_t n, int64_t k, DType dtype) {
  const int64_t m = state.range(0);
  const size_t matrix_bytes = PackedBytes(dtype, n, k);
  const size_t copies = std::max<size_t>(1, (256u << 20) / matrix_bytes);
  AlignedBuffer weights(matrix_bytes * copies), x(m * k * 4), y(m * n * 4);
  size_t next = 0;
  const Clock::time_point start = Clock::now();
  for (auto _ : state) {
    MatMul(BenchCpu(),
           {.x = x.As<float>().data(),
            .x_stride = k,
            .m = m,
            .w = {.data = weights.data() + next * matrix_bytes, .dtype = dtype, .n = n, .k = k},
            .y = y.As<float>().data(),
            .y_stride = n});
    next = (next + 1) % copies;
  }
  const double flops = 2.0 * m * n * k, bytes = static_cast<double>(matrix_bytes);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  ReportShare(state, {.weight_bytes = bytes, .f32_ops = flops}, start);
}
void GateUpBf16(State& state) { MatMulBench(state, GateUpOutputs(1080), 2880, DType::kBF16); }
void GateUpF32(State& state) { MatMulBench(state, GateUpOutputs(1080), 2880, DType::kF32); }
void DownBf16(State& state) { MatMulBench(state, 2880, 1080, DType::kBF16); }
BENCHMARK(GateUpBf16)->Arg(1)->Arg(2)->Arg(4)->Arg(8)->Arg(16)->Arg(64)->Arg(256)->UseRealTime();
BENCHMARK(GateUpF32)->Arg(1)->Arg(4)->Arg(16)->Arg(64)->UseRealTime();
BENCHMARK(DownBf16)->Arg(1)->Arg(4)->Arg(16)->Arg(64)->UseRealTime();

// Experts of EngGPT2, 256 MiB of them and each call the next one: gate, up, SwiGLU, quantising,
// down, for range(0) rows. Floor: the larger of its bytes and its int8 operations.
void ExpertFfn(State& state, WeightFormat format) {
  const int64_t m = state.range(0), hidden = 2880, width = 1080;
  const QuantisedShape gate_up = GateUpShape(format, width, hidden);
  const QuantisedShape down = {.format = format, .n = hidden, .k = width};
  const size_t expert_bytes = gate_up.bytes() + down.bytes();
  const size_t experts = (256u << 20) / expert_bytes;
  AlignedBuffer weights(expert_bytes * experts), x(m * hidden * 4), y(m * hidden * 4);
  AlignedBuffer rows(QuantisedRows::Bytes(format, m, hidden));
  AlignedBuffer inner(QuantisedRows::Bytes(format, m, width));
  for (size_t i = 0; i < weights.size(); ++i) {
    weights.data()[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  }
  for (float& value : x.As<float>()) value = 1.0f;
  size_t next = 0;
  const Clock::time_point start = Clock::now();
  for (auto _ : state) {
    const std::byte* expert = weights.data() + next * expert_bytes;
    const QuantisedRows in = QuantisedRows::In(rows.data(), format, m, hidden);
    Quantise(BenchCpu(), {.x = x.data(), .x_stride = hidden, .rows = m, .to = in});
    const QuantisedGateUpArgs first = {.x = in,
                                       .m = m,
                                       .w = {expert, gate_up},
                                       .out = QuantisedRows::In(inner.data(), format, m, width)};
    QuantisedGateUpGroup(BenchCpu(), {&first, 1});
    const QuantisedMatMulArgs second = {.x = first.out,
                                        .m = m,
                                        .w = {expert + gate_up.bytes(), down},
                                        .y = y.As<float>().data(),
                                        .y_stride = hidden};
    QuantisedMatMulGroup(BenchCpu(), {&second, 1});
    next = (next + 1) % experts;
  }
  const double ops = 2.0 * static_cast<double>(m * 3 * hidden * width);
  const double bytes = static_cast<double>(expert_bytes);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GOP/s"] = Counter(ops * 1e-9, Counter::kIsIterationInvariantRate);
  ReportShare(state, {.weight_bytes = bytes, .int8_ops = ops}, start);
}
void ExpertInt8(State& state) { ExpertFfn(state, WeightFormat::kInt8); }
void ExpertInt4(State& state) { ExpertFfn(state, WeightFormat::kInt4); }
BENCHMARK(ExpertInt8)->Arg(1)->Arg(4)->Arg(8)->Arg(16)->Arg(64)->Arg(256)->UseRealTime();
BENCHMARK(ExpertInt4)->Arg(1)->Arg(4)->Arg(8)->Arg(16)->Arg(64)->Arg(256)->UseRealTime();

// Tokens of 32 heads on 4 kv heads of 128, the last ones of a context; floor: their KV from memory
// once, or their operations.
void AttentionBench(State& state, int64_t tokens) {
  const int32_t context = static_cast<int32_t>(state.range(0));
  const int64_t heads = 32;
  const KvLayout layout = {.dtype = DType::kBF16, .kv_heads = 4, .head_dim = 128};
  std::vector<int32_t> blocks(context / kKvBlockPositions);
  for (size_t b = 0; b < blocks.size(); ++b) blocks[b] = static_cast<int32_t>(b);
  AlignedBuffer pool(blocks.size() * layout.BlockBytes());
  AlignedBuffer q(tokens * heads * 128 * 4), out(tokens * heads * 128 * 4);
  std::vector<AttendToken> attends;
  double positions = 0;
  for (int32_t t = 0; t < tokens; ++t) {
    attends.push_back({context - static_cast<int32_t>(tokens) + t, blocks.data()});
    positions += attends.back().position + 1;
  }
  const KvLayer layer = {pool.data(), layout.BlockBytes(), layout};
  const Clock::time_point start = Clock::now();
  for (auto _ : state) {
    Attend(BenchCpu(), {.q = q.As<float>().data(),
                        .q_stride = heads * 128,
                        .heads = heads,
                        .scale = 0.088f,
                        .tokens = attends,
                        .layer = layer,
                        .out = out.As<float>().data(),
                        .out_stride = heads * 128});
  }
  const double bytes = static_cast<double>(pool.size());
  const double flops = positions * static_cast<double>(heads * 128) * 4;
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  ReportShare(state, {.kv_bytes = bytes, .f32_ops = flops}, start);
}
void DecodeAttention(State& state) { AttentionBench(state, 1); }
void PrefillAttention(State& state) { AttentionBench(state, kAttendTokensTogether); }
BENCHMARK(DecodeAttention)->Arg(256)->Arg(4096)->Arg(32768)->UseRealTime();
BENCHMARK(PrefillAttention)->Arg(256)->Arg(4096)->Arg(32768)->UseRealTime();

void RmsNormRows(State& state) {
  const int64_t rows = state.range(0), width = 2880;
  AlignedBuffer x(rows * width * 4), y(rows * width * 2), weight(width * 4);
  for (auto _ : state) {
    RmsNorm(BenchCpu(), {.x = x.As<float>().data(),
                         .x_stride = width,
                         .rows = rows,
                         .width = width,
                         .weight = weight.As<float>().data(),
                         .eps = 1e-6f,
                         .y = y.data(),
                         .y_stride = width,
                         .y_dtype = DType::kBF16});
  }
}
BENCHMARK(RmsNormRows)->Arg(1)->Arg(64)->UseRealTime();

void SwiGluRows(State& state) {
  const int64_t rows = state.range(0), width = 1080, n = GateUpOutputs(width);
  AlignedBuffer gate_up(rows * n * 4), out(rows * width * 4);
  for (auto _ : state) {
    SwiGlu(BenchCpu(), {.gate_up = gate_up.As<float>().data(),
                        .gate_up_stride = n,
                        .rows = rows,
                        .width = width,
                        .out = out.As<float>().data(),
                        .out_stride = width});
  }
}
BENCHMARK(SwiGluRows)->Arg(1)->Arg(64)->UseRealTime();

void GateRows(State& state) {
  const int64_t tokens = state.range(0), experts = 64, top_k = 8;
  std::vector<float> logits(tokens * experts), weights(tokens * top_k);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(i * 2654435761u % 1000) * 0.01f;
  std::vector<uint16_t> ids(tokens * top_k);
  std::vector<uint8_t> bad(tokens);
  for (auto _ : state) {
    MoeGate(BenchCpu(), {.logits = logits.data(),
                         .tokens = tokens,
                         .experts = experts,
                         .top_k = top_k,
                         .ids = ids.data(),
                         .weights = weights.data(),
                         .bad = bad.data()});
  }
}
BENCHMARK(GateRows)->Arg(1)->Arg(64)->UseRealTime();

// A row of a vocabulary of 131084.
// 0: greedy; 1: the settings its makers advise; 2: temperature 1, no filter; 3: 1 with penalties of
// 2,000 tokens that were seen.
void SampleVocabulary(State& state) {
  const int64_t vocabulary = 131084;
  std::vector<float> logits(vocabulary);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i * 2654435761u % 100003) * 1.5e-4f;
  }
  Sampler sampler(vocabulary, BenchCpu().pool->threads());
  SampleRow row = {
      .logits = logits.data(), .params = {}, .position = 0, .top = {}, .chosen = {}, .status = {}};
  if (state.range(0) == 0) row.params = {.temperature = 0};
  if (state.range(0) % 2 == 1) row.params = {.temperature = 0.6f, .top_k = 20, .top_p = 0.95f};
  std::vector<TokenCount> seen;
  for (int32_t i = 0; i < 2000; ++i) seen.push_back({.token = i * 65, .generated = i % 4});
  if (state.range(0) == 3) row.edits = {.seen = seen, .repetition = 1.1f, .presence = 0.5f};
  for (auto _ : state) {
    ++row.position;
    sampler.Sample(BenchCpu(), {&row, 1});
  }
}
BENCHMARK(SampleVocabulary)->DenseRange(0, 3)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace

int RunBench(int argc, char** argv) {
  Isa isa = BestIsa();
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option.rfind("--isa=", 0) == 0) {
      const absl::StatusOr<Isa> parsed = ParseIsa(option.substr(6));
      if (!parsed.ok()) return std::fprintf(stderr, "%s\n", parsed.status().ToString().c_str()), 2;
      isa = *parsed;
    } else if (option.rfind("--threads=", 0) == 0) {
      threads = std::max(1, std::atoi(option.c_str() + 10));
    } else {
      argv[kept++] = argv[i];
    }
  }
  benchmark::Initialize(&kept, argv);
  Machine& machine = ThisMachine();
  machine.pool = std::make_unique<ThreadPool>(threads);
  machine.cpu = MakeCpu(isa, machine.pool.get());
  machine.rates = MeasureMachineRates(machine.cpu);
  std::printf("%s, %d threads; floors: read %.1f GB/s, FMA %.0f GFLOP/s, int8 dot %.0f GOP/s\n",
              std::string(Name(isa)).c_str(), threads, machine.rates.read_bytes_per_s * 1e-9,
              machine.rates.f32_ops_per_s * 1e-9, machine.rates.int8_ops_per_s * 1e-9);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace bottega

int main(int argc, char** argv) { return bottega::RunBench(argc, argv); }
