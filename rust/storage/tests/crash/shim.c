/* Records what a process writes below a folder, and when it syncs.
 *
 * Loaded with LD_PRELOAD. Every call that changes a file or a folder below $CRASH_ROOT is appended to the file
 * $CRASH_TRACE before it is made; a sync is recorded when it begins and when it has returned. What a write "did"
 * is thus known to be lost or kept at the disk's pleasure between its record and the end of a later sync.
 *
 * A record: kind (u8), id (u64), offset (u64), length of the path (u32), length of the data (u32), path, data; all
 * little endian as on the machines that run this. The id of an END is that of the record that it ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, RENAME, WRITE, SYNC, END, TRUNCATE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static uint64_t next_id = 1;
static const char *root;

__attribute__((constructor)) static void start(void) {
    root = getenv("CRASH_ROOT");
    const char *path = getenv("CRASH_TRACE");
    if (root && path) trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void emit(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        long written = syscall(SYS_write, trace, at, length);
        if (written <= 0) abort();
        at += written;
        length -= (size_t)written;
    }
}

static int watched(const char *path) {
    return trace >= 0 && strncmp(path, root, strlen(root)) == 0;
}

/* The path of an open file, if it is watched. */
static int path_of(int fd, char *path, size_t size) {
    if (trace < 0) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return watched(path);
}

/* An absolute path, if it is watched. */
static int absolute(const char *given, char *path, size_t size) {
    if (trace < 0) return 0;
    if (given[0] == '/') snprintf(path, size, "%s", given);
    else {
        char folder[2048];
        if (!getcwd(folder, sizeof folder)) return 0;
        snprintf(path, size, "%s/%s", folder, given);
    }
    return watched(path);
}

static uint64_t record_parts(uint8_t kind, uint64_t id, uint64_t offset, const char *path,
                             const struct iovec *parts, int count) {
    pthread_mutex_lock(&lock);
    if (!id) id = next_id++;
    uint32_t path_length = (uint32_t)strlen(path), data_length = 0;
    for (int i = 0; i < count; i++) data_length += (uint32_t)parts[i].iov_len;
    emit(&kind, 1);
    emit(&id, 8);
    emit(&offset, 8);
    emit(&path_length, 4);
    emit(&data_length, 4);
    emit(path, path_length);
    for (int i = 0; i < count; i++) emit(parts[i].iov_base, parts[i].iov_len);
    pthread_mutex_unlock(&lock);
    return id;
}

static uint64_t record(uint8_t kind, uint64_t id, uint64_t offset, const char *path, const void *data, size_t length) {
    struct iovec part = {(void *)data, length};
    return record_parts(kind, id, offset, path, &part, 1);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Writes through a descriptor that syncs each of them end when they return. */
static int syncs_itself(int fd) {
    return (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
}

#define RECORDED_WRITE(fd, offset, parts, count, call)                                                                 \
    do {                                                                                                               \
        char path[4096];                                                                                               \
        if (!path_of(fd, path, sizeof path)) return call;                                                              \
        uint64_t id = record_parts(WRITE, 0, (uint64_t)(offset), path, parts, count);                                  \
        ssize_t result = call;                                                                                         \
        int saved = errno;                                                                                             \
        if (result >= 0 && syncs_itself(fd)) record(END, id, 0, path, "", 0);                                          \
        errno = saved;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    struct iovec part = {(void *)data, length};
    RECORDED_WRITE(fd, offset, &part, 1, REAL(pwrite)(fd, data, length, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    struct iovec part = {(void *)data, length};
    RECORDED_WRITE(fd, offset, &part, 1, REAL(pwrite64)(fd, data, length, offset));
}

static off_t position(int fd) {
    return lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t length) {
    struct iovec part = {(void *)data, length};
    RECORDED_WRITE(fd, position(fd), &part, 1, REAL(write)(fd, data, length));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    RECORDED_WRITE(fd, position(fd), parts, count, REAL(writev)(fd, parts, count));
}

#define RECORDED_SYNC(fd, call)                                                                                        \
    do {                                                                                                               \
        char path[4096];                                                                                               \
        if (!path_of(fd, path, sizeof path)) return call;                                                              \
        uint64_t id = record(SYNC, 0, 0, path, "", 0);                                                                 \
        int result = call;                                                                                             \
        int saved = errno;                                                                                             \
        if (result == 0) record(END, id, 0, path, "", 0);                                                              \
        errno = saved;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

int fdatasync(int fd) { RECORDED_SYNC(fd, REAL(fdatasync)(fd)); }

int fsync(int fd) { RECORDED_SYNC(fd, REAL(fsync)(fd)); }

int ftruncate(int fd, off_t length) {
    char path[4096];
    if (path_of(fd, path, sizeof path)) record(TRUNCATE, 0, (uint64_t)length, path, "", 0);
    return REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    char path[4096];
    if (path_of(fd, path, sizeof path)) record(TRUNCATE, 0, (uint64_t)length, path, "", 0);
    return REAL(ftruncate64)(fd, length);
}

int mkdir(const char *given, mode_t mode) {
    char path[4096];
    if (absolute(given, path, sizeof path) && access(path, F_OK) != 0) record(MKDIR, 0, 0, path, "", 0);
    return REAL(mkdir)(given, mode);
}

int rename(const char *from, const char *to) {
    char old[4096], new[4096];
    if (absolute(from, old, sizeof old) && absolute(to, new, sizeof new)) record(RENAME, 0, 0, old, new, strlen(new));
    return REAL(rename)(from, to);
}

static void opening(const char *given, int flags) {
    char path[4096];
    if (!(flags & O_CREAT) || !absolute(given, path, sizeof path)) return;
    if (access(path, F_OK) != 0) record(CREATE, 0, 0, path, "", 0);
    else if (flags & O_TRUNC) record(TRUNCATE, 0, 0, path, "", 0);
}

#define OPEN_WITH(name)                                                                                                \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;                                                      \
        va_end(rest);                                                                                                  \
        opening(path, flags);                                                                                          \
        return REAL(name)(path, flags, mode);                                                                          \
    }

OPEN_WITH(open)
OPEN_WITH(open64)
