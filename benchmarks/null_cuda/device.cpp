// The CUDA runtime of a device that computes nothing: memory is allocated and counted, kernels are only counted.
// The rest of the runtime, of cuBLAS and of the driver is generated and returns success.
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace {
std::mutex lock;
std::unordered_map<void*, size_t> held;
size_t used = 0, peak = 0;
std::atomic<long> launches{0}, waits{0}, copies_there{0}, copies_back{0};

size_t total() {
  static const size_t bytes = atof(getenv("NULL_CUDA_GIB") ? getenv("NULL_CUDA_GIB") : "80") * (1ull << 30);
  return bytes;
}

// One line per process, when it ends.
struct Report {
  ~Report() {
    const char* path = getenv("NULL_CUDA_REPORT");
    FILE* file = path && launches ? fopen(path, "a") : nullptr;
    if (!file) return;
    fprintf(file, "%ld operations, %ld waits, %ld copies to the device, %ld back, peak %.2f GB reserved\n",
            launches.load(), waits.load(), copies_there.load(), copies_back.load(), peak / 1e9);
    fclose(file);
  }
} report;

cudaError_t launched() { launches++; return cudaSuccess; }
cudaError_t waited() { waits++; return cudaSuccess; }

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDeviceToDevice) return launched();
  (kind == cudaMemcpyDeviceToHost ? copies_back : copies_there)++;
  // A single number that is read is 1: nothing divides by zero or waits until it is positive.
  const float one = 1;
  if (kind == cudaMemcpyDeviceToHost && bytes == sizeof one) from = &one;
  memcpy(to, from, bytes);
  return cudaSuccess;
}
}  // namespace

extern "C" {
int null_cuda_launched() { return launched(); }

// --- Kernels, which register themselves when their library is loaded ------------------------------------------------
void** __cudaRegisterFatBinary(void*) { static void* handle[1]; return handle; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 0; }
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = *block = dim3(1);
  *shared = 0;
  *static_cast<void**>(stream) = nullptr;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return launched(); }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return launched(); }
cudaError_t cudaLaunchCooperativeKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return launched(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return launched(); }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  memset(attributes, 0, sizeof *attributes);
  attributes->binaryVersion = attributes->ptxVersion = 90;
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  *blocks = 2;
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** address, const void*) {
  static char room[1 << 16];
  *address = room;
  return cudaSuccess;
}

// --- The device: the sizes of an H100 ------------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "null CUDA"; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "not known to the null device";
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int) {
  memset(device, 0, sizeof *device);
  strcpy(device->name, "null CUDA device");
  device->totalGlobalMem = total();
  device->major = 9;
  device->multiProcessorCount = 132;
  device->maxThreadsPerBlock = 1024;
  device->maxThreadsPerMultiProcessor = 2048;
  device->maxBlocksPerMultiProcessor = 32;
  device->warpSize = 32;
  device->sharedMemPerBlock = 49152;
  device->sharedMemPerBlockOptin = 232448;
  device->sharedMemPerMultiprocessor = 233472;
  device->regsPerBlock = device->regsPerMultiprocessor = 65536;
  device->l2CacheSize = 50 << 20;
  device->textureAlignment = 512;
  for (int i = 0; i < 3; i++) {
    device->maxGridSize[i] = i ? 65535 : 2147483647;
    device->maxThreadsDim[i] = i == 2 ? 64 : 1024;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    default: *value = 1;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
  snprintf(id, length, "0000:00:00.0");
  return cudaSuccess;
}
static int nothing() { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = reinterpret_cast<void*>(nothing);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// --- Memory: reserved and counted; pages are real only after a write --------------------------------------------------
cudaError_t cudaMemGetInfo(size_t* free, size_t* whole) {
  std::lock_guard<std::mutex> guard(lock);
  *whole = total();
  *free = total() - used;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** address, size_t bytes) {
  std::lock_guard<std::mutex> guard(lock);
  if (used + bytes > total()) return cudaErrorMemoryAllocation;
  *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (*address == MAP_FAILED) return cudaErrorMemoryAllocation;
  held[*address] = bytes;
  used += bytes;
  if (used > peak) peak = used;
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = held.find(address);
  if (found == held.end()) return cudaSuccess;
  munmap(address, found->second);
  used -= found->second;
  held.erase(found);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) { *address = calloc(1, bytes); return cudaSuccess; }
cudaError_t cudaFreeHost(void* address) { free(address); return cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return copy(to, from, bytes, kind);
}
cudaError_t cudaMemset(void*, int, size_t) { return launched(); }
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return launched(); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  memset(attributes, 0, sizeof *attributes);
  return cudaSuccess;
}

// --- Streams and events ----------------------------------------------------------------------------------------------
cudaError_t cudaStreamSynchronize(cudaStream_t) { return waited(); }
cudaError_t cudaDeviceSynchronize() { return waited(); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return waited(); }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = static_cast<cudaStream_t>(malloc(8));
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t*, const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  *status = cudaStreamCaptureStatusNone;
  if (id) *id = 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = static_cast<cudaEvent_t>(malloc(8));
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}

// --- cuBLAS: handles, and one algorithm for every product ------------------------------------------------------------
int cublasCreate_v2(void** handle) { *handle = malloc(64); return 0; }
int cublasLtCreate(void** handle) { *handle = malloc(64); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* results, int* found) {
  memset(results, 0, 96);  // cublasLtMatmulHeuristicResult_t: success, no workspace
  *found = 1;
  return 0;
}
size_t cublasLtGetVersion() { return CUDART_VERSION * 10; }
size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }
}
