/* A fake libnvidia-ml.so.1: plays the machine that the text file $FAKE_NVML_SCRIPT describes, read anew at each call.
 *
 * Lines, `G` being the number of a GPU:
 *   driver 550.54.14            init 9 (nvmlInit's answer)
 *   gpu G uuid|name TEXT        gpu G memory|used MIB      gpu G lost 1     gpu G ecc N      gpu G power MW
 *   gpu G utilisation 0         (the driver does not tell processes apart)
 *   gpu G process PID MIB c|g   gpu G energy MJ            gpu G mig UUID NAME... (MIG mode, one line an instance)
 *   gpu G busy PID START_US PERIOD_US ON_US PERCENT        (Unix time; on for ON_US of each PERIOD_US)
 * Energy is `energy` plus `power` times the time since the file's `since US`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GPUS 8
#define ITEMS 16
#define SUCCESS 0
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define LOST 15
typedef unsigned long long u64;
typedef unsigned int u32;

typedef struct { u32 pid; u64 mib; char kind; } process;
typedef struct { u32 pid; u64 start, period, on; u32 percent; } schedule;
typedef struct { char uuid[80], name[96]; int parent; } slice;
typedef struct {
  int index, present, lost, by_process;
  char uuid[80], name[96];
  u64 memory, used, ecc, power, energy, temperature;
  int processes, schedules, slices;
  process process[ITEMS];
  schedule schedule[ITEMS];
  slice slice[ITEMS];
} gpu;

static char driver[80];
static int init_answer, count;
static u64 since;
static gpu gpus[GPUS];
static __thread gpu copy;

static u64 now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (u64)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void take(gpu *g, const char *key, const char *rest) {
  if (!strcmp(key, "uuid")) snprintf(g->uuid, sizeof g->uuid, "%s", rest);
  else if (!strcmp(key, "name")) snprintf(g->name, sizeof g->name, "%s", rest);
  else if (!strcmp(key, "memory")) g->memory = strtoull(rest, 0, 10);
  else if (!strcmp(key, "used")) g->used = strtoull(rest, 0, 10);
  else if (!strcmp(key, "lost")) g->lost = atoi(rest);
  else if (!strcmp(key, "ecc")) g->ecc = strtoull(rest, 0, 10);
  else if (!strcmp(key, "power")) g->power = strtoull(rest, 0, 10);
  else if (!strcmp(key, "temperature")) g->temperature = strtoull(rest, 0, 10);
  else if (!strcmp(key, "energy")) g->energy = strtoull(rest, 0, 10);
  else if (!strcmp(key, "utilisation")) g->by_process = atoi(rest);
  else if (!strcmp(key, "process") && g->processes < ITEMS) {
    process *p = &g->process[g->processes++];
    sscanf(rest, "%u %llu %c", &p->pid, &p->mib, &p->kind);
  } else if (!strcmp(key, "busy") && g->schedules < ITEMS) {
    schedule *s = &g->schedule[g->schedules++];
    sscanf(rest, "%u %llu %llu %llu %u", &s->pid, &s->start, &s->period, &s->on, &s->percent);
  } else if (!strcmp(key, "mig") && g->slices < ITEMS) {
    slice *s = &g->slice[g->slices++];
    s->parent = g->index;
    sscanf(rest, "%79s %95[^\n]", s->uuid, s->name);
  }
}

static void read_script(void) {
  const char *path = getenv("FAKE_NVML_SCRIPT");
  FILE *file = path ? fopen(path, "r") : 0;
  char line[256];
  if (!file) return;
  memset(gpus, 0, sizeof gpus);
  count = init_answer = 0;
  while (fgets(line, sizeof line, file)) {
    char key[32];
    int number, used = 0;
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "driver %79s", driver) == 1 || sscanf(line, "init %d", &init_answer) == 1) continue;
    if (sscanf(line, "since %llu", &since) == 1) continue;
    if (sscanf(line, "gpu %d %31s %n", &number, key, &used) < 2 || number < 0 || number >= GPUS) continue;
    gpu *g = &gpus[number];
    if (!g->present) g->by_process = g->present = 1, g->index = number;
    if (number >= count) count = number + 1;
    take(g, key, line + used);
  }
  fclose(file);
}

/* Handles: GPU g is g + 1; instance i of it is 1000 + 100 g + i. */
static gpu *find(void *handle, slice **part) {
  u64 value = (u64)handle;
  read_script();
  if (part) *part = 0;
  if (value < 1000) return &gpus[value - 1];
  copy = gpus[(value - 1000) / 100];
  if (part) *part = &copy.slice[(value - 1000) % 100];
  return &copy;
}
#define WHOLE(g) gpu *g = find(handle, 0); if (g->lost) return LOST
#define PART(g) slice *part; gpu *g = find(handle, &part); if (g->lost) return LOST

