#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "gateway/answer_format.h"
#include "gateway/reply.h"

namespace bottega::gateway {

// Brings the deltas of a request to its client: as events while they come, or folded into one body
// at the end.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  AnswerHead head;

  virtual void Delta(const ChoiceDelta& delta, const Usage& usage_so_far) = 0;
  virtual void End(const Usage& usage) = 0;
  // As a refusal with its status if nothing was sent yet, else inside the stream.
  virtual void Fail(const absl::Status& error) = 0;
  // Nothing came for a while.
  virtual void KeepAlive() = 0;
  // The client does not read, or is gone: nothing more can be brought.
  virtual bool broken() const = 0;
  virtual bool begun() const = 0;
};

struct WriterOptions {
  std::shared_ptr<Reply> reply;
  std::unique_ptr<AnswerFormat> format;
  std::string request_id;
  int choices = 1;
  int overload_status = 0;
  // Streams only.
  bool include_usage = false;
  bool continuous_usage = false;
};

std::unique_ptr<AnswerWriter> MakeStreamWriter(WriterOptions options);
std::unique_ptr<AnswerWriter> MakeWholeWriter(WriterOptions options);

}  // namespace bottega::gateway
