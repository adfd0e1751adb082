/* Rows of system calls, each timed by a loop of its own.
 *
 *   micro list
 *   micro run MS BATCHES ROW...     prints "ROW NANOSECONDS" per operation
 *   micro idle COUNT                says "ready", then waits with COUNT children
 *
 * A row runs until MS milliseconds have passed, BATCHES times over; the median
 * batch counts. Files lie in /data (root file system) and /tmp (tmpfs); the
 * driver makes /data/big (10,000 entries) and /data/tree (50,000 files).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static const char *self;

static void die(const char *what)
{
	fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
	exit(1);
}

#define MUST(call) do { if ((long)(call) < 0) die(#call); } while (0)
#define LOOP for (long i = 0; i < n; i++)

/* Buffers, and what set-up functions leave for the loops. */
static char buf[1 << 20];
static int fd = -1, fd2 = -1, pair[2], back[2], ep;
static pid_t child;

static int open_file(const char *path)
{
	int f = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	MUST(f);
	for (size_t at = 0; at < sizeof buf; at += 65536)
		MUST(pwrite(f, buf, 65536, at));
	return f;
}

static void no_setup(void) {}
static void end_fds(void)
{
	int *all[] = {&fd, &fd2, &pair[0], &pair[1], &back[0], &back[1], &ep};
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, 0, 0);
		child = 0;
	}
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (*all[i] > 2)
			close(*all[i]);
		*all[i] = -1;
	}
}

/* Calls without files. */
static void r_getppid(long n) { LOOP syscall(SYS_getppid); }
static void r_getpid(long n) { LOOP syscall(SYS_getpid); }
static void r_close(long n) { LOOP close(-1); }
static void r_yield(long n) { LOOP sched_yield(); }
static void r_clock(long n) { LOOP now(); }

/* Reads and writes. */
static void s_zero(void) { MUST(fd = open("/dev/zero", O_RDONLY)); }
static void s_tmpfs(void) { fd = open_file("/tmp/f"); }
static void s_root(void) { fd = open_file("/data/f"); }
static void r_read1(long n) { LOOP read(fd, buf, 1); }
static void r_pread4k(long n) { LOOP pread(fd, buf, 4096, 0); }
static void r_pwrite4k(long n) { LOOP pwrite(fd, buf, 4096, 0); }
static void r_pread64k(long n) { LOOP pread(fd, buf, 65536, 0); }
static void r_pwrite64k(long n) { LOOP pwrite(fd, buf, 65536, 0); }
static void r_pread1m(long n) { LOOP pread(fd, buf, 1 << 20, 0); }
static void r_pwrite1m(long n) { LOOP pwrite(fd, buf, 1 << 20, 0); }