int nvmlInitWithFlags(u32 flags) { (void)flags; read_script(); return init_answer; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return error == LOST ? "GPU is lost" : "fake error"; }
int nvmlSystemGetDriverVersion(char *to, u32 size) { read_script(); snprintf(to, size, "%s", driver); return SUCCESS; }
int nvmlDeviceGetCount_v2(u32 *to) { read_script(); *to = count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **to) {
  read_script();
  if (index >= (u32)count) return NOT_FOUND;
  if (gpus[index].lost) return LOST;
  *to = (void *)(u64)(index + 1);
  return SUCCESS;
}
int nvmlDeviceGetUUID(void *handle, char *to, u32 size) { PART(g); snprintf(to, size, "%s", part ? part->uuid : g->uuid); return SUCCESS; }
int nvmlDeviceGetName(void *handle, char *to, u32 size) { PART(g); snprintf(to, size, "%s", part ? part->name : g->name); return SUCCESS; }
int nvmlDeviceGetMinorNumber(void *handle, u32 *to) { WHOLE(g); *to = g->index; return SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *handle, u64 *to) {
  PART(g);
  u64 total = (part ? g->memory / 8 : g->memory) << 20, used = (part ? 0 : g->used) << 20;
  to[0] = total, to[1] = total - used, to[2] = used;
  return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) { WHOLE(g); *major = 9, *minor = 0; return SUCCESS; }
int nvmlDeviceGetClockInfo(void *handle, u32 kind, u32 *to) { (void)kind; WHOLE(g); *to = 1410; return SUCCESS; }
int nvmlDeviceGetTemperature(void *handle, u32 kind, u32 *to) { (void)kind; WHOLE(g); *to = g->temperature ? g->temperature : 61; return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, u64 *to) { WHOLE(g); *to = 4; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *handle, u32 kind, u32 counter, u64 *to) { (void)kind, (void)counter; WHOLE(g); *to = g->ecc; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *handle, u32 *to) { WHOLE(g); if (!g->power) return NOT_SUPPORTED; *to = g->power; return SUCCESS; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, u64 *to) {
  WHOLE(g);
  if (!g->energy) return NOT_SUPPORTED;
  *to = g->energy + g->power * (now_us() - since) / 1000000;
  return SUCCESS;
}
int nvmlDeviceGetTopologyCommonAncestor(void *handle, void *other, u32 *to) { WHOLE(g); *to = find(other, 0)->index / 2 == g->index / 2 ? 10 : 50; return SUCCESS; }
int nvmlDeviceGetMigMode(void *handle, u32 *current, u32 *pending) { WHOLE(g); *current = *pending = g->slices > 0; return SUCCESS; }
int nvmlDeviceGetMaxMigDeviceCount(void *handle, u32 *to) { WHOLE(g); *to = g->slices ? 7 : 0; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, u32 index, void **to) {
  WHOLE(g);
  if (index >= (u32)g->slices) return NOT_FOUND;
  *to = (void *)(u64)(1000 + 100 * g->index + index);
  return SUCCESS;
}
int nvmlDeviceGetGpuInstanceId(void *handle, u32 *to) { WHOLE(g); *to = (u64)handle % 100 + 1; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(void *handle, u32 *to) { WHOLE(g); *to = 0; return SUCCESS; }

typedef struct { u32 pid; u64 memory; u32 instance, compute; } process_info;
static int list(void *handle, u32 *length, process_info *to, char kind) {
  PART(g);
  u32 room = *length, found = 0;
  for (int i = 0; i < g->processes && !part; i++) {
    if (g->process[i].kind != kind) continue;
    if (to && found < room) to[found] = (process_info){g->process[i].pid, g->process[i].mib << 20, -1, -1};
    found++;
  }
  *length = found;
  return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, u32 *length, process_info *to) { return list(handle, length, to, 'c'); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, u32 *length, process_info *to) { return list(handle, length, to, 'g'); }

/* How long a schedule was on until a time. */
static u64 on_until(const schedule *s, u64 at) {
  if (at <= s->start || !s->period) return 0;
  u64 passed = at - s->start, rest = passed % s->period;
  return passed / s->period * s->on + (rest < s->on ? rest : s->on);
}
static u32 percent(const schedule *s, u64 from, u64 to) {
  return to > from ? (u32)(((on_until(s, to) - on_until(s, from)) * s->percent + (to - from) / 2) / (to - from)) : 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, u32 *to) {
  PART(g);
  if (part) return NOT_SUPPORTED;
  u64 now = now_us();
  u32 sum = 0;
  for (int i = 0; i < g->schedules; i++) sum += percent(&g->schedule[i], now - 500000, now);
  to[0] = sum > 100 ? 100 : sum, to[1] = 0;
  return SUCCESS;
}
typedef struct { u32 pid; u64 at; u32 sm, memory, encoder, decoder; } use;
int nvmlDeviceGetProcessUtilization(void *handle, use *to, u32 *length, u64 last_seen) {
  PART(g);
  if (part || !g->by_process) return NOT_SUPPORTED;
  u64 now = now_us();
  u32 room = *length, found = 0;
  for (int i = 0; i < g->schedules; i++) {
    u32 sm = percent(&g->schedule[i], last_seen, now);
    if (!sm) continue;
    if (to && found < room) to[found] = (use){g->schedule[i].pid, now, sm, 0, 0, 0};
    found++;
  }
  *length = found;
  return !found ? NOT_FOUND : !to || found > room ? INSUFFICIENT_SIZE : SUCCESS;
}
