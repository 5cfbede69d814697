#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace bottega {

// CRC32C (Castagnoli polynomial, reflected 0x82F63B78, initial and final xor 0xFFFFFFFF): what
// guards regions of packed files and frames of the exchange. Crc32c("123456789") = 0xE3069283.
//
// ExtendCrc32c(Crc32c(a), b) == Crc32c(a followed by b).
uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes);

inline uint32_t Crc32c(const void* data, size_t bytes) { return ExtendCrc32c(0, data, bytes); }
inline uint32_t Crc32c(std::string_view data) { return Crc32c(data.data(), data.size()); }
inline uint32_t Crc32c(std::span<const std::byte> data) { return Crc32c(data.data(), data.size()); }

// The sum of a followed by b from the sums of both: pieces can be summed side by side.
uint32_t CombineCrc32c(uint32_t a, uint32_t b, size_t b_bytes);

// The table walk that serves machines without SSE4.2; tests hold the two against each other.
uint32_t ExtendCrc32cPortable(uint32_t crc, const void* data, size_t bytes);

}  // namespace bottega
