#include "core/service/context.h"

#include <chrono>
#include <random>

namespace bottega {

Incarnation NewIncarnation() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  std::random_device random;
  // 48 bits of µs wrap every 8.9 years; the low 16 bits tell processes of one instant apart.
  return Incarnation{(static_cast<uint64_t>(us) << 16) | (random() & 0xffff)};
}

}  // namespace bottega
