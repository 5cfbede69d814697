#include "cli/machine_rates.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "core/kernels/cpu/threads.h"
#include "core/kernels/matmul.h"
#include "core/tensor/aligned_buffer.h"

namespace bottega {
namespace {

// Whatever `value` points to counts as used: the compiler may not drop what made it.
void Keep(const void* value) { asm volatile("" : : "r"(value) : "memory"); }

// Best of several: a floor is what the machine can do, not what it did while another had it.
template <class Work>
double BestSeconds(int repeats, const Work& work) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

// Reads a buffer far larger than the last-level cache, 1 MiB an item, as four streams at once like
// the four tiles of a matmul panel (one stream alone gets less out of the memory).
double ReadBandwidth(const Cpu& cpu) {
  constexpr size_t kPiece = 1 << 20, kPieces = 512, kStream = kPiece / 8 / 4;
  AlignedBuffer buffer(kPiece * kPieces);
  const double seconds = BestSeconds(15, [&] {
    cpu.pool->ParallelFor(kPieces, [&](int64_t piece, int) {
      const uint64_t* words = buffer.As<uint64_t>().data() + piece * (kPiece / 8);
      uint64_t sums[4] = {};
      for (size_t i = 0; i < kStream; i += 8) {
        // One word of each cache line: the line is what memory delivers.
        for (size_t stream = 0; stream < 4; ++stream) sums[stream] += words[stream * kStream + i];
      }
      Keep(sums);
    });
  });
  return kPiece * kPieces / seconds;
}

// The f32 microkernel on a panel that stays in the cache, with just the rows that fill its
// accumulators: FMAs with little else to wait for. Small enough that MatMul itself stays on the
// calling thread.
double FmaRate(const Cpu& cpu) {
  constexpr int64_t kRows = 6, kK = 128, kN = 64;
  AlignedBuffer w(PackedBytes(DType::kF32, kN, kK)), x(kRows * kK * 4);
  const int64_t items = cpu.pool->threads() * 64, repeats = 200;
  const double seconds = BestSeconds(25, [&] {
    cpu.pool->ParallelFor(items, [&](int64_t, int) {
      alignas(64) float y[kRows * kN];
      for (int64_t i = 0; i < repeats; ++i) {
        MatMul(cpu, {.x = x.As<float>().data(),
                     .x_stride = kK,
                     .m = kRows,
                     .w = {.data = w.data(), .dtype = DType::kF32, .n = kN, .k = kK},
                     .y = y,
                     .y_stride = kN});
        Keep(y);
      }
    });
  });
  return 2.0 * kRows * kK * kN * items * repeats / seconds;
}

constexpr int64_t kDotRepeats = 20000;

// vpdpbusd with nothing to wait for: 16 sums in flight. Returns the operations.
__attribute__((target("avx512f,avx512vnni"))) double DotBytes() {
  __m512i sums[16], x = _mm512_set1_epi8(1);
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kDotRepeats; ++i) {
#pragma GCC unroll 16
    for (__m512i& sum : sums) asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x));
  }
  return 2.0 * 64 * 16 * kDotRepeats;
}

// The same with what AVX2 has: products of 16 bits added in pairs, then to one of 12 sums.
__attribute__((target("avx2"))) double DotWords() {
  __m256i sums[12], x = _mm256_set1_epi16(1);
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kDotRepeats; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      __m256i pairs;
      asm volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(pairs) : "x"(x));
    }
  }
  return 2.0 * 16 * 12 * kDotRepeats;
}

// One product at a time, added to one of 8 sums.
double DotIntegers() {
  int32_t sums[8] = {};
  const int32_t x = 1;
  for (int64_t i = 0; i < kDotRepeats; ++i) {
#pragma GCC unroll 8
    for (int32_t& sum : sums) {
      int32_t product;
      asm volatile("imull $1, %2, %1\n\taddl %1, %0" : "+r"(sum), "=&r"(product) : "r"(x) : "cc");
    }
  }
  return 2.0 * 8 * kDotRepeats;
}

}  // namespace

double MeasureInt8Rate(const Cpu& cpu) {
  const auto dot = cpu.isa == Isa::kAvx512 ? DotBytes
                   : cpu.isa == Isa::kAvx2 ? DotWords
                                           : DotIntegers;
  const int64_t items = cpu.pool->threads() * 16;
  const double operations = dot() * static_cast<double>(items);
  const double seconds =
      BestSeconds(25, [&] { cpu.pool->ParallelFor(items, [&](int64_t, int) { dot(); }); });
  return operations / seconds;
}

MachineRates MeasureMachineRates(const Cpu& cpu) {
  return {.read_bytes_per_s = ReadBandwidth(cpu),
          .f32_ops_per_s = FmaRate(cpu),
          .int8_ops_per_s = MeasureInt8Rate(cpu)};
}

}  // namespace bottega
