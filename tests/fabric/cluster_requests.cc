#include "tests/fabric/cluster_requests.h"

#include <algorithm>
#include <map>
#include <random>

#include "core/base/check.h"
#include "gateway/json.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {

using gateway::Api;
using gateway::Json;
using namespace std::chrono_literals;

namespace {

constexpr uint32_t kRequests = 24;

KnownRequest MakeRequest(uint32_t index) {
  std::mt19937 random(index);
  KnownRequest request;
  request.api = index % 3 == 0 ? Api::kChat : Api::kCompletion;
  Json body = {{"max_tokens", 6 + random() % 40},
               {"ignore_eos", index % 8 != 7},
               {"temperature", index % 2 == 0 ? 0 : 1},
               {"seed", index},
               {"return_token_ids", true},
               {"n", index % 5 == 0 ? 2 : 1},
               {"stream", index % 4 == 1}};
  if (request.api == Api::kChat) {
    body["messages"] = {{{"role", "user"}, {"content", "Domanda " + std::to_string(index * 37)}}};
    body["logprobs"] = true;
    body["top_logprobs"] = 3;
  } else {
    std::vector<uint32_t> prompt(1 + random() % 60);
    for (uint32_t& id : prompt) id = random() % 1000;
    // Half of them begin alike for a while: the prefix cache has a part of them.
    if (index % 2 == 1) {
      const size_t shared = random() % 64;
      for (size_t i = 0; i < shared; ++i) {
        i < prompt.size() ? prompt[i] = i * 13 % 1000 : prompt.emplace_back(i * 13 % 1000);
      }
      prompt.push_back(index);
      if (index % 4 == 3) body["cache_salt"] = "a tenant";
    }
    body["prompt"] = prompt;
    body["logprobs"] = 3;
  }
  request.body = body.dump();
  return request;
}

std::vector<KnownRequest> AskAll() {
  ClusterWorld cluster({.seed = 1,
                        .attention_workers = 1,
                        .expert_workers = 1,
                        .prefix_cache = false,
                        .draft_tokens = 0});
  CHECK(cluster.BecomeReady());
  std::vector<KnownRequest> requests;
  for (uint32_t i = 0; i < kRequests; ++i) {
    KnownRequest request = MakeRequest(i);
    const std::shared_ptr<Answer> answer = cluster.Ask(request.api, request.body);
    CHECK(cluster.RunUntil([&] { return answer->done(); }, 60s));
    request.answer = Comparable(*answer);
    if (answer->status() != 200) std::fprintf(stderr, "%s\n", request.answer.c_str());
    CHECK(answer->status() == 200);
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace

const std::vector<KnownRequest>& KnownRequests() {
  static const std::vector<KnownRequest> requests = AskAll();
  return requests;
}

std::string Comparable(const Answer& answer) {
  const std::string& body = answer.body();
  if (answer.status() != 200) return body;
  const auto part = [](const Json& json) {
    Json usage = json.value("usage", Json());
    if (usage.is_object()) usage.erase("prompt_tokens_details");  // what was cached depends
    const Json kept = {{"choices", json["choices"]}, {"usage", usage}};
    return gateway::DumpJson(kept) + "\n";
  };
  const auto parse = [](const std::string& text) {
    Json json = Json::parse(text, nullptr, false);
    return json.is_object() && json.contains("choices") ? json : Json();
  };
  if (!body.starts_with("data: ")) {
    const Json json = parse(body);
    return json.is_null() ? body : part(json);
  }
  // The chunks of several choices come as they come: each choice's own are in order.
  std::map<int, std::string> choices;
  std::string rest;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = std::min(body.find('\n', at), body.size());
    const std::string line = body.substr(at, end - at);
    at = end + 1;
    if (!line.starts_with("data: ")) continue;
    const Json json = parse(line.substr(6));
    if (json.is_null()) {
      rest += line + "\n";
    } else {
      choices[json["choices"].empty() ? -1 : json["choices"][0]["index"].get<int>()] += part(json);
    }
  }
  std::string all;
  for (const auto& [index, chunks] : choices) all += chunks;
  return all + rest;
}

}  // namespace bottega::fabric
