/*
 * What programs expect of their C library on top of the kernel: stdio, locale
 * independent parsing, threads with cancellation and thread-local storage,
 * popen, system, getpwnam, glob, getaddrinfo, dlopen of itself, setjmp,
 * environment, temporary files, posix_spawn, semaphores. Prints "ok".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <pthread.h>
#include <pwd.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define CHECK(x)                                                               \
	do {                                                                   \
		if (!(x)) {                                                    \
			fprintf(stderr, "%s:%d: %s (errno %d: %s)\n",          \
				__FILE__, __LINE__, #x, errno,                 \
				strerror(errno));                              \
			exit(1);                                               \
		}                                                              \
	} while (0)

static void stdio(void)
{
	char name[] = "/tmp/libc-test-XXXXXX", line[64];
	int fd = mkstemp(name);
	CHECK(fd >= 0);
	FILE *f = fdopen(fd, "r+");
	for (int i = 0; i < 10000; i++)
		CHECK(fprintf(f, "line %d\n", i) > 0);
	rewind(f);
	for (int i = 0; i < 10000; i++) {
		int n;
		CHECK(fgets(line, sizeof line, f));
		CHECK(sscanf(line, "line %d", &n) == 1 && n == i);
	}
	CHECK(!fgets(line, sizeof line, f) && feof(f));
	CHECK(fseek(f, -5, SEEK_END) == 0 && fgetc(f) == '9');
	fclose(f);
	CHECK(unlink(name) == 0);
	f = tmpfile();
	CHECK(f && fputs("x", f) >= 0 && fclose(f) == 0);
}

static void processes(void)
{
	char buf[64];
	FILE *p = popen("echo out; exit 3", "r");
	CHECK(p && fgets(buf, sizeof buf, p) && !strcmp(buf, "out\n"));
	CHECK(WEXITSTATUS(pclose(p)) == 3);
	CHECK(WEXITSTATUS(system("exit 5")) == 5);
	CHECK(setenv("LIBC_TEST", "value", 1) == 0);
	CHECK(system("test \"$LIBC_TEST\" = value") == 0);
	pid_t pid;
	char *argv[] = { "sh", "-c", "read x; test \"$x\" = in", NULL };
	int fds[2];
	CHECK(pipe(fds) == 0);
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fds[0], 0);
	posix_spawn_file_actions_addclose(&fa, fds[1]);
	CHECK(posix_spawnp(&pid, "sh", &fa, NULL, argv, environ) == 0);
	CHECK(write(fds[1], "in\n", 3) == 3);
	close(fds[0]);
	close(fds[1]);
	int st;
	CHECK(waitpid(pid, &st, 0) == pid && st == 0);
}

static __thread int tls = 7;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_key_t key;
static int destroyed, turn;

static void destroy(void *p)
{
	__atomic_add_fetch(&destroyed, (long)p, __ATOMIC_SEQ_CST);
}

static void *worker(void *arg)
{
	long id = (long)arg;
	CHECK(tls == 7);
	tls = id;
	pthread_setspecific(key, (void *)1);
	pthread_mutex_lock(&mutex);
	while (turn != id)
		pthread_cond_wait(&cond, &mutex);
	turn++;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
	CHECK(tls == id);
	return arg;
}

static void cleanup(void *arg)
{
	*(int *)arg = 1;
}

static void *sleeper(void *arg)
{
	pthread_cleanup_push(cleanup, arg);
	for (;;)
		sleep(100);
	pthread_cleanup_pop(0);
	return NULL;
}

static void threads(void)
{
	pthread_t t[20];
	void *r;
	CHECK(pthread_key_create(&key, destroy) == 0);
	for (long i = 0; i < 20; i++)
		CHECK(pthread_create(&t[i], NULL, worker, (void *)i) == 0);
	for (long i = 0; i < 20; i++)
		CHECK(pthread_join(t[i], &r) == 0 && r == (void *)i);
	CHECK(destroyed == 20 && tls == 7);
	int cleaned = 0;
	pthread_t s;
	CHECK(pthread_create(&s, NULL, sleeper, &cleaned) == 0);
	usleep(20000);
	CHECK(pthread_cancel(s) == 0);
	CHECK(pthread_join(s, &r) == 0 && r == PTHREAD_CANCELED && cleaned);
	pthread_barrier_t b;
	CHECK(pthread_barrier_init(&b, NULL, 1) == 0);
	CHECK(pthread_barrier_wait(&b) == PTHREAD_BARRIER_SERIAL_THREAD);
	pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
	CHECK(pthread_rwlock_wrlock(&rw) == 0);
	CHECK(pthread_rwlock_tryrdlock(&rw) == EBUSY);
	CHECK(pthread_rwlock_unlock(&rw) == 0);
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += 10000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_nsec -= 1000000000;
		ts.tv_sec++;
	}
	sem_t sem;
	CHECK(sem_init(&sem, 0, 0) == 0);
	CHECK(sem_timedwait(&sem, &ts) == -1 && errno == ETIMEDOUT);
	CHECK(sem_post(&sem) == 0 && sem_wait(&sem) == 0);
}

static void shared_sync(void)
{
	struct shared {
		pthread_mutex_t m;
		sem_t s;
		int n;
	} *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	pthread_mutexattr_t a;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	CHECK(pthread_mutex_init(&p->m, &a) == 0);
	CHECK(sem_init(&p->s, 1, 0) == 0);
	for (int i = 0; i < 4; i++) {
		if (fork() == 0) {
			for (int k = 0; k < 1000; k++) {
				if (pthread_mutex_lock(&p->m))
					_exit(1);
				p->n++;
				pthread_mutex_unlock(&p->m);
			}
			sem_post(&p->s);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		int st;
		CHECK(sem_wait(&p->s) == 0);
		CHECK(wait(&st) > 0 && st == 0);
	}
	CHECK(p->n == 4000);
	/* An owner that dies leaves a robust mutex recoverable. */
	if (fork() == 0) {
		pthread_mutex_lock(&p->m);
		_exit(0);
	}
	wait(NULL);
	CHECK(pthread_mutex_lock(&p->m) == EOWNERDEAD);
	CHECK(pthread_mutex_consistent(&p->m) == 0);
	CHECK(pthread_mutex_unlock(&p->m) == 0);
}

