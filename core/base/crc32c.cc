#include "core/base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace bottega {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78u;  // reflected

// kTables[0] advances the remainder by one byte; kTables[k] by one byte followed by k zero bytes,
// so that eight lookups advance it by eight bytes ("slicing by 8").
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
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

constexpr uint32_t AdvanceByZeros(uint32_t crc, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTables[0][crc & 0xFF];
  return crc;
}

using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

// Row b, column v: the remainder of byte value v in byte position b after kStreamBytes zero bytes.
const ShiftTable& StreamShift() {
  static const ShiftTable table = [] {
    ShiftTable t{};
    for (size_t byte = 0; byte < 4; ++byte) {
      for (uint32_t value = 0; value < 256; ++value) {
        t[byte][value] = AdvanceByZeros(value << (8 * byte), kStreamBytes);
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

__attribute__((target("sse4.2"))) uint32_t ExtendHardware(uint32_t crc, const unsigned char* p,
                                                          size_t bytes) {
  uint64_t a = ~crc & 0xFFFFFFFFu;
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

uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes) {
#if defined(__x86_64__)
  if (HasHardware()) return ExtendHardware(crc, static_cast<const unsigned char*>(data), bytes);
#endif
  return ExtendCrc32cPortable(crc, data, bytes);
}

// A remainder is a polynomial over GF(2), its highest power in bit 0. Bytes that follow multiply it
// by x^8 each, modulo the CRC's polynomial; the initial and final xor cancel out.
uint32_t CombineCrc32c(uint32_t a, uint32_t b, size_t b_bytes) {
  const auto times_x = [](uint32_t p) { return (p >> 1) ^ ((p & 1) ? kPolynomial : 0); };
  const auto times = [&](uint32_t p, uint32_t q) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
      if (q & bit) product ^= p;
      p = times_x(p);
    }
    return product;
  };
  uint32_t power = 1u << 23;  // x^8
  uint32_t shift = 1u << 31;  // 1
  for (; b_bytes > 0; b_bytes >>= 1) {
    if (b_bytes & 1) shift = times(shift, power);
    power = times(power, power);
  }
  return times(a, shift) ^ b;
}

}  // namespace bottega
