#pragma once

#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "core/base/reason.h"

namespace bottega {

// "This model directory is not understood or is damaged": the one status that ends a program with
// exit code 3. The message names the file and the field or tensor.
template <class... Parts>
absl::Status RefuseModel(const Parts&... parts) {
  // absl::string_view is its own type here and does not convert from std::string_view.
  auto piece = [](const auto& part) -> decltype(auto) {
    if constexpr (std::is_same_v<std::decay_t<decltype(part)>, std::string_view>) {
      return absl::string_view(part.data(), part.size());
    } else {
      return (part);
    }
  };
  return MakeError(Reason::kModelRefused, absl::StrCat(piece(parts)...));
}

}  // namespace bottega
