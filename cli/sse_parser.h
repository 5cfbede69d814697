#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace bottega {

// Server-sent events out of a byte stream that may be cut anywhere. Lines end in LF, CR or CRLF;
// of the fields only `data` is of interest (several of one event are joined by LF).
class SseParser {
 public:
  // `on_data` gets the data of each event and returns whether more is wanted.
  explicit SseParser(std::function<bool(std::string_view data)> on_data);

  // False, for good, once `on_data` has said so or an event has grown past kClientEventBytesMax.
  // An event that the stream's end cuts off is never given out.
  bool Feed(std::string_view bytes);
  bool too_long() const { return too_long_; }

 private:
  void EndLine();

  const std::function<bool(std::string_view)> on_data_;
  std::string line_;
  std::string data_;      // each line with an LF behind it
  bool skip_lf_ = false;  // the last byte was a CR
  bool first_line_ = true;
  bool open_ = true;
  bool too_long_ = false;
};

}  // namespace bottega
