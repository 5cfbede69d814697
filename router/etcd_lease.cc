#include "router/etcd_lease.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/escaping.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

using Json = nlohmann::json;
constexpr size_t kReplyBytesMax = 1 << 20;

std::string Base64(const std::string& text) { return absl::Base64Escape(text); }

size_t Collect(char* data, size_t size, size_t count, void* to) {
  auto* body = static_cast<std::string*>(to);
  if (body->size() + size * count > kReplyBytesMax) return 0;
  body->append(data, size * count);
  return size * count;
}

// etcd's JSON writes 64-bit numbers as strings and leaves out zeros.
uint64_t Number(const Json& object, const char* name) {
  const auto it = object.find(name);
  uint64_t value = 0;
  if (it == object.end()) return value;
  if (it->is_number_unsigned()) return it->get<uint64_t>();
  if (!it->is_string()) return value;
  const std::string& text = it->get_ref<const std::string&>();
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// POSTs JSON to one server, blocking. One thread at a time.
class EtcdClient {
 public:
  EtcdClient(std::string base, Duration timeout) : base_(std::move(base)), curl_(curl_easy_init()) {
    curl_easy_setopt(curl_, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(timeout / std::chrono::milliseconds(1)));
    curl_easy_setopt(curl_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(curl_, CURLOPT_PROXY, "");
    curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, Collect);
  }
  ~EtcdClient() { curl_easy_cleanup(curl_); }

  absl::StatusOr<Json> Post(const char* path, const Json& request) {
    const std::string url = base_ + path, body = request.dump();
    std::string answer;
    curl_easy_setopt(curl_, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, body.c_str());
    curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &answer);
    const CURLcode code = curl_easy_perform(curl_);
    if (code != CURLE_OK) {
      return absl::UnavailableError(fmt::format("etcd at {}: {}", base_, curl_easy_strerror(code)));
    }
    long status = 0;
    curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &status);
    Json reply = Json::parse(answer, nullptr, /*allow_exceptions=*/false);
    if (status != 200 || !reply.is_object()) {
      return absl::UnavailableError(
          fmt::format("etcd at {}: {} answers {}: {}", base_, path, status, answer.substr(0, 200)));
    }
    return reply;
  }

 private:
  const std::string base_;
  CURL* const curl_;
};

// What is held, as the store knows it. Its calls block: they are made on the lease's thread.
class EtcdStore {
 public:
  EtcdStore(std::string base, std::string key, Duration ttl, std::string name)
      : client_(std::move(base), ttl / 5),
        key_(Base64(key)),
        term_key_(Base64(key + "/term")),
        // Not less than this router believes to hold it.
        seconds_(std::chrono::ceil<std::chrono::seconds>(ttl).count()),
        name_(std::move(name)) {}

  absl::StatusOr<std::optional<uint64_t>> TryAcquire(uint64_t above) {
    ASSIGN_OR_RETURN(const Json holder, client_.Post("/v3/kv/range", {{"key", key_}}));
    if (Number(holder, "count") > 0) return std::optional<uint64_t>();
    ASSIGN_OR_RETURN(const Json last, client_.Post("/v3/kv/range", {{"key", term_key_}}));
    uint64_t stored = 0, revision = 0;
    if (const Json kvs = last.value("kvs", Json::array()); !kvs.empty() && kvs[0].is_object()) {
      revision = Number(kvs[0], "mod_revision");
      std::string text;
      if (absl::Base64Unescape(kvs[0].value("value", ""), &text)) {
        std::from_chars(text.data(), text.data() + text.size(), stored);
      }
    }
    ASSIGN_OR_RETURN(const Json granted,
                     client_.Post("/v3/lease/grant", {{"TTL", std::to_string(seconds_)}}));
    const std::string lease = std::to_string(Number(granted, "ID"));
    const uint64_t term = NextTerm(stored, above);
    ASSIGN_OR_RETURN(const Json done, client_.Post("/v3/kv/txn", Claim(lease, revision, term)));
    if (!done.value("succeeded", false)) {
      (void)client_.Post("/v3/lease/revoke", {{"ID", lease}});
      return std::optional<uint64_t>();  // another was faster
    }
    lease_ = lease;
    return std::optional<uint64_t>(term);
  }