static sigjmp_buf env;
static volatile int jumps;

static void on_segv(int sig)
{
	(void)sig;
	jumps++;
	siglongjmp(env, 1);
}

static void jumps_and_signals(void)
{
	struct sigaction sa = { .sa_handler = on_segv };
	CHECK(sigaction(SIGSEGV, &sa, NULL) == 0);
	for (volatile int i = 0; i < 100; i++)
		if (sigsetjmp(env, 1) == 0)
			*(volatile int *)8 = 1;
	CHECK(jumps == 100);
	signal(SIGSEGV, SIG_DFL);
}

static void databases(void)
{
	struct passwd *pw = getpwuid(0);
	CHECK(pw && !strcmp(pw->pw_name, "root"));
	glob_t g;
	CHECK(glob("/etc/pass*", 0, NULL, &g) == 0 && g.gl_pathc >= 1);
	globfree(&g);
	struct addrinfo *ai, hints = { .ai_family = AF_INET,
				       .ai_flags = AI_NUMERICHOST };
	CHECK(getaddrinfo("127.0.0.1", "80", &hints, &ai) == 0);
	freeaddrinfo(ai);
	CHECK(getaddrinfo("localhost", NULL, NULL, &ai) == 0);
	freeaddrinfo(ai);
	struct ifaddrs *ifa;
	int lo = 0;
	CHECK(getifaddrs(&ifa) == 0);
	for (struct ifaddrs *i = ifa; i; i = i->ifa_next)
		if (!strcmp(i->ifa_name, "lo") && i->ifa_addr &&
		    i->ifa_addr->sa_family == AF_INET)
			lo = 1;
	CHECK(lo);
	freeifaddrs(ifa);
	char host[256];
	CHECK(gethostname(host, sizeof host) == 0 && host[0]);
}

static void misc(void)
{
	void *self = dlopen(NULL, RTLD_NOW);
	CHECK(self && dlsym(self, "printf"));
	CHECK(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	CHECK(sysconf(_SC_PAGESIZE) == 4096);
	CHECK(sysconf(_SC_PHYS_PAGES) > 0);
	time_t now = time(NULL);
	struct tm tm;
	CHECK(localtime_r(&now, &tm) && mktime(&tm) == now);
	char *p = realpath("/proc/self/cwd", NULL);
	char *cwd = getcwd(NULL, 0);
	CHECK(p && cwd && !strcmp(p, cwd));
	free(p);
	free(cwd);
	void *big[64];
	for (int i = 0; i < 64; i++) {
		big[i] = malloc(1 << (i % 24));
		CHECK(big[i]);
		memset(big[i], i, 1 << (i % 24));
	}
	for (int i = 0; i < 64; i++)
		free(big[i]);
	CHECK(clock() >= 0);
	CHECK(nice(0) != -1 || errno == 0);
}

int main(void)
{
	stdio();
	processes();
	threads();
	shared_sync();
	jumps_and_signals();
	databases();
	misc();
	puts("ok");
	return 0;
}
