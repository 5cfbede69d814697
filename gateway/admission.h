#pragma once

#include <functional>
#include <list>
#include <optional>

#include "absl/status/status.h"
#include "gateway/attention_client.h"
#include "gateway/config.h"
#include "gateway/drain_rate.h"

namespace bottega::gateway {

// The only queue of the cluster. A request is counted from its arrival until its last sequence has
// a place; past the limit it is refused at once. Sequences wait for room at a worker by priority,
// within one in the order of arrival; those that lost their worker go before all others. Loop
// thread only.
class Admission {
 public:
  Admission(const ServiceContext& context, const GatewayConfig& config, AttentionClients& workers);

  // Counts one waiting request, until the Entry is destroyed.
  class Entry {
   public:
    explicit Entry(Admission* admission) : admission_(admission) { admission_->Joined(); }
    Entry(Entry&& other) noexcept : admission_(std::exchange(other.admission_, nullptr)) {}
    Entry& operator=(Entry&&) = delete;
    ~Entry() {
      if (admission_ != nullptr) admission_->Left();
    }

   private:
    Admission* admission_;
  };
  // QueueFull, which says when to come again (drain_rate.h), or NoWorker where none was seen for
  // longer than no_worker_wait.
  absl::StatusOr<Entry> Enter();

  // One sequence that wants a place.
  struct Wish {
    WorkerNeed need;
    int32_t priority = 0;  // the least goes first
    // Called once there is room, from Run; submits before it returns, so that what the worker
    // granted is never given twice. May Ask again.
    std::function<void(MemberId)> place;
    // No place will come. Called from Run.
    std::function<void(absl::Status)> refuse;
    Time since{};  // when it began to wait
  };
  // Leaves the queue when destroyed.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept { *this = std::move(other); }
    Place& operator=(Place&& other) noexcept {
      std::swap(admission_, other.admission_);
      std::swap(id_, other.id_);
      return *this;
    }
    ~Place() { Leave(); }
    void Leave();

   private:
    friend class Admission;
    Admission* admission_ = nullptr;
    uint64_t id_ = 0;
  };
  [[nodiscard]] Place Ask(Wish wish, bool at_head);

  // Room may have come.
  void Wake() { changed_.Wake(); }
  size_t waiting() const { return waiting_; }

  // Hands out places and refuses what waited too long; spawn it once.
  Task<void> Run();

 private:
  struct Queued {
    uint64_t id;
    bool at_head;
    Wish wish;
  };
  void Joined();
  void Left();
  absl::Status QueueFull(std::string_view why) const;
  bool PlaceOne();
  void RefuseOld();

  const ServiceContext& context_;
  const GatewayConfig& config_;
  AttentionClients& workers_;
  Slot changed_;
  std::list<Queued> queue_;
  uint64_t next_id_ = 1;
  size_t waiting_ = 0;
  DrainRate drain_rate_;
};

}  // namespace bottega::gateway