/* Names. */
static struct stat st;
static void s_names(void)
{
	close(open_file("/tmp/f"));
	close(open_file("/data/f"));
	unlink("/tmp/link"); unlink("/data/link");
	MUST(symlink("f", "/tmp/link"));
	MUST(symlink("f", "/data/link"));
	mkdir("/data/a", 0755); mkdir("/data/a/b", 0755); mkdir("/data/a/b/c", 0755);
	close(open_file("/data/a/b/c/f"));
}
static void r_stat_tmpfs(long n) { LOOP MUST(stat("/tmp/f", &st)); }
static void r_stat_root(long n) { LOOP MUST(stat("/data/f", &st)); }
static void r_stat_deep(long n) { LOOP MUST(stat("/data/a/b/c/f", &st)); }
static void r_stat_missing(long n) { LOOP stat("/data/no-such-file", &st); }
static void s_fstat(void) { s_root(); }
static void r_fstat(long n) { LOOP MUST(fstat(fd, &st)); }
static void r_access_tmpfs(long n) { LOOP MUST(access("/tmp/f", R_OK)); }
static void r_access_root(long n) { LOOP MUST(access("/data/f", R_OK)); }
static void r_readlink_tmpfs(long n) { LOOP MUST(readlink("/tmp/link", buf, 64)); }
static void r_readlink_root(long n) { LOOP MUST(readlink("/data/link", buf, 64)); }
static void open_close(const char *path, long n)
{
	LOOP {
		int f = open(path, O_RDONLY);
		MUST(f);
		close(f);
	}
}
static void r_open_tmpfs(long n) { open_close("/tmp/f", n); }
static void r_open_root(long n) { open_close("/data/f", n); }
static void create_unlink(const char *path, long n)
{
	LOOP {
		int f = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
		MUST(f);
		close(f);
		MUST(unlink(path));
	}
}
static void r_create_tmpfs(long n) { create_unlink("/tmp/new", n); }
static void r_create_root(long n) { create_unlink("/data/new", n); }
static void mkdir_rmdir(const char *path, long n)
{
	LOOP { MUST(mkdir(path, 0755)); MUST(rmdir(path)); }
}
static void r_mkdir_tmpfs(long n) { mkdir_rmdir("/tmp/newd", n); }
static void r_mkdir_root(long n) { mkdir_rmdir("/data/newd", n); }
static void rename_twice(const char *a, const char *b, long n)
{
	LOOP { MUST(rename(a, b)); MUST(rename(b, a)); }
}
static void r_rename_tmpfs(long n) { rename_twice("/tmp/f", "/tmp/g", n); }
static void r_rename_root(long n) { rename_twice("/data/f", "/data/g", n); }

/* Directories. */
static void r_getdents(long n)
{
	LOOP {
		int d = open("/data/big", O_RDONLY | O_DIRECTORY);
		MUST(d);
		while (syscall(SYS_getdents64, d, buf, 32768) > 0)
			;
		close(d);
	}
}
static long found;
static void walk(int dir, int stats)
{
	DIR *d = fdopendir(dir);
	struct dirent *e;
	if (!d)
		die("fdopendir");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		found++;
		if (stats)
			MUST(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW));
		if (e->d_type == DT_DIR) {
			int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY);
			MUST(sub);
			walk(sub, stats);
		}
	}
	closedir(d);
}
static void find(int stats, long n)
{
	LOOP {
		int d = open("/data/tree", O_RDONLY | O_DIRECTORY);
		MUST(d);
		found = 0;
		walk(d, stats);
		if (found < 50000)
			die("tree is not whole");
	}
}
static void r_find(long n) { find(0, n); }
static void r_find_stat(long n) { find(1, n); }

/* Memory. */
static void r_mmap(long n)
{
	LOOP {
		char *m = mmap(0, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int k = 0; k < 65536; k += 4096)
			m[k] = 1;
		munmap(m, 65536);
	}
}
static void *churn(void *arg)
{
	long n = (long)arg;
	void *slots[64] = {0};
	unsigned x = 1;
	LOOP {
		x = x * 1103515245 + 12345;
		unsigned slot = x >> 16 & 63;
		free(slots[slot]);
		slots[slot] = malloc(16 + (x >> 8 & 8191));
		*(char *)slots[slot] = 1;
	}
	for (int i = 0; i < 64; i++)
		free(slots[i]);
	return 0;
}
static void r_malloc(long n)
{
	pthread_t t[8];
	for (int i = 0; i < 8; i++)
		pthread_create(&t[i], 0, churn, (void *)n);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], 0);
}

