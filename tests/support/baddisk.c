/* A disk that fails on order, below a program that knows nothing of it.
 *
 * Loaded with LD_PRELOAD, this stands between a program and libc and counts what it does to the files below one folder:
 * writes (and changes of size), syncs and reads, over all threads. The environment says what shall go wrong:
 *
 *   BADDISK_FOLDER=PATH      the files that count: all whose path begins so
 *   BADDISK_COUNTS=FILE      gets one line for each counted call, such as "sync 7 warrend.db-wal", so that a test knows how
 *                            many there are
 *   BADDISK_FAIL=KIND:N:HOW  the N-th call of KIND (write, sync, read) fails with EIO. HOW is
 *                              once   only this one
 *                              on     this one and every call of that kind after it: the disk is dead
 *                              lose   as once, for a sync: and what was written to the file since its last sync is gone,
 *                                     as after a power cut. Linux reports such a loss to one fsync, and never again
 *                            A write that fails leaves half of its bytes.
 *   BADDISK_WHILE=FILE       only calls while FILE exists are counted, and can fail with EIO
 *   BADDISK_ONLY=NAME        only calls on the file of that name are counted, and can fail with EIO
 *   BADDISK_FULL=FILE        while FILE exists, nothing grows: ENOSPC. What fits into the size that a file has succeeds
 *   BADDISK_READONLY=yes     no file can be opened for writing: EROFS
 *   BADDISK_MOUNTS=FILE      is read in place of /proc/self/mountinfo
 *
 * A preloaded library needs no privilege, no ptrace and no mount, so it works in every container, and it counts over all
 * threads in one row, which strace does not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { WRITE, SYNC, READ, KINDS };
static const char *const names[KINDS] = {"write", "sync", "read"};

/* The old content of a part of a file that was written since the file's last sync, the latest first. */
struct undo {
    struct undo *next;
    dev_t device;
    ino_t inode;
    off_t size, offset;
    size_t length;
    char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *full, *mounts, *only, *armed;
static size_t folder_length;
static int counts = -1, readonly, fail_on, lose;
static enum kind fail_kind = KINDS;
static long fail_at, passed[KINDS];
static struct undo *undos;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static int (*real_open)(const char *, int, ...);

__attribute__((constructor)) static void start(void)
{
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_pread = dlsym(RTLD_NEXT, "pread64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    *(void **)&real_open = dlsym(RTLD_NEXT, "open64");
    folder = getenv("BADDISK_FOLDER");
    folder_length = folder ? strlen(folder) : 0;
    full = getenv("BADDISK_FULL");
    mounts = getenv("BADDISK_MOUNTS");
    only = getenv("BADDISK_ONLY");
    armed = getenv("BADDISK_WHILE");
    readonly = getenv("BADDISK_READONLY") != NULL;
    const char *path = getenv("BADDISK_COUNTS");
    if (path)
        counts = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char kind[8], how[8];
    const char *fail = getenv("BADDISK_FAIL");
    if (fail && sscanf(fail, "%7[a-z]:%ld:%7[a-z]", kind, &fail_at, how) == 3)
        for (int k = 0; k < KINDS; k++)
            if (strcmp(kind, names[k]) == 0) {
                fail_kind = k;
                fail_on = strcmp(how, "on") == 0;
                lose = strcmp(how, "lose") == 0;
            }
    if (fail && fail_kind == KINDS) {
        dprintf(2, "baddisk: BADDISK_FAIL=%s makes no sense\n", fail);
        _exit(99);
    }
}

static int counted(const char *path) { return folder && strncmp(path, folder, folder_length) == 0; }

/* The path of an open file below the folder; 0 for others. */
static int is_ours(int fd, char path[PATH_MAX])
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return counted(path);
}

/* Counts a call; true where it shall fail. The lock is held. */
static int pass(enum kind kind, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if ((only && strcmp(name, only)) || (armed && access(armed, F_OK)))
        return 0;
    long n = ++passed[kind];
    int fails = kind == fail_kind && (fail_on ? n >= fail_at : n == fail_at);
    if (counts >= 0)
        dprintf(counts, "%s %ld %s%s\n", names[kind], n, name, fails ? " fails" : "");
    return fails;
}

/* The lock is held. */
static void remember(int fd, off_t offset, size_t length)
{
    struct stat file;
    if (!lose || fstat(fd, &file))
        return;
    struct undo *undo = malloc(sizeof *undo + length);
    if (!undo)
        abort();
    undo->next = undos;
    undo->device = file.st_dev;
    undo->inode = file.st_ino;
    undo->size = file.st_size;
    undo->offset = offset;
    ssize_t got = length ? real_pread(fd, undo->bytes, length, offset) : 0;
    undo->length = got > 0 ? (size_t)got : 0;
    undos = undo;
}

/* A sync of the file: what it did is done; or, with `undoing`, what was written is undone. The lock is held. */
static void settle(int fd, int undoing)
{
    struct stat file;
    if (!lose || fstat(fd, &file))
        return;
    for (struct undo **place = &undos; *place;) {
        struct undo *undo = *place;
        if (undo->device != file.st_dev || undo->inode != file.st_ino) {
            place = &undo->next;
            continue;
        }
        if (undoing && ((undo->length && real_pwrite(fd, undo->bytes, undo->length, undo->offset) < 0) ||
                        real_ftruncate(fd, undo->size)))
            abort();
        *place = undo->next;
        free(undo);
    }
}

static int is_full(int fd, off_t end)
{
    struct stat file;
    return full && access(full, F_OK) == 0 && fstat(fd, &file) == 0 && end > file.st_size;
}

static ssize_t do_pwrite(int fd, const void *bytes, size_t length, off_t offset, int plain)
{
    char path[PATH_MAX];
    if (!is_ours(fd, path))
        return plain ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
    if (plain)
        offset = lseek(fd, 0, SEEK_CUR);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    int error = 0;
    if (pass(WRITE, path)) {
        if (length / 2 && real_pwrite(fd, bytes, length / 2, offset) < 0)
            abort();
        error = EIO;
    } else if (is_full(fd, offset + (off_t)length)) {
        error = ENOSPC;
    } else {
        remember(fd, offset, length);
        done = plain ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
        error = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int do_sync(int fd, int (*real)(int))
{
    char path[PATH_MAX];
    if (!is_ours(fd, path))
        return real(fd);
    pthread_mutex_lock(&lock);
    int fails = pass(SYNC, path), error = EIO;
    int done = fails ? -1 : real(fd);
    if (!fails)
        error = errno;
    settle(fd, fails);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int do_ftruncate(int fd, off_t size)
{
    char path[PATH_MAX];
    if (!is_ours(fd, path))
        return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    int done = -1, error = 0;
    if (pass(WRITE, path)) {
        error = EIO;
    } else if (is_full(fd, size)) {
        error = ENOSPC;
    } else {
        struct stat file;
        size_t lost = !fstat(fd, &file) && file.st_size > size ? (size_t)(file.st_size - size) : 0;
        remember(fd, size, lost);
        done = real_ftruncate(fd, size);
        error = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static ssize_t do_pread(int fd, void *bytes, size_t length, off_t offset)
{
    char path[PATH_MAX];
    if (!is_ours(fd, path))
        return real_pread(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    int fails = pass(READ, path);
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = EIO;
        return -1;
    }
    return real_pread(fd, bytes, length, offset);
}

static int do_open(const char *path, int flags, mode_t mode)
{
    if (mounts && strcmp(path, "/proc/self/mountinfo") == 0)
        path = mounts;
    if (counted(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT))) {
        if (readonly) {
            errno = EROFS;
            return -1;
        }
        if (full && access(full, F_OK) == 0 && access(path, F_OK) != 0) {
            errno = ENOSPC;
            return -1;
        }
    }
    return real_open(path, flags, mode);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;                                   \
        va_end(arguments);                                                                                             \
        return do_open(path, flags, mode);                                                                             \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t length) { return do_pwrite(fd, bytes, length, 0, 1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return do_pwrite(fd, bytes, length, offset, 0); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return do_pwrite(fd, bytes, length, offset, 0); }
ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return do_pread(fd, bytes, length, offset); }
ssize_t pread64(int fd, void *bytes, size_t length, off_t offset) { return do_pread(fd, bytes, length, offset); }
int fsync(int fd) { return do_sync(fd, real_fsync); }
int fdatasync(int fd) { return do_sync(fd, real_fdatasync); }
int ftruncate(int fd, off_t size) { return do_ftruncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_ftruncate(fd, size); }
