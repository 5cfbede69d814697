#pragma once

#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "core/cluster/table.h"
#include "expert-worker/engine.h"

namespace bottega {

// Brings what is held to what the router assigned: loads what is missing, one expert a turn of the
// loop, and retires what is neither assigned nor in the table under our name any more (until then
// somebody may still ask for it). Loop thread only.
class ExpertLoader {
 public:
  struct Sizes {
    uint64_t expert_bytes = 0;    // of each
    uint64_t expected_bytes = 0;  // of all that will be assigned, where that is known beforehand
  };
  // `on_changed` gets all that is held, ascending, whenever a batch is ready.
  ExpertLoader(ExpertEngine& engine, const Sizes& sizes,
               std::function<void(std::vector<ExpertRef>)> on_changed);

  void SetAssignment(std::vector<ExpertRef> assigned);
  void SetTable(const TableSnapshot& table, std::optional<MemberId> self);
  // For as long as the node lives.
  Task<void> Run();

  std::vector<ExpertRef> Held() const;
  size_t missing() const;
  bool assigned() const { return assigned_once_; }

 private:
  std::optional<ExpertRef> NextMissing() const;
  bool RetireUnwanted();
  void TellExpected();

  ExpertEngine& engine_;
  const Sizes sizes_;
  uint64_t told_bytes_ = 0;  // what the process expects of us
  std::function<void(std::vector<ExpertRef>)> on_changed_;
  Slot wake_;
  bool assigned_once_ = false;
  std::optional<Time> loading_since_;  // an assignment has brought work that is not done
  std::set<ExpertRef> wanted_;
  std::set<ExpertRef> listed_;  // in the table under our name
  std::set<ExpertRef> failed_;  // could not be loaded; tried again a second later
  std::set<ExpertRef> told_;    // of whose failure the log knows
};

}  // namespace bottega
