/* What a container's programs load first, by /etc/ld.so.preload: a wall clock and a disk that are not as they
 * seem. The first 64 bytes of /dev/shm/pretend say how, as text: the clock's offset in seconds, then how the disk
 * below /var/lib/sweepfw is: `whole`, `full` (nothing grows), `read-only`, or `failing` (no sync succeeds). Whoever
 * writes there changes it at once for all programs of the container. A service (not its health check) that finds
 * /var/lib/sweepfw/.crash at its start takes that for SWEEPFW_CRASH, once. The monotonic clock stays as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef STATE
#define STATE "/var/lib/sweepfw"
#endif
#ifndef TOLD
#define TOLD "/dev/shm/pretend"
#endif
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const volatile char *told;

__attribute__((constructor)) static void begin(void) {
  int file = open(TOLD, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file >= 0) {
    if (lseek(file, 0, SEEK_END) < 64) {
      char blank[64] = "0 whole\n";
      ssize_t unused = pwrite(file, blank, sizeof blank, 0);
      (void)unused;
    }
    void *page = mmap(NULL, 64, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) told = page;
    close(file);
  }
  char words[4096] = "", crash[128] = "";
  int line = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t length = line < 0 ? 0 : read(line, words, sizeof words - 1);
  if (line >= 0) close(line);
  if (!memmem(words, length > 0 ? length : 0, "sweepfw.engine.service", 22)) return;
  if (memmem(words, length, "--health", 8)) return;
  int point = open(STATE "/.crash", O_RDONLY | O_CLOEXEC);
  if (point < 0) return;
  length = read(point, crash, sizeof crash - 1);
  close(point);
  unlink(STATE "/.crash");
  crash[strcspn(crash, "\n")] = 0;
  if (length > 0 && crash[0]) setenv("SWEEPFW_CRASH", crash, 1);
}

/* -- the clock ------------------------------------------------------------------------------------- */

static long offset(void) { return told ? strtol((const char *)told, NULL, 10) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = NEXT(clock_gettime);
  int failed = next(clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
  return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
  static int (*next)(struct timeval *, void *);
  if (!next) next = NEXT(gettimeofday);
  int failed = next(now, zone);
  if (!failed) now->tv_sec += offset();
  return failed;
}

time_t time(time_t *kept) {
  static time_t (*next)(time_t *);
  if (!next) next = NEXT(time);
  time_t now = next(NULL) + offset();
  if (kept) *kept = now;
  return now;
}

/* -- the disk -------------------------------------------------------------------------------------- */

static int disk(const char *how) {
  if (!told) return 0;
  const char *space = strchr((const char *)told, ' ');
  return space && strncmp(space + 1, how, strlen(how)) == 0;
}

static int refuse(int why) {
  errno = why;
  return -1;
}

static int ours(int file) {
  char link[64], path[256];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  return length > 0 && strncmp(path, STATE "/", sizeof STATE) == 0;
}

/* Whether it can't be written so far in the file; -1 stands for its place, or its end. */
static int unwritable(int file, off_t end, size_t count) {
  if (disk("whole") || !told || !ours(file)) return 0;
  if (disk("read-only")) return EROFS;
  struct stat status;
  if (!disk("full") || fstat(file, &status) || !S_ISREG(status.st_mode)) return 0;
  if (end < 0) end = (fcntl(file, F_GETFL) & O_APPEND ? status.st_size : lseek(file, 0, SEEK_CUR)) + (off_t)count;
  return end > status.st_size ? ENOSPC : 0;
}

#define CHECK(end, count)                                                                                              \
  int why = unwritable(file, end, count);                                                                              \
  if (why) return refuse(why);

ssize_t write(int file, const void *data, size_t count) {
  static ssize_t (*next)(int, const void *, size_t);
  if (!next) next = NEXT(write);
  CHECK(-1, count)
  return next(file, data, count);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
  CHECK(-1, 1)
  return syscall(SYS_writev, file, parts, number);
}

ssize_t pwrite64(int file, const void *data, size_t count, off_t at) {
  static ssize_t (*next)(int, const void *, size_t, off_t);
  if (!next) next = NEXT(pwrite64);
  CHECK(at + (off_t)count, count)
  return next(file, data, count, at);
}
ssize_t pwrite(int file, const void *data, size_t count, off_t at) { return pwrite64(file, data, count, at); }

int ftruncate64(int file, off_t size) {
  static int (*next)(int, off_t);
  if (!next) next = NEXT(ftruncate64);
  CHECK(size, 0)
  return next(file, size);
}
int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int no_sync(int file) { return disk("failing") && ours(file); }

int fsync(int file) {
  static int (*next)(int);
  if (!next) next = NEXT(fsync);
  return no_sync(file) ? refuse(EIO) : next(file);
}

int fdatasync(int file) {
  static int (*next)(int);
  if (!next) next = NEXT(fdatasync);
  return no_sync(file) ? refuse(EIO) : next(file);
}

/* Absolute paths only: what the services open below their state. */
static int closed_for(const char *path, int flags) {
  return disk("read-only") && (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) &&
         strncmp(path, STATE "/", sizeof STATE) == 0;
}

#define OPEN(name)                                                                                                     \
  int name(const char *path, int flags, ...) {                                                                         \
    static int (*next)(const char *, int, ...);                                                                        \
    if (!next) next = NEXT(name);                                                                                      \
    va_list more;                                                                                                      \
    va_start(more, flags);                                                                                             \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                                            \
    va_end(more);                                                                                                      \
    return closed_for(path, flags) ? refuse(EROFS) : next(path, flags, mode);                                          \
  }
OPEN(open)
OPEN(open64)

#define PATH1(name, args, call)                                                                                        \
  int name args {                                                                                                      \
    static int(*next) args;                                                                                            \
    if (!next) next = NEXT(name);                                                                                      \
    return closed_for(path, O_WRONLY) ? refuse(EROFS) : next call;                                                     \
  }
PATH1(mkdir, (const char *path, mode_t mode), (path, mode))
PATH1(unlink, (const char *path), (path))
PATH1(rename, (const char *path, const char *to), (path, to))
