#include "attention-worker/expert_links.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

using std::chrono::milliseconds;
constexpr Duration kConnectTimeout = milliseconds(2000);
constexpr Duration kBackoffMin = milliseconds(20);
constexpr Duration kBackoffMax = milliseconds(1000);
constexpr char kMethod[] = "/bottega.internal.v1.Expert/Pair";

PeerCost FromProto(const internal::v1::CostModel& cost) {
  return {.base_us = cost.base_us(), .row_us = cost.row_us(), .queued_rows = cost.queued_rows()};
}

}  // namespace

ExpertLinks::ExpertLinks(const ServiceContext& context, Dispatcher& dispatcher,
                         Transport& transport, internal::v1::PairHello hello)
    : context_(context), dispatcher_(dispatcher), transport_(transport), hello_(std::move(hello)) {}

ExpertLinks::~ExpertLinks() {
  for (auto& [member, link] : links_) Drop(*link);
}

void ExpertLinks::UpdateTable(const TableSnapshot& table) {
  for (auto it = links_.begin(); it != links_.end();) {
    const Member* member = table->Find(it->first);
    if (member == nullptr || member->incarnation != it->second->incarnation ||
        member->state == MemberState::kDead) {
      Drop(*it->second);
      it = links_.erase(it);
    } else {
      ++it;
    }
  }
  for (const Member& member : table->members) {
    if (member.role != Role::kExpert || member.state == MemberState::kDead) continue;
    if (links_.contains(member.id)) continue;
    auto link = std::make_shared<Link>(context_.loop);
    link->member = member.id;
    link->incarnation = member.incarnation;
    link->address = member.control_address;
    links_[member.id] = link;
    context_.loop.Spawn(context_.node, Run(link));
  }
}

void ExpertLinks::Drop(Link& link) {
  link.wanted = false;
  link.retry.Wake();
  if (link.stream != nullptr) link.stream->Close(absl::CancelledError("closed"));
}

void ExpertLinks::PeerLost(MemberId member) {
  auto it = links_.find(member);
  if (it == links_.end() || it->second->stream == nullptr) return;
  it->second->stream->Close(absl::UnavailableError("the data endpoint is lost"));
}

bool ExpertLinks::connected(MemberId member) const {
  auto it = links_.find(member);
  return it != links_.end() && it->second->connected && dispatcher_.Reached(member);
}

Task<void> ExpertLinks::Run(std::shared_ptr<Link> link) {
  Duration backoff = kBackoffMin;
  bool told = false;  // once an absence
  while (link->wanted) {
    absl::Status ended = co_await Pair(link);
    link->stream.reset();
    if (link->connected) {
      backoff = kBackoffMin;
      OnEnd(*link, ended);
      told = false;
    } else if (link->wanted && !std::exchange(told, true)) {
      context_.log.Warning(fmt::format("expert worker {} is not reached: {}", link->address,
                                       std::string(ended.message())));
    }
    if (!link->wanted) break;
    absl::Status woken = co_await link->retry.Wait(context_.loop.Now() + backoff);
    backoff = std::min(kBackoffMax, 2 * backoff);
  }
}

void ExpertLinks::OnEnd(Link& link, const absl::Status& ended) {
  link.connected = false;
  const bool reached = dispatcher_.Reached(link.member);
  dispatcher_.RemovePeer(link.member, ended);
  if (!link.wanted) return;
  if (link.shared_memory && !reached &&
      TryNetwork(link, absl::UnavailableError("no frame came through"))) {
    return;
  }
  context_.log.Warning(fmt::format("expert worker {} is gone: {}", link.address, ended.ToString()));
}

// False if shared memory is all there is.
bool ExpertLinks::TryNetwork(Link& link, const absl::Status& why) {
  if (hello_.offer().kinds_size() < 2) return false;
  link.no_shared_memory = true;
  context_.log.Warning(
      fmt::format("expert worker {}: not over shared memory ({}), over the network", link.address,
                  std::string(why.message())));
  return true;
}

internal::v1::PairFromAttention ExpertLinks::Hello(const Link& link) const {
  internal::v1::PairFromAttention message;
  *message.mutable_hello() = hello_;
  if (link.no_shared_memory) {
    internal::v1::TransportOffer& offer = *message.mutable_hello()->mutable_offer();
    offer.clear_kinds();
    for (const std::string& kind : hello_.offer().kinds()) {
      if (kind != "shm") offer.add_kinds(kind);
    }
  }
  return message;
}

// Our end of what the expert worker has chosen and opened; tells it the address.
absl::StatusOr<PeerInfo> ExpertLinks::OpenEndpoint(const internal::v1::PairWelcome& welcome,
                                                   const Link& link, Stream& stream) {
  ASSIGN_OR_RETURN(const EndpointId endpoint, transport_.Open(welcome.transport().kind()));
  internal::v1::PairFromAttention ready;
  ready.mutable_ready()->mutable_transport()->set_kind(welcome.transport().kind());
  ready.mutable_ready()->mutable_transport()->set_address(transport_.address(endpoint));
  absl::Status connected = transport_.Connect(endpoint, welcome.transport().address());
  if (connected.ok()) connected = stream.Send(ready);
  if (!connected.ok()) {
    transport_.Close(endpoint);
    return connected;
  }
  return PeerInfo{.incarnation = link.incarnation,
                  .session_key = welcome.session_key(),
                  .endpoint = endpoint,
                  .transport = welcome.transport().kind(),
                  .credits = welcome.credits(),
                  .cost = FromProto(welcome.cost())};
}

// One life of the pair: until the stream ends, with the status it ended with.
Task<absl::Status> ExpertLinks::Pair(std::shared_ptr<Link> link) {
  const Time deadline = context_.loop.Now() + kConnectTimeout;
  absl::StatusOr<std::unique_ptr<ByteStream>> bytes =
      co_await context_.network.Connect(context_.node, link->address, kMethod, deadline);
  CO_RETURN_IF_ERROR(bytes.status());
  if (!link->wanted) co_return absl::CancelledError("closed");
  link->stream = std::make_shared<Stream>(*std::move(bytes));
  const std::shared_ptr<Stream> stream = link->stream;

  const internal::v1::PairFromAttention first = Hello(*link);
  CO_RETURN_IF_ERROR(stream->Send(first));
  absl::StatusOr<internal::v1::PairFromExpert> answer = co_await stream->Receive(deadline);
  CO_RETURN_IF_ERROR(answer.status());
  if (!answer->has_welcome()) co_return absl::InvalidArgumentError("no welcome");
  const internal::v1::PairWelcome& welcome = answer->welcome();
  if (Incarnation{welcome.incarnation()} != link->incarnation) {
    co_return absl::UnavailableError("another incarnation answers at this address");
  }
  const absl::StatusOr<PeerInfo> info = OpenEndpoint(welcome, *link, *stream);
  if (!info.ok() && welcome.transport().kind() == "shm") TryNetwork(*link, info.status());
  CO_RETURN_IF_ERROR(info.status());
  dispatcher_.AddPeer(link->member, *info);
  link->shared_memory = info->transport == "shm";
  link->connected = true;

  while (true) {
    absl::StatusOr<internal::v1::PairFromExpert> message = co_await stream->Receive(kNever);
    CO_RETURN_IF_ERROR(message.status());
    if (message->has_cost()) dispatcher_.UpdateCost(link->member, FromProto(message->cost()));
  }
}

}  // namespace bottega
