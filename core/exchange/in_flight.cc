#include "core/exchange/in_flight.h"

#include <algorithm>

#include "core/exchange/planted_bug.h"

namespace bottega {

Flight* InFlight::Find(uint64_t sequence) {
  auto it = flights_.find(sequence);
  return it == flights_.end() ? nullptr : &it->second;
}

Flight InFlight::Take(uint64_t sequence) {
  auto it = flights_.find(sequence);
  CHECK(it != flights_.end());
  Flight flight = std::move(it->second);
  flights_.erase(it);
  return flight;
}

Time InFlight::NextDue() const {
  Time next = kNever;
  for (const auto& [sequence, flight] : flights_) next = std::min(next, flight.due);
  return next;
}

std::vector<uint64_t> InFlight::Select(absl::FunctionRef<bool(const Flight&)> match) {
  std::vector<uint64_t> selected;
  for (const auto& [sequence, flight] : flights_) {
    if (match(flight)) selected.push_back(sequence);
  }
  return selected;
}

void InFlight::Disown(const ActiveDispatch* dispatch) {
  for (auto& [sequence, flight] : flights_) {
    if (flight.dispatch == dispatch) flight.dispatch = nullptr;
  }
}

bool Answers(const FrameHeader& answer, const FrameHeader& posted) {
  constexpr bool kFenced = kPlantedBug != PlantedBug::kNoFence;
  const bool nack = answer.kind == static_cast<uint8_t>(FrameKind::kNack);
  if (kFenced && answer.sender != posted.receiver) return false;
  if (kFenced && !nack && answer.epoch != posted.epoch) return false;
  return answer.request_key == posted.request_key && answer.layer == posted.layer &&
         answer.micro_batch == posted.micro_batch && answer.part == posted.part &&
         answer.attempt == posted.attempt && answer.tokens == posted.tokens &&
         answer.entries == posted.entries;
}

}  // namespace bottega
