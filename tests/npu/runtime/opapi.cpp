// A simulated libopapi.so for trace mode: counts the launches of each aclnn operator, computes
// nothing. The operators themselves are generated from the names in torch_npu (OPERATOR(name)).
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {
std::mutex lock_;
std::map<std::string, long> launches;
std::map<int, long> devices;  // launches by the device that was current

int current_device() {
  using Ask = int (*)(int*);
  static Ask ask = reinterpret_cast<Ask>(
      dlsym(dlopen("libascendcl.so", RTLD_LAZY | RTLD_NOLOAD), "aclrtGetDevice"));
  int device = -1;
  ask(&device);
  return device;
}
}  // namespace

extern "C" {

void simulation_launch(const char* name) {
  std::lock_guard<std::mutex> guard(lock_);
  launches[name] += 1;
  devices[current_device()] += 1;
}

long simulation_launched_on(int device) {
  std::lock_guard<std::mutex> guard(lock_);
  return devices[device];
}

void simulation_reset() {
  std::lock_guard<std::mutex> guard(lock_);
  launches.clear();
  devices.clear();
}

// "name count\n" for each operator; returns the length that the whole text has.
size_t simulation_launches(char* text, size_t size) {
  std::lock_guard<std::mutex> guard(lock_);
  std::string all;
  for (auto& entry : launches) all += entry.first + " " + std::to_string(entry.second) + "\n";
  std::snprintf(text, size, "%s", all.c_str());
  return all.size();
}

// Descriptors are never looked into: a byte of their own is enough.
#define DESCRIPTOR(kind)                                  \
  void* aclCreate##kind(...) { return std::malloc(1); }   \
  int aclDestroy##kind(void* made) {                      \
    std::free(made);                                      \
    return 0;                                             \
  }
DESCRIPTOR(Tensor)
DESCRIPTOR(Scalar)
DESCRIPTOR(IntArray)
DESCRIPTOR(FloatArray)
DESCRIPTOR(BoolArray)
DESCRIPTOR(TensorList)
DESCRIPTOR(ScalarList)

#define OPERATOR(name)                                    \
  int name##GetWorkspaceSize(...) { return 0; }           \
  int name(...) {                                         \
    simulation_launch(#name);                             \
    return 0;                                             \
  }
#define OTHER(name) \
  int name(...) { return 0; }
#include "operators.inc"

}  // extern "C"