  absl::Status Renew() {
    ASSIGN_OR_RETURN(const Json reply, client_.Post("/v3/lease/keepalive", {{"ID", lease_}}));
    // A lease that has run out is answered with a TTL of 0, which JSON leaves out.
    if (Number(reply.value("result", Json::object()), "TTL") > 0) return absl::OkStatus();
    return absl::AbortedError("the lease in etcd has run out");
  }

  void Release() {
    if (!lease_.empty()) (void)client_.Post("/v3/lease/revoke", {{"ID", lease_}});
    lease_.clear();
  }

 private:
  // Nobody holds the key, and the last term is still the one that was read.
  Json Claim(const std::string& lease, uint64_t term_revision, uint64_t term) const {
    return {{"compare",
             {{{"key", key_}, {"target", "CREATE"}, {"result", "EQUAL"}, {"create_revision", "0"}},
              {{"key", term_key_},
               {"target", "MOD"},
               {"result", "EQUAL"},
               {"mod_revision", std::to_string(term_revision)}}}},
            {"success",
             {{{"request_put",
                {{"key", key_},
                 {"lease", lease},
                 {"value", Base64(fmt::format("{} term {}", name_, term))}}}},
              {{"request_put", {{"key", term_key_}, {"value", Base64(std::to_string(term))}}}}}}};
  }

  EtcdClient client_;
  const std::string key_, term_key_;  // base64
  const int64_t seconds_;
  const std::string name_;
  std::string lease_;  // etcd's id of what we hold
};

class EtcdLease final : public Lease {
 public:
  EtcdLease(Loop& loop, std::unique_ptr<EtcdStore> store)
      : loop_(loop), store_(std::move(store)), thread_([this] { RunCalls(); }) {}

  ~EtcdLease() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    called_.notify_one();
    thread_.join();
  }

  Task<absl::StatusOr<std::optional<uint64_t>>> TryAcquire(uint64_t above) override {
    auto result = std::make_shared<absl::StatusOr<std::optional<uint64_t>>>();
    auto done = std::make_shared<Slot>(loop_);
    Call([this, above, result] { *result = store_->TryAcquire(above); }, done);
    (void)co_await done->Wait();
    co_return *result;
  }

  Task<absl::Status> Renew() override {
    auto result = std::make_shared<absl::Status>();
    auto done = std::make_shared<Slot>(loop_);
    Call([this, result] { *result = store_->Renew(); }, done);
    (void)co_await done->Wait();
    co_return *result;
  }

  Task<void> Release() override {
    auto done = std::make_shared<Slot>(loop_);
    Call([this] { store_->Release(); }, done);
    (void)co_await done->Wait();
  }

 private:
  struct Job {
    std::function<void()> call;
    std::shared_ptr<Slot> done;  // the waiting coroutine may be gone by then
  };

  void Call(std::function<void()> call, std::shared_ptr<Slot> done) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back({std::move(call), std::move(done)});
    }
    called_.notify_one();
  }

  // What is queued is still done at the end: it may be the release.
  void RunCalls() {
    std::unique_lock lock(mutex_);
    while (true) {
      called_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job.call();
      loop_.Post([done = std::move(job.done)] { done->Wake(); });
      lock.lock();
    }
  }

  Loop& loop_;
  const std::unique_ptr<EtcdStore> store_;
  std::mutex mutex_;
  std::condition_variable called_;
  std::deque<Job> jobs_;  // guarded by mutex_
  bool ending_ = false;   // guarded by mutex_
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Lease>> OpenEtcdLease(Loop& loop, std::string_view url, Duration ttl,
                                                     std::string_view name) {
  constexpr std::string_view kScheme = "http://";
  const size_t slash = url.find('/', kScheme.size());
  if (url.substr(0, kScheme.size()) != kScheme || slash == std::string_view::npos ||
      slash + 1 == url.size() || slash == kScheme.size()) {
    return MakeError(Reason::kInvalidValue,
                     fmt::format("--lease etcd:{}: use etcd:http://HOST:PORT/KEY", url));
  }
  if (ttl < std::chrono::seconds(2)) {
    return MakeError(Reason::kInvalidValue, "--lease-ttl: etcd keeps no lease below 2 s");
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return std::make_unique<EtcdLease>(
      loop,
      std::make_unique<EtcdStore>(std::string(url.substr(0, slash)),
                                  std::string(url.substr(slash + 1)), ttl, std::string(name)));
}

}  // namespace bottega