/* Pipes and sockets. */
static void s_pipe(void) { MUST(pipe(pair)); }
static void r_pipe(long n) { LOOP { write(pair[1], buf, 1); read(pair[0], buf, 1); } }
static void echo(int from, int to)
{
	child = fork();
	MUST(child);
	if (child == 0) {
		char x[4096];
		long k;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while ((k = read(from, x, sizeof x)) > 0)
			write(to, x, k);
		_exit(0);
	}
}
static void s_pipe2(void) { MUST(pipe(pair)); MUST(pipe(back)); echo(pair[0], back[1]); }
static void r_pipe2(long n) { LOOP { write(pair[1], buf, 1); read(back[0], buf, 1); } }
static void s_pipe64k(void) { MUST(pipe(pair)); }
static void r_pipe64k(long n) { LOOP { write(pair[1], buf, 65536); read(pair[0], buf, 65536); } }
static void s_unix(void) { MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)); }
static void r_pair(long n) { LOOP { write(pair[0], buf, 1); read(pair[1], buf, 1); } }
static void s_unix2(void) { s_unix(); echo(pair[1], pair[1]); }
static void r_echo(long n) { LOOP { write(pair[0], buf, 1); read(pair[0], buf, 1); } }
static void s_tcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int one = 1, l;
	MUST(l = socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(l, (void *)&a, len));
	MUST(listen(l, 1));
	MUST(getsockname(l, (void *)&a, &len));
	MUST(pair[0] = socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(pair[0], (void *)&a, len));
	MUST(pair[1] = accept(l, 0, 0));
	close(l);
	for (int i = 0; i < 2; i++)
		setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}
static void s_tcp2(void) { s_tcp(); echo(pair[1], pair[1]); }
static void s_udp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	MUST(pair[1] = socket(AF_INET, SOCK_DGRAM, 0));
	MUST(bind(pair[1], (void *)&a, len));
	MUST(getsockname(pair[1], (void *)&a, &len));
	MUST(pair[0] = socket(AF_INET, SOCK_DGRAM, 0));
	MUST(connect(pair[0], (void *)&a, len));
}
static void s_event(void) { MUST(fd = eventfd(0, 0)); }
static void r_event(long n) { uint64_t v = 1; LOOP { write(fd, &v, 8); read(fd, &v, 8); } }
static void s_epoll(void)
{
	struct epoll_event e = {.events = EPOLLIN};
	s_pipe();
	MUST(ep = epoll_create1(0));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &e));
	MUST(write(pair[1], buf, 1));
}
static void r_epoll(long n) { struct epoll_event e[8]; LOOP epoll_wait(ep, e, 8, -1); }

/* Threads and signals. */
static _Atomic uint32_t words[2];
static void fwait(_Atomic uint32_t *w, uint32_t v) { syscall(SYS_futex, w, FUTEX_WAIT_PRIVATE, v, 0, 0, 0); }
static void fwake(_Atomic uint32_t *w) { syscall(SYS_futex, w, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0); }
static void *partner(void *arg)
{
	uint32_t n = (uint32_t)(long)arg;
	for (uint32_t i = 1; i <= n; i++) {
		while (words[0] != i)
			fwait(&words[0], i - 1);
		words[1] = i;
		fwake(&words[1]);
	}
	return 0;
}
static void r_futex(long n)
{
	pthread_t t;
	words[0] = words[1] = 0;
	pthread_create(&t, 0, partner, (void *)n);
	for (uint32_t i = 1; i <= n; i++) {
		words[0] = i;
		fwake(&words[0]);
		while (words[1] != i)
			fwait(&words[1], i - 1);
	}
	pthread_join(t, 0);
}
static void *nothing(void *arg) { return arg; }
static void r_pthread(long n)
{
	LOOP {
		pthread_t t;
		pthread_create(&t, 0, nothing, 0);
		pthread_join(t, 0);
	}
}
static volatile int caught;
static void handler(int sig) { caught += sig; }
static void s_kill(void) { signal(SIGUSR1, handler); }
static void r_kill(long n) { pid_t me = getpid(); LOOP kill(me, SIGUSR1); }

/* Processes. */
static void r_fork(long n)
{
	LOOP {
		pid_t p = fork();
		MUST(p);
		if (p == 0)
			_exit(0);
		waitpid(p, 0, 0);
	}
}
static void r_exec(long n)
{
	LOOP {
		pid_t p = fork();
		MUST(p);
		if (p == 0) {
			execl(self, self, "true", (char *)0);
			_exit(127);
		}
		int status;
		waitpid(p, &status, 0);
		if (status != 0)
			die("exec");
	}
}
static void r_spawn(long n)
{
	char *argv[] = {(char *)self, "true", 0}, *envp[] = {0};
	LOOP {
		pid_t p;
		if (posix_spawn(&p, self, 0, 0, argv, envp) != 0)
			die("posix_spawn");
		waitpid(p, 0, 0);
	}
}

