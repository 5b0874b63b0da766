// A simulated libascendcl.so: host memory as device memory, one FIFO of copies per stream.
//
// Copies to and from the host are put off until a kernel runs (to the device) or the stream is
// synchronised (to the host), so that a missing synchronise returns stale data. Every symbol of the
// real library that is not written here is a generated stub that returns 0.
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "acl/acl_rt.h"

namespace {

constexpr int kMemoryAllocation = 207001;  // ACL_ERROR_RT_MEMORY_ALLOCATION
constexpr int kNoContext = 107002;         // ACL_ERROR_RT_CONTEXT_NULL
constexpr int kBadDevice = 107001;         // ACL_ERROR_RT_DEVICE_ID
constexpr unsigned char kGarbage = 0xFF;   // NaN in every float type: nobody may read it

struct Copy {
  void* to;
  const void* from;
  size_t size;
  std::vector<char> snapshot;  // of a copy to the host: what the device held at that point
};

struct Stream {
  std::deque<Copy> copies;
};

struct Event {
  std::chrono::steady_clock::time_point at;
  Stream* stream = nullptr;
};

struct Block {
  size_t size;
  int device;
};

std::recursive_mutex lock_;
std::map<void*, Block> blocks;
std::map<int, size_t> used, peak;
std::map<Stream*, bool> streams;
std::map<std::string, int> faults;  // function → the code it returns
std::map<std::string, int> calls;
Stream default_streams[16];
thread_local int current = -1;

using Guard = std::lock_guard<std::recursive_mutex>;

long number(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atol(text);
}

long device_count() { return number("SIMULATED_NPU_COUNT", 1); }
size_t memory() { return static_cast<size_t>(number("SIMULATED_NPU_MEMORY", 4L << 30)); }
bool tracing() { return number("SIMULATED_NPU_TRACE", 0) != 0; }

// Faults of the start come as SIMULATED_NPU_FAULTS="aclrtSetDevice=507033,…".
void read_faults() {
  static bool done = false;
  if (done) return;
  done = true;
  const char* text = std::getenv("SIMULATED_NPU_FAULTS");
  if (text == nullptr) return;
  std::string rest = text;
  while (!rest.empty()) {
    size_t comma = rest.find(','), equals = rest.find('=');
    faults[rest.substr(0, equals)] = std::atoi(rest.c_str() + equals + 1);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
  }
}

int begin(const char* name) {
  read_faults();
  calls[name] += 1;
  auto found = faults.find(name);
  return found == faults.end() ? 0 : found->second;
}

#define BEGIN()                                  \
  Guard guard(lock_);                            \
  if (int code = begin(__func__)) return code;

void run(Stream& stream) {
  for (Copy& copy : stream.copies) {
    std::memcpy(copy.to, copy.snapshot.empty() ? copy.from : copy.snapshot.data(), copy.size);
  }
  stream.copies.clear();
}

Stream& of(aclrtStream stream) {
  return stream != nullptr ? *static_cast<Stream*>(stream) : default_streams[current & 15];
}

void run_all() {
  for (auto& entry : streams) run(*entry.first);
  for (Stream& stream : default_streams) run(stream);
}

// Copies to the device happen at the latest when a kernel starts.
void run_to_device() {
  auto flush = [](Stream& stream) {
    for (Copy& copy : stream.copies) {
      if (copy.snapshot.empty() && copy.size > 0) {
        std::memcpy(copy.to, copy.from, copy.size);
        copy.size = 0;
      }
    }
  };
  for (auto& entry : streams) flush(*entry.first);
  for (Stream& stream : default_streams) flush(stream);
}

}  // namespace

extern "C" {

// --- for the tests ---

void simulation_kernel() {
  Guard guard(lock_);
  run_to_device();
}

// 0 takes the fault away.
void simulation_fault(const char* function, int code) {
  Guard guard(lock_);
  if (code == 0) {
    faults.erase(function);
  } else {
    faults[function] = code;
  }
}

int simulation_fault_of(const char* function) {
  Guard guard(lock_);
  return begin(function);
}

int simulation_calls(const char* function) {
  Guard guard(lock_);
  return calls[function];
}

size_t simulation_peak(int device) {
  Guard guard(lock_);
  return peak[device];
}

// --- devices ---

aclError aclrtGetDeviceCount(uint32_t* count) {
  BEGIN();
  *count = static_cast<uint32_t>(device_count());
  return 0;
}

const char* aclrtGetSocName() {
  const char* name = std::getenv("SIMULATED_NPU_SOC");
  return name == nullptr ? "Ascend910B3" : name;
}

aclError aclrtSetDevice(int32_t device) {
  BEGIN();
  if (device < 0 || device >= device_count()) return kBadDevice;
  current = device;
  return 0;
}

aclError aclrtGetDevice(int32_t* device) {
  BEGIN();
  if (current < 0) return kNoContext;
  *device = current;
  return 0;
}

aclError aclrtResetDevice(int32_t) { return 0; }

aclError aclrtGetCurrentContext(aclrtContext* context) {
  BEGIN();
  if (current < 0) return kNoContext;
  *context = reinterpret_cast<aclrtContext>(static_cast<intptr_t>(current) + 1);
  return 0;
}

aclError aclrtSetCurrentContext(aclrtContext context) {
  BEGIN();
  current = static_cast<int>(reinterpret_cast<intptr_t>(context)) - 1;
  return 0;
}

aclError aclrtSynchronizeDevice() {
  BEGIN();
  run_all();
  return 0;
}

aclError aclrtSynchronizeDeviceWithTimeout(int32_t) {
  BEGIN();
  run_all();
  return 0;
}

const char* aclGetRecentErrMsg() { return "(simulated)"; }

// --- memory ---

aclError aclrtMalloc(void** pointer, size_t size, aclrtMemMallocPolicy) {
  BEGIN();
  if (current < 0) return kNoContext;
  if (used[current] + size > memory()) return kMemoryAllocation;
  // Not reserved: at real size nothing is ever written to most of it.
  void* made = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) return kMemoryAllocation;
  if (!tracing()) std::memset(made, kGarbage, size);
  blocks[made] = {size, current};
  used[current] += size;
  if (used[current] > peak[current]) peak[current] = used[current];
  *pointer = made;
  return 0;
}

