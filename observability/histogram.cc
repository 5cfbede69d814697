#include "observability/histogram.h"

namespace bottega::metrics {

const std::vector<double>& TimeToFirstTokenBuckets() {
  static const std::vector<double> buckets{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                           1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
  return buckets;
}

const std::vector<double>& InterTokenBuckets() {
  static const std::vector<double> buckets{.001, .0025, .005, .01, .025, .05, .075, .1,
                                           .15,  .2,    .3,   .4,  .5,   .75, 1,    2.5,
                                           5,    7.5,   10,   20,  40,   80};
  return buckets;
}

const std::vector<double>& EndToEndBuckets() {
  static const std::vector<double> buckets{.01, .05, .1,  .3,  .5,  .8,  1,    1.5,
                                           2,   2.5, 5,   10,  15,  20,  30,   40,
                                           50,  60,  120, 240, 480, 960, 1920, 7680};
  return buckets;
}

const std::vector<double>& FineBuckets() {
  static const std::vector<double> buckets{1e-5, 2.5e-5, 5e-5,   1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3,
                                           5e-3, 1e-2,   2.5e-2, 5e-2, .1,     .25,  .5,   1};
  return buckets;
}

const std::vector<double>& RowBuckets() {
  static const std::vector<double> buckets{1,   8,    16,   32,   64,   128,  256,
                                           512, 1024, 2048, 4096, 8192, 16384};
  return buckets;
}

const std::vector<double>& ImbalanceBuckets() {
  static const std::vector<double> buckets{1, 1.05, 1.1, 1.25, 1.5, 2, 3, 4, 8};
  return buckets;
}

std::vector<double> TokenBuckets(double context) {
  std::vector<double> buckets;
  for (double decade = 1;; decade *= 10) {
    for (double step : {1.0, 2.0, 5.0}) {
      buckets.push_back(decade * step);
      if (decade * step >= context) return buckets;
    }
  }
}

}  // namespace bottega::metrics