/* Several at once: each thread does n turns, each process n thousand. */
static pthread_barrier_t gate;
static void *caller(void *arg)
{
	long n = (long)arg;
	pthread_barrier_wait(&gate);
	LOOP syscall(SYS_getppid);
	return 0;
}
static void threads(int count, void *(*run)(void *), long n)
{
	pthread_t t[16];
	pthread_barrier_init(&gate, 0, count);
	for (int i = 0; i < count; i++)
		if (pthread_create(&t[i], 0, run, (void *)n) != 0)
			die("pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(t[i], 0);
	pthread_barrier_destroy(&gate);
}
static void r_threads1(long n) { threads(1, caller, n); }
static void r_threads2(long n) { threads(2, caller, n); }
static void r_threads4(long n) { threads(4, caller, n); }
static void r_threads16(long n) { threads(16, caller, n); }
static void r_processes4(long n)
{
	for (int i = 0; i < 4; i++) {
		pid_t p = fork();
		MUST(p);
		if (p == 0) {
			for (long k = 0; k < n * 1000; k++)
				pread(fd, buf, 4096, 0);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		MUST(wait(0));
}
static _Atomic long arrived;
static void *meeter(void *arg)
{
	long n = (long)arg;
	pthread_barrier_wait(&gate);
	for (long i = 1; i <= n; i++) {
		arrived++;
		while (arrived < i * 4)
			sched_yield();
	}
	return 0;
}
static void r_meet(long n) { arrived = 0; threads(4, meeter, n); }

/* No calls at all. */
static volatile uint64_t sink;
static void r_cpu(long n)
{
	uint64_t x = 88172645463325252ull;
	LOOP {
		for (int k = 0; k < 1000; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
	}
	sink = x;
}

static const struct row {
	const char *name;
	void (*setup)(void);
	void (*run)(long);
} rows[] = {
	{"getppid", no_setup, r_getppid},
	{"getpid", no_setup, r_getpid},
	{"close-bad", no_setup, r_close},
	{"sched-yield", no_setup, r_yield},
	{"clock-gettime", no_setup, r_clock},
	{"read-1-zero", s_zero, r_read1},
	{"pread-4k-tmpfs", s_tmpfs, r_pread4k},
	{"pwrite-4k-tmpfs", s_tmpfs, r_pwrite4k},
	{"pread-4k-root", s_root, r_pread4k},
	{"pwrite-4k-root", s_root, r_pwrite4k},
	{"pread-64k-tmpfs", s_tmpfs, r_pread64k},
	{"pwrite-64k-tmpfs", s_tmpfs, r_pwrite64k},
	{"pread-64k-root", s_root, r_pread64k},
	{"pwrite-64k-root", s_root, r_pwrite64k},
	{"pread-1m-tmpfs", s_tmpfs, r_pread1m},
	{"pwrite-1m-tmpfs", s_tmpfs, r_pwrite1m},
	{"pread-1m-root", s_root, r_pread1m},
	{"pwrite-1m-root", s_root, r_pwrite1m},
	{"stat-tmpfs", s_names, r_stat_tmpfs},
	{"stat-root", s_names, r_stat_root},
	{"stat-deep-root", s_names, r_stat_deep},
	{"stat-missing-root", s_names, r_stat_missing},
	{"fstat-root", s_fstat, r_fstat},
	{"access-tmpfs", s_names, r_access_tmpfs},
	{"access-root", s_names, r_access_root},
	{"readlink-tmpfs", s_names, r_readlink_tmpfs},
	{"readlink-root", s_names, r_readlink_root},
	{"open-close-tmpfs", s_names, r_open_tmpfs},
	{"open-close-root", s_names, r_open_root},
	{"create-unlink-tmpfs", s_names, r_create_tmpfs},
	{"create-unlink-root", s_names, r_create_root},
	{"mkdir-rmdir-tmpfs", no_setup, r_mkdir_tmpfs},
	{"mkdir-rmdir-root", no_setup, r_mkdir_root},
	{"rename-tmpfs", s_names, r_rename_tmpfs},
	{"rename-root", s_names, r_rename_root},
	{"getdents-10000", no_setup, r_getdents},
	{"find-50000", no_setup, r_find},
	{"find-lstat-50000", no_setup, r_find_stat},
	{"mmap-touch-munmap", no_setup, r_mmap},
	{"malloc-8-threads", no_setup, r_malloc},
	{"pipe", s_pipe, r_pipe},
	{"pipe-64k", s_pipe64k, r_pipe64k},
	{"pipe-ping-pong", s_pipe2, r_pipe2},
	{"unix-pair", s_unix, r_pair},
	{"unix-ping-pong", s_unix2, r_echo},
	{"tcp-loopback", s_tcp, r_pair},
	{"tcp-ping-pong", s_tcp2, r_echo},
	{"udp-loopback", s_udp, r_pair},
	{"eventfd", s_event, r_event},
	{"epoll-ready", s_epoll, r_epoll},
	{"futex-ping-pong", no_setup, r_futex},
	{"pthread-create-join", no_setup, r_pthread},
	{"kill-self-handler", s_kill, r_kill},
	{"fork-exit-wait", no_setup, r_fork},
	{"fork-exec-wait", no_setup, r_exec},
	{"posix-spawn-wait", no_setup, r_spawn},
	{"cpu", no_setup, r_cpu},
	{"threads-1", no_setup, r_threads1},
	{"threads-2", no_setup, r_threads2},
	{"threads-4", no_setup, r_threads4},
	{"threads-16", no_setup, r_threads16},
	{"processes-4", s_root, r_processes4},
	{"yield-barrier-4", no_setup, r_meet},
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void run(const struct row *row, double ms, int batches)
{
	double times[64];
	long n = 1;
	if (row->setup)
		row->setup();
	row->run(1);
	/* As many turns as fill a batch. */
	for (;;) {
		uint64_t t = now();
		row->run(n);
		double took = (now() - t) / 1e6;
		if (took >= ms / 4) {
			n = (long)(n * ms / took) + 1;
			break;
		}
		n *= 4;
	}
	for (int i = 0; i < batches; i++) {
		uint64_t t = now();
		row->run(n);
		times[i] = (double)(now() - t) / n;
	}
	end_fds();
	qsort(times, batches, sizeof *times, by_value);
	printf("%s %.1f\n", row->name, times[batches / 2]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	self = argv[0];
	size_t count = sizeof rows / sizeof *rows;
	if (argc > 1 && !strcmp(argv[1], "true"))
		return 0;
	if (argc > 1 && !strcmp(argv[1], "list")) {
		for (size_t i = 0; i < count; i++)
			puts(rows[i].name);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "idle")) {
		for (int i = atoi(argv[2]); i > 0; i--) {
			pid_t p = fork();
			MUST(p);
			if (p == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				execl(self, self, "sleep", (char *)0);
				_exit(127);
			}
		}
		puts("ready");
		fflush(stdout);
		for (;;)
			pause();
	}
	if (argc == 2 && !strcmp(argv[1], "sleep"))
		for (;;)
			pause();
	if (argc < 5 || strcmp(argv[1], "run")) {
		fprintf(stderr, "usage: micro list | run MS BATCHES ROW... | idle COUNT | sleep\n");
		return 2;
	}
	double ms = atof(argv[2]);
	int batches = atoi(argv[3]);
	if (ms <= 0 || batches < 1 || batches > 64)
		return 2;
	memset(buf, 1, sizeof buf);
	for (int a = 4; a < argc; a++) {
		size_t i = 0;
		while (i < count && strcmp(rows[i].name, argv[a]))
			i++;
		if (i == count) {
			fprintf(stderr, "micro: no row %s\n", argv[a]);
			return 2;
		}
		run(&rows[i], ms, batches);
	}
	return 0;
}