aclError aclrtMallocAlign32(void** pointer, size_t size, aclrtMemMallocPolicy policy) {
  return aclrtMalloc(pointer, size, policy);
}

aclError aclrtFree(void* pointer) {
  BEGIN();
  auto found = blocks.find(pointer);
  if (found == blocks.end()) return 0;
  used[found->second.device] -= found->second.size;
  munmap(pointer, found->second.size);
  blocks.erase(found);
  return 0;
}

aclError aclrtMallocHost(void** pointer, size_t size) {
  BEGIN();
  *pointer = std::malloc(size);
  return *pointer == nullptr ? kMemoryAllocation : 0;
}

aclError aclrtFreeHost(void* pointer) {
  std::free(pointer);
  return 0;
}

aclError aclrtGetMemInfo(aclrtMemAttr, size_t* free, size_t* total) {
  BEGIN();
  *total = memory();
  *free = *total - used[current < 0 ? 0 : current];
  return 0;
}

aclError aclrtMemset(void* pointer, size_t, int32_t value, size_t count) {
  BEGIN();
  run_all();
  if (!tracing()) std::memset(pointer, value, count);
  return 0;
}

aclError aclrtMemsetAsync(void* pointer, size_t most, int32_t value, size_t count, aclrtStream) {
  return aclrtMemset(pointer, most, value, count);
}

aclError aclrtMemcpy(void* to, size_t, const void* from, size_t count, aclrtMemcpyKind) {
  BEGIN();
  run_all();
  std::memcpy(to, from, count);
  return 0;
}

aclError aclrtMemcpyAsync(void* to, size_t, const void* from, size_t count, aclrtMemcpyKind kind,
                          aclrtStream stream) {
  BEGIN();
  if (kind == ACL_MEMCPY_HOST_TO_DEVICE) {
    of(stream).copies.push_back({to, from, count, {}});
    return 0;
  }
  run_to_device();
  if (kind == ACL_MEMCPY_DEVICE_TO_HOST && count > 0) {
    const char* bytes = static_cast<const char*>(from);
    of(stream).copies.push_back({to, from, count, std::vector<char>(bytes, bytes + count)});
  } else if (!tracing()) {
    std::memcpy(to, from, count);
  }
  return 0;
}

aclError aclrtPointerGetAttributes(const void* pointer, aclrtPtrAttributes* attributes) {
  Guard guard(lock_);
  std::memset(attributes, 0, sizeof(*attributes));
  auto after = blocks.upper_bound(const_cast<void*>(pointer));
  bool device = false;
  if (after != blocks.begin()) {
    auto found = std::prev(after);
    device = static_cast<const char*>(pointer) <
             static_cast<const char*>(found->first) + found->second.size;
  }
  attributes->location.type = device ? ACL_MEM_LOCATION_TYPE_DEVICE : ACL_MEM_LOCATION_TYPE_HOST;
  return 0;
}

// --- streams and events ---

aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t, uint32_t) {
  BEGIN();
  auto* made = new Stream();
  streams[made] = true;
  *stream = made;
  return 0;
}

aclError aclrtCreateStream(aclrtStream* stream) {
  return aclrtCreateStreamWithConfig(stream, 0, 0);
}

aclError aclrtDestroyStream(aclrtStream stream) {
  Guard guard(lock_);
  auto* gone = static_cast<Stream*>(stream);
  run(*gone);
  streams.erase(gone);
  delete gone;
  return 0;
}

aclError aclrtDestroyStreamForce(aclrtStream stream) { return aclrtDestroyStream(stream); }

aclError aclrtSynchronizeStream(aclrtStream stream) {
  BEGIN();
  run(of(stream));
  return 0;
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t) {
  return aclrtSynchronizeStream(stream);
}

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
  BEGIN();
  *status = of(stream).copies.empty() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
  return 0;
}

aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t) {
  BEGIN();
  *event = new Event();
  return 0;
}

aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flag) {
  return aclrtCreateEventExWithFlag(event, flag);
}

aclError aclrtDestroyEvent(aclrtEvent event) {
  delete static_cast<Event*>(event);
  return 0;
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  BEGIN();
  static_cast<Event*>(event)->at = std::chrono::steady_clock::now();
  static_cast<Event*>(event)->stream = &of(stream);
  return 0;
}

aclError aclrtResetEvent(aclrtEvent, aclrtStream) { return 0; }

aclError aclrtSynchronizeEvent(aclrtEvent event) {
  BEGIN();
  if (Stream* stream = static_cast<Event*>(event)->stream) run(*stream);
  return 0;
}

aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus* status) {
  Guard guard(lock_);
  Stream* stream = static_cast<Event*>(event)->stream;
  bool done = stream == nullptr || stream->copies.empty();
  *status = done ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY;
  return 0;
}

aclError aclrtStreamWaitEvent(aclrtStream, aclrtEvent event) { return aclrtSynchronizeEvent(event); }

aclError aclrtEventElapsedTime(float* milliseconds, aclrtEvent start, aclrtEvent end) {
  auto spent = static_cast<Event*>(end)->at - static_cast<Event*>(start)->at;
  *milliseconds = std::chrono::duration<float, std::milli>(spent).count();
  return 0;
}

}  // extern "C"
