#pragma once

#include <cstdint>
#include <vector>

#include "core/base/strong_id.h"

namespace bottega {

// Which experts are ready to serve here.
class ExpertSet {
 public:
  ExpertSet(uint32_t layers, uint32_t experts)
      : layers_(layers), experts_(experts), held_(size_t{layers} * experts) {}

  bool Holds(LayerId layer, ExpertId expert) const {
    return layer.value < layers_ && expert.value < experts_ && held_[Index(layer, expert)];
  }
  void Add(LayerId layer, ExpertId expert) {
    if (!held_[Index(layer, expert)]) ++size_;
    held_[Index(layer, expert)] = true;
  }
  void Remove(LayerId layer, ExpertId expert) {
    if (held_[Index(layer, expert)]) --size_;
    held_[Index(layer, expert)] = false;
  }
  size_t size() const { return size_; }
  uint32_t layers() const { return layers_; }
  uint32_t experts() const { return experts_; }  // per layer

 private:
  size_t Index(LayerId layer, ExpertId expert) const {
    return size_t{layer.value} * experts_ + expert.value;
  }
  uint32_t layers_;
  uint32_t experts_;
  std::vector<bool> held_;  // [layers * experts]
  size_t size_ = 0;
};

}  // namespace bottega
