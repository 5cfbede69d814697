#include "core/base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bottega {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // reflected

// Remainders as polynomials over GF(2) modulo the CRC's, the highest power in bit 0 ("reflected").
constexpr uint32_t TimesX(uint32_t p) { return (p >> 1) ^ ((p & 1) ? kPolynomial : 0); }

constexpr uint32_t TimesMod(uint32_t p, uint32_t q) {
  uint32_t product = 0;
  for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
    if (q & bit) product ^= p;
    p = TimesX(p);
  }
  return product;
}

// x^n.
constexpr uint32_t PowerMod(uint64_t n) {
  uint32_t power = 1u << 31, square = 1u << 30;
  for (; n > 0; n >>= 1) {
    if (n & 1) power = TimesMod(power, square);
    square = TimesMod(square, square);
  }
  return power;
}

// kTables[0] advances the remainder by one byte; kTables[k] by one byte followed by k zero bytes,
// so that eight lookups advance it by eight bytes ("slicing by 8").
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = TimesX(crc);
    tables[0][byte] = crc;
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    for (size_t k = 1; k < 8; ++k) {
      uint32_t previous = tables[k - 1][byte];
      tables[k][byte] = (previous >> 8) ^ tables[0][previous & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

#if defined(__x86_64__)

// The crc32 instruction has a latency of 3 and a throughput of 1 a cycle. Three independent streams
// hide the latency; their remainders are joined by shifting the first two past the bytes that
// follow them, which is a linear map, so four table lookups. 3 x 1 KiB a round amortises the joins.
constexpr size_t kStreamBytes = 1024;

using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

// Row b, column v: the remainder of byte value v in byte position b after kStreamBytes zero bytes.
const ShiftTable& StreamShift() {
  static const ShiftTable table = [] {
    ShiftTable t{};
    const uint32_t shift = PowerMod(8 * kStreamBytes);
    for (size_t byte = 0; byte < 4; ++byte) {
      for (uint32_t value = 0; value < 256; ++value) {
        t[byte][value] = TimesMod(value << (8 * byte), shift);
      }
    }
    return t;
  }();
  return table;
}

uint32_t Shift(const ShiftTable& table, uint32_t crc) {
  return table[0][crc & 0xFF] ^ table[1][(crc >> 8) & 0xFF] ^ table[2][(crc >> 16) & 0xFF] ^
         table[3][crc >> 24];
}

uint64_t Load64(const unsigned char* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// Carry-less multiplication takes 64 bytes at once ("Fast CRC Computation for Generic Polynomials
// Using PCLMULQDQ Instruction", Intel 2009): 16 bytes that stand d bits before others are congruent
// to their low half times x^(d + 32) plus their high half times x^(d - 32), added to those. Four
// sums of 64 bytes run side by side; of the 16 bytes that are left in the end the crc32 instruction
// makes the remainder.
struct FoldBy {
  uint64_t low, high;
};
constexpr FoldBy FoldOver(uint64_t bits) {
  return {uint64_t{PowerMod(bits + 32)} << 1, uint64_t{PowerMod(bits - 32)} << 1};
}
constexpr size_t kWideBytes = 256;
constexpr FoldBy kOver256 = FoldOver(2048), kOver64 = FoldOver(512), kOver16 = FoldOver(128);

#define BOTTEGA_WIDE_CRC __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

BOTTEGA_WIDE_CRC inline __m512i Repeated(FoldBy by) {
  const auto low = static_cast<int64_t>(by.low), high = static_cast<int64_t>(by.high);
  return _mm512_set_epi64(high, low, high, low, high, low, high, low);
}

BOTTEGA_WIDE_CRC inline __m512i Folded(__m512i x, __m512i by, __m512i onto) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, by, 0x00),
                                   _mm512_clmulepi64_epi128(x, by, 0x11), onto, 0x96);
}

