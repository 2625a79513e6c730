// What of the CUDA driver a solve asks for, played by four threads of the processor; its machine code is a library.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using Kernel = void (*)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, int64_t, int64_t, int64_t,
                       int64_t, int64_t);

extern "C" {

int cuModuleLoadData(void** module, const char* path) {
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *module ? 0 : 200;  // CUDA_ERROR_INVALID_IMAGE
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, name);
  return *function ? 0 : 500;  // CUDA_ERROR_NOT_FOUND
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  *blocks = 2;
  return 0;
}

int cuLaunchKernel(void* function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned,
                   void*, void** arguments, void** extra) {
  if (blocks == 0 || blocks > 4 || threads == 0 || extra) return 1;  // CUDA_ERROR_INVALID_VALUE
  const auto pointer = [&](int at) { return *static_cast<void**>(arguments[at]); };
  const auto number = [&](int at) { return *static_cast<int64_t*>(arguments[at]); };
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 4; worker++)
    workers.emplace_back(reinterpret_cast<Kernel>(function), pointer(0), pointer(1), pointer(2), pointer(3), pointer(4),
                         pointer(5), pointer(6), pointer(7), pointer(8), pointer(9), number(10), number(11), number(12),
                         number(13), number(14));
  for (auto& worker : workers) worker.join();
  return 0;
}
}
