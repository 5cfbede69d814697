#include "cli/supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace bottega {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr Duration kBackoffMin = milliseconds(100);
constexpr Duration kBackoffMax = seconds(5);
// Who refuses needs somebody's hand.
constexpr Duration kBackoffRefused = seconds(10);
// Who lived so long is restarted as if it had never died.
constexpr Duration kLongLife = seconds(10);
constexpr int kYoungDeathsMax = 5;
// How often one that ends is looked at, and how long it has after the second signal.
constexpr Duration kLook = milliseconds(10);
constexpr Duration kLastWords = seconds(2);

bool BeginsWith(const std::string& name, const std::string& prefix) {
  return name.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace

Supervisor::Supervisor(Loop& loop, NodeId node, std::vector<ProcessPlan> plans, Events events)
    : loop_(loop), node_(node), events_(std::move(events)), exited_(loop) {
  for (ProcessPlan& plan : plans) {
    entries_.push_back(std::make_shared<Entry>(Entry{.id = ++last_id_, .plan = std::move(plan)}));
  }
}

Supervisor::~Supervisor() = default;

void Supervisor::Start() {
  for (const auto& entry : entries_) Launch(*entry);
}

void Supervisor::Launch(Entry& entry) {
  Entry* const self = &entry;
  auto child = ChildProcess::Start(
      loop_, entry.plan.arguments,
      {.on_line = [this, self](std::string_view line) { events_.on_line(self->plan, line); },
       .on_exit = [this, self](int wait_status) { OnExit(*self, wait_status); }});
  if (!child.ok()) {
    events_.on_line(entry.plan, std::string(child.status().message()));
    OnRefusal(entry, 1);
    return;
  }
  entry.child = *std::move(child);
  entry.started = loop_.Now();
  events_.on_start(entry.plan, entry.child->pid());
}

void Supervisor::OnExit(Entry& entry, int wait_status) {
  const bool young = loop_.Now() - entry.started < kLongLife;
  // The child's own callback is running: it goes once that has returned.
  loop_.Post([child = std::shared_ptr<ChildProcess>(std::move(entry.child))] {});
  exited_.Wake();
  if (stopping_) return;
  if (entry.ending) {
    events_.on_end(entry.plan, DescribeExit(wait_status));
    return;
  }
  events_.on_death(entry.plan, DescribeExit(wait_status));
  if (!entry.kept) return;
  if (!young) entry.refuses = false;
  const int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
  // Killed from outside is no reason to give up, however often; to refuse by itself is.
  entry.young_deaths = young && code > 0 ? entry.young_deaths + 1 : 0;
  if (code == 2 || code == 3 || entry.young_deaths >= kYoungDeathsMax) {
    OnRefusal(entry, code);
    return;
  }
  entry.backoff = young && entry.backoff > Duration::zero()
                      ? std::min<Duration>(kBackoffMax, 2 * entry.backoff)
                      : kBackoffMin;
  loop_.Spawn(node_, Relaunch(Find(entry.id)));
}

void Supervisor::OnRefusal(Entry& entry, int code) {
  if (!std::exchange(entry.refuses, true)) events_.on_refusal(entry.plan, code);
  entry.backoff = kBackoffRefused;
  if (entry.kept) loop_.Spawn(node_, Relaunch(Find(entry.id)));
}

Task<void> Supervisor::Relaunch(std::shared_ptr<Entry> entry) {
  co_await loop_.Sleep(entry->backoff);
  if (!stopping_ && !entry->ending && entry->child == nullptr) Launch(*entry);
}

std::shared_ptr<Supervisor::Entry> Supervisor::Find(Id id) const {
  for (const auto& entry : entries_) {
    if (entry->id == id) return entry;
  }
  return nullptr;
}

std::vector<std::pair<Supervisor::Id, ProcessPlan>> Supervisor::processes() const {
  std::vector<std::pair<Id, ProcessPlan>> processes;
  for (const auto& entry : entries_) processes.emplace_back(entry->id, entry->plan);
  return processes;
}

Supervisor::Id Supervisor::Add(ProcessPlan plan) {
  entries_.push_back(
      std::make_shared<Entry>(Entry{.id = ++last_id_, .plan = std::move(plan), .kept = false}));
  Launch(*entries_.back());
  return last_id_;
}

void Supervisor::Keep(Id id) { Find(id)->kept = true; }

bool Supervisor::Runs(Id id) const {
  const std::shared_ptr<Entry> entry = Find(id);
  return entry != nullptr && entry->child != nullptr;
}

Task<void> Supervisor::End(Id id, Duration patience) {
  const std::shared_ptr<Entry> entry = Find(id);
  entry->ending = true;
  for (Duration wait : {patience, Duration(kLastWords)}) {
    if (entry->child != nullptr) entry->child->Signal(SIGTERM);
    const Time deadline = loop_.Now() + wait;
    while (entry->child != nullptr && loop_.Now() < deadline) co_await loop_.Sleep(kLook);
  }
  entry->child.reset();
}

void Supervisor::Restart(Id id) {
  const std::shared_ptr<Entry> entry = Find(id);
  entry->ending = false;
  if (entry->child == nullptr && !stopping_) Launch(*entry);
}

void Supervisor::Remove(Id id) {
  std::erase_if(entries_, [id](const auto& entry) { return entry->id == id; });
}

Task<void> Supervisor::Stop(std::string first, Duration patience) {
  stopping_ = true;
  const Time deadline = loop_.Now() + patience;
  for (const auto& entry : entries_) {
    if (entry->child != nullptr && BeginsWith(entry->plan.name, first)) {
      entry->child->Signal(SIGINT);
    }
  }
  co_await WaitFor(first, deadline);
  // Nothing is being answered any more, so the rest need not drain: a second signal ends them at
  // once.
  for (int signal : {SIGINT, SIGTERM}) {
    for (const auto& entry : entries_) {
      if (entry->child != nullptr) entry->child->Signal(signal);
    }
  }
  const Time last = loop_.Now() + seconds(2);
  co_await WaitFor("", last);
  KillAll();
}

Task<void> Supervisor::WaitFor(std::string prefix, Time deadline) {
  while (loop_.Now() < deadline) {
    const bool running = std::any_of(entries_.begin(), entries_.end(), [&](const auto& entry) {
      return entry->child != nullptr && BeginsWith(entry->plan.name, prefix);
    });
    if (!running) co_return;
    absl::Status woken = co_await exited_.Wait(deadline);
  }
}

void Supervisor::KillAll() {
  stopping_ = true;
  for (const auto& entry : entries_) entry->child.reset();
}

}  // namespace bottega