// A multiple of kWideBytes. Without the xor at both ends.
BOTTEGA_WIDE_CRC uint32_t ExtendWide(uint32_t remainder, const unsigned char* p, size_t bytes) {
  __m512i sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = _mm512_loadu_si512(p + 64 * i);
  sums[0] = _mm512_xor_si512(
      sums[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(remainder))));
  const __m512i over256 = Repeated(kOver256), over64 = Repeated(kOver64);
  for (p += kWideBytes, bytes -= kWideBytes; bytes > 0; p += kWideBytes, bytes -= kWideBytes) {
    for (int i = 0; i < 4; ++i) {
      sums[i] = Folded(sums[i], over256, _mm512_loadu_si512(p + 64 * i));
    }
  }
  __m512i sum = sums[0];
  for (int i = 1; i < 4; ++i) sum = Folded(sum, over64, sums[i]);
  alignas(64) uint64_t lanes[8];
  _mm512_store_si512(lanes, sum);
  const __m128i over16 =
      _mm_set_epi64x(static_cast<int64_t>(kOver16.high), static_cast<int64_t>(kOver16.low));
  __m128i last = _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
  for (int lane = 1; lane < 4; ++lane) {
    last = _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(last, over16, 0x00),
                                       _mm_clmulepi64_si128(last, over16, 0x11)),
                         _mm_load_si128(reinterpret_cast<const __m128i*>(lanes + 2 * lane)));
  }
  const uint64_t low = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(last)));
  return static_cast<uint32_t>(
      _mm_crc32_u64(low, static_cast<uint64_t>(_mm_extract_epi64(last, 1))));
}

bool HasWide() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
  return has;
}

__attribute__((target("sse4.2"))) uint32_t ExtendHardware(uint32_t crc, const unsigned char* p,
                                                          size_t bytes, bool wide) {
  uint64_t a = ~crc & 0xFFFFFFFFu;
  if (wide && bytes >= 2 * kWideBytes) {
    const size_t folded = bytes / kWideBytes * kWideBytes;
    a = ExtendWide(static_cast<uint32_t>(a), p, folded);
    p += folded;
    bytes -= folded;
  }
  if (bytes >= 3 * kStreamBytes) {
    const ShiftTable& shift = StreamShift();
    for (; bytes >= 3 * kStreamBytes; p += 3 * kStreamBytes, bytes -= 3 * kStreamBytes) {
      uint64_t b = 0;
      uint64_t c = 0;
      for (size_t i = 0; i < kStreamBytes; i += 8) {
        a = _mm_crc32_u64(a, Load64(p + i));
        b = _mm_crc32_u64(b, Load64(p + kStreamBytes + i));
        c = _mm_crc32_u64(c, Load64(p + 2 * kStreamBytes + i));
      }
      a = Shift(shift, static_cast<uint32_t>(a)) ^ b;
      a = Shift(shift, static_cast<uint32_t>(a)) ^ c;
    }
  }
  for (; bytes >= 8; p += 8, bytes -= 8) a = _mm_crc32_u64(a, Load64(p));
  uint32_t tail = static_cast<uint32_t>(a);
  for (; bytes > 0; ++p, --bytes) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

bool HasHardware() {
  static const bool has = __builtin_cpu_supports("sse4.2");
  return has;
}

#else

bool HasWide() { return false; }

#endif

}  // namespace

uint32_t ExtendCrc32cPortable(uint32_t crc, const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; bytes >= 8; p += 8, bytes -= 8) {
    uint32_t low = crc ^ (static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 |
                          static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24);
    crc = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^ kTables[5][(low >> 16) & 0xFF] ^
          kTables[4][low >> 24] ^ kTables[3][p[4]] ^ kTables[2][p[5]] ^ kTables[1][p[6]] ^
          kTables[0][p[7]];
  }
  for (; bytes > 0; ++p, --bytes) crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xFF];
  return ~crc;
}

namespace {

uint32_t Extend(uint32_t crc, const void* data, size_t bytes, [[maybe_unused]] bool wide) {
#if defined(__x86_64__)
  if (HasHardware()) {
    return ExtendHardware(crc, static_cast<const unsigned char*>(data), bytes, wide);
  }
#endif
  return ExtendCrc32cPortable(crc, data, bytes);
}

}  // namespace

uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes) {
  return Extend(crc, data, bytes, HasWide());
}

uint32_t ExtendCrc32cNarrow(uint32_t crc, const void* data, size_t bytes) {
  return Extend(crc, data, bytes, false);
}

uint32_t CombineCrc32c(uint32_t a, uint32_t b, size_t b_bytes) {
  return TimesMod(a, PowerMod(8 * uint64_t{b_bytes})) ^ b;
}

}  // namespace bottega
