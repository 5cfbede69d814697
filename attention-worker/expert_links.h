#pragma once

#include <map>
#include <memory>
#include <string>

#include "bottega/internal/v1/expert.pb.h"
#include "core/cluster/table.h"
#include "core/exchange/dispatch.h"
#include "core/service/context.h"
#include "core/transport/transport.h"

namespace bottega {

// Keeps a pair stream to every expert worker of the table and tells the dispatcher what it says:
// peer there (endpoint, session key, credits), its cost model, peer gone. The end of the stream is
// the death signal. The expert worker chooses the transport among those offered; shared memory that
// carries no frames is not offered a second time. Loop thread only.
class ExpertLinks {
 public:
  // `hello` is what this worker says first; `dispatcher` and `transport` outlive the links.
  ExpertLinks(const ServiceContext& context, Dispatcher& dispatcher, Transport& transport,
              internal::v1::PairHello hello);
  ~ExpertLinks();

  void UpdateTable(const TableSnapshot& table);
  // The endpoint of a peer is lost: its stream is closed, and it is paired again.
  void PeerLost(MemberId member);

  // Paired, and frames come through.
  bool connected(MemberId member) const;

 private:
  using Stream = MessageStream<internal::v1::PairFromAttention, internal::v1::PairFromExpert>;
  // One expert worker of one incarnation.
  struct Link {
    MemberId member;
    Incarnation incarnation;
    std::string address;
    bool wanted = true;              // still in the table
    bool connected = false;          // paired; frames may still not come through
    bool shared_memory = false;      // what it is paired over
    bool no_shared_memory = false;   // tried in vain
    std::shared_ptr<Stream> stream;  // while open
    Slot retry;                      // wakes the backoff when no longer wanted

    explicit Link(Loop& loop) : retry(loop) {}
  };

  Task<void> Run(std::shared_ptr<Link> link);
  Task<absl::Status> Pair(std::shared_ptr<Link> link);
  internal::v1::PairFromAttention Hello(const Link& link) const;
  absl::StatusOr<PeerInfo> OpenEndpoint(const internal::v1::PairWelcome& welcome, const Link& link,
                                        Stream& stream);
  void OnEnd(Link& link, const absl::Status& ended);
  bool TryNetwork(Link& link, const absl::Status& why);
  void Drop(Link& link);

  const ServiceContext& context_;
  Dispatcher& dispatcher_;
  Transport& transport_;
  const internal::v1::PairHello hello_;
  std::map<MemberId, std::shared_ptr<Link>> links_;
};

}  // namespace bottega
