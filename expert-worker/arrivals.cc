#include "expert-worker/arrivals.h"

#include <algorithm>

namespace bottega {

void Arrivals::Push(Arrival arrival) {
  const FrameHeader& header = arrival.view.header;
  arrival.pair->rows += header.entries;
  rows_ += header.entries;
  if (arrival.trial()) {
    trials_.push_back(std::move(arrival));
    return;
  }
  queue(static_cast<FramePhase>(header.phase)).push_back(std::move(arrival));
  slot_.Wake();
}

void Arrivals::Release(const Arrival& arrival) {
  CHECK_GE(rows_, arrival.view.header.entries);
  rows_ -= arrival.view.header.entries;
  arrival.pair->rows -= arrival.view.header.entries;
}

void Arrivals::Grant(Incarnation sender, uint64_t sequence) {
  const Arrival* next = next_trial();
  if (next == nullptr || next->view.header.sender != sender.value ||
      next->view.header.sequence != sequence) {
    return;
  }
  trial_granted_ = true;
  queue(static_cast<FramePhase>(next->view.header.phase)).push_back(std::move(trials_.front()));
  trials_.pop_front();
  slot_.Wake();
}

void Arrivals::DropTrial() {
  Release(trials_.front());
  trials_.pop_front();
}

void Arrivals::Take(FramePhase phase, size_t rows_max, std::vector<Arrival>* taken) {
  CHECK(taken->empty());
  std::vector<Arrival>& from = queue(phase);
  size_t rows = 0;
  auto stays = from.begin();
  for (auto it = from.begin(); it != from.end(); ++it) {
    const FrameHeader& header = it->view.header;
    const bool merges = taken->empty() || (header.layer == taken->front().view.header.layer &&
                                           rows + header.entries <= rows_max && !it->trial() &&
                                           !taken->front().trial());
    if (!merges) {
      if (stays != it) *stays = std::move(*it);
      ++stays;
      continue;
    }
    rows += header.entries;
    in_work_.emplace_back(header.sender, header.sequence);
    taken->push_back(std::move(*it));
  }
  from.erase(stays, from.end());
}

void Arrivals::Done(const Arrival& arrival) {
  const FrameHeader& header = arrival.view.header;
  Release(arrival);
  if (arrival.trial()) trial_granted_ = false;
  const auto it =
      std::find(in_work_.begin(), in_work_.end(), std::pair(header.sender, header.sequence));
  CHECK(it != in_work_.end());
  in_work_.erase(it);
}

bool Arrivals::Holds(Incarnation sender, uint64_t sequence) const {
  const std::pair key(sender.value, sequence);
  if (std::find(in_work_.begin(), in_work_.end(), key) != in_work_.end()) return true;
  auto same = [&](const Arrival& arrival) {
    return arrival.view.header.sender == key.first && arrival.view.header.sequence == key.second;
  };
  return std::any_of(decode_.begin(), decode_.end(), same) ||
         std::any_of(prefill_.begin(), prefill_.end(), same) ||
         std::any_of(trials_.begin(), trials_.end(), same);
}

void Arrivals::Drop(const Pair& pair) {
  auto of_pair = [&](const Arrival& arrival) {
    if (arrival.pair.get() != &pair) return false;
    Release(arrival);
    return true;
  };
  auto queued = [&](const Arrival& arrival) {
    if (!of_pair(arrival)) return false;
    if (arrival.trial()) trial_granted_ = false;
    return true;
  };
  std::erase_if(decode_, queued);
  std::erase_if(prefill_, queued);
  std::erase_if(trials_, of_pair);
}

}  // namespace bottega
