//! The executor under load: no wake-up is lost, nothing spins when idle,
//! everything ends.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use sentry_platform::executor::{
    Executor, HotSource, SleepVote, block_on, blocking, run_woken, yield_now,
};
use sentry_platform::futex::{self, Scope, WaitWord};

/// Aborts the test program if it does not end in time: a lost wake-up shows
/// as a hang.
struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    fn new(name: &'static str, limit: Duration) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        std::thread::spawn(move || {
            let end = Instant::now() + limit;
            while !flag.load(Ordering::SeqCst) {
                if Instant::now() > end {
                    eprintln!("{name} hangs");
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A place for one value that one task waits for.
#[derive(Default)]
struct Mailbox(Mutex<(Option<u64>, Option<Waker>)>);

impl Mailbox {
    fn put(&self, value: u64) {
        let waker = {
            let mut state = self.0.lock().expect("no panic");
            state.0 = Some(value);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn take(&self) -> u64 {
        poll_fn(|cx| {
            let mut state = self.0.lock().expect("no panic");
            match state.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    state.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// A small random number generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn messages_between_tasks_arrive() {
    let _watchdog = Watchdog::new("messages", Duration::from_secs(60));
    for workers in [1, 2, 4, 8] {
        let executor = Executor::new(workers);
        let ends: Vec<_> = (0..32)
            .map(|_| {
                let (ping, pong) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
                let (ping2, pong2) = (ping.clone(), pong.clone());
                let left = executor.spawn_join(async move {
                    for round in 0..500 {
                        ping.put(round);
                        assert_eq!(pong.take().await, round);
                    }
                });
                let right = executor.spawn_join(async move {
                    for round in 0..500 {
                        assert_eq!(ping2.take().await, round);
                        pong2.put(round);
                    }
                });
                (left, right)
            })
            .collect();
        block_on(async {
            for (left, right) in ends {
                left.await;
                right.await;
            }
        });
    }
}

#[test]
fn wake_ups_from_outside_find_sleeping_workers() {
    let _watchdog = Watchdog::new("wake-ups from outside", Duration::from_secs(60));
    let executor = Executor::new(3);
    let ends: Vec<_> = (0..4_u64)
        .map(|seed| {
            let (request, reply) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
            let (request2, reply2) = (request.clone(), reply.clone());
            executor.spawn(async move {
                loop {
                    let value = request2.take().await;
                    reply2.put(value);
                    if value == u64::MAX {
                        return;
                    }
                }
            });
            std::thread::spawn(move || {
                let mut random = Random(seed + 1);
                for round in 0..2000 {
                    // Long enough for the workers to fall asleep now and then.
                    let pause = random.next() % 100;
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_micros(pause) {
                        std::hint::spin_loop();
                    }
                    request.put(round);
                    assert_eq!(block_on(reply.take()), round);
                }
                request.put(u64::MAX);
            })
        })
        .collect();
    for end in ends {
        end.join().expect("no panic");
    }
}

#[test]
fn blocked_workers_are_replaced_and_the_surplus_retires() {
    let _watchdog = Watchdog::new("blocking", Duration::from_secs(60));
    for workers in [1, 2, 4] {
        let executor = Executor::new(workers);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..64_u64)
            .map(|index| {
                let (running, most) = (running.clone(), most.clone());
                executor.spawn_join(async move {
                    for _ in 0..20 {
                        if index % 2 == 0 {
                            blocking(|| std::thread::sleep(Duration::from_micros(200)));
                        }
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::hint::spin_loop();
                        running.fetch_sub(1, Ordering::SeqCst);
                        yield_now().await;
                    }
                })
            })
            .collect();
        block_on(async {
            for task in tasks {
                task.await;
            }
        });
        let most = most.load(Ordering::SeqCst);
        assert!(most >= 1, "{most}");
    }
}

#[test]
fn timers_fire_once_or_never() {
    let _watchdog = Watchdog::new("timers", Duration::from_secs(60));
    let executor = Executor::new(2);
    let fired = Arc::new(AtomicUsize::new(0));
    let mut random = Random(7);
    let mut kept = Vec::new();
    for index in 0..5000 {
        let fired = fired.clone();
        let delay = Duration::from_micros(random.next() % 50_000 + 20_000);
        let guard = executor.call_at(Instant::now() + delay, move || {
            fired.fetch_add(1, Ordering::SeqCst);
        });
        if index % 2 == 0 {
            kept.push(guard);
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while fired.load(Ordering::SeqCst) < kept.len() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    // A guard dropped right away is far from its deadline.
    assert_eq!(fired.load(Ordering::SeqCst), kept.len());
}

/// Counts the futures that exist.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn shutdown_ends_workers_and_drops_what_is_queued() {
    let _watchdog = Watchdog::new("shutdown", Duration::from_secs(60));
    for round in 0..50 {
        let executor = Executor::new(1 + round % 4);
        let alive = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let alive = Alive::new(&alive);
            executor.spawn(async move {
                let _alive = alive;
                loop {
                    yield_now().await;
                }
            });
        }
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
        if round % 3 == 0 {
            executor.shutdown();
        }
        drop(executor);
        let end = Instant::now() + Duration::from_secs(5);
        while alive.load(Ordering::SeqCst) > 0 {
            assert!(
                Instant::now() < end,
                "{} futures are left",
                alive.load(Ordering::SeqCst)
            );
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

#[test]
fn cancelled_tasks_end_wherever_they_are() {
    let _watchdog = Watchdog::new("cancel", Duration::from_secs(60));
    let executor = Executor::new(3);
    let alive = Arc::new(AtomicUsize::new(0));
    let mut random = Random(3);
    for _ in 0..200 {
        let handles: Vec<_> = (0..10)
            .map(|index| {
                let alive = Alive::new(&alive);
                let executor2 = executor.clone();
                executor.spawn_join(async move {
                    let _alive = alive;
                    loop {
                        if index % 2 == 0 {
                            yield_now().await;
                        } else {
                            let soon = Instant::now() + Duration::from_micros(50);
                            executor2.sleep_until(soon).await;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_micros(random.next() % 200));
        for handle in handles {
            drop(handle);
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while alive.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn woken_tasks_can_be_run_in_place() {
    let executor = Executor::new(1);
    let mailbox = Arc::<Mailbox>::default();
    let mailbox2 = mailbox.clone();
    let ready = Arc::new(AtomicBool::new(false));
    let ready2 = ready.clone();
    let task = executor.spawn_join(async move {
        // On a worker first, to register the waker.
        let value = poll_fn(|cx| {
            let waiting = std::pin::pin!(mailbox2.take()).poll(cx);
            ready2.store(true, Ordering::SeqCst);
            waiting
        })
        .await;
        (value, std::thread::current().id())
    });
    while !ready.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(5));
    run_woken(|| mailbox.put(5));
    assert_eq!(block_on(task), (5, std::thread::current().id()));
}

/// Plays a stub: guest threads that trap through memory.
#[derive(Default)]
struct Stub {
    /// 1 while somebody polls.
    polling: AtomicU32,
    bell: AtomicU32,
    contexts: Vec<GuestContext>,
    sleeps: AtomicU64,
}

#[derive(Default)]
struct GuestContext {
    /// 0: guest code runs; 1: trapped.
    state: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Stub {
    fn trap(&self, index: usize) {
        let state = &self.contexts[index].state;
        state.swap(1, Ordering::SeqCst);
        if self.polling.load(Ordering::SeqCst) == 0 {
            self.bell.fetch_add(1, Ordering::SeqCst);
            futex::wake(&raw const self.bell, u32::MAX, Scope::Shared);
        }
        while state.load(Ordering::SeqCst) == 1 {
            std::thread::yield_now();
        }
    }

    fn scan(&self) -> bool {
        let mut found = false;
        for context in &self.contexts {
            if context.state.load(Ordering::SeqCst) == 1 {
                let waker = context.waker.lock().expect("no panic").take();
                if let Some(waker) = waker {
                    found = true;
                    waker.wake();
                }
            }
        }
        found
    }
}

impl HotSource for Stub {
    fn poll(&self) -> bool {
        self.scan()
    }

    fn is_armed(&self) -> bool {
        self.contexts
            .iter()
            .any(|context| context.state.load(Ordering::Relaxed) == 0)
    }

    fn prepare_sleep(&self, words: &mut Vec<WaitWord>) -> SleepVote {
        let bell = self.bell.load(Ordering::SeqCst);
        self.polling.swap(0, Ordering::SeqCst);
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        words.push(WaitWord::new(&raw const self.bell, bell, Scope::Shared));
        if self.scan() {
            SleepVote::StayAwake
        } else {
            SleepVote::Sleep
        }
    }

    fn resume_polling(&self) {
        self.polling.swap(1, Ordering::SeqCst);
    }
}

#[test]
fn traps_through_memory_are_seen_hot_and_cold() {
    const GUESTS: usize = 3;
    const TRAPS: u64 = 3000;
    let _watchdog = Watchdog::new("hot source", Duration::from_secs(60));
    for workers in [1, 2, 4] {
        let executor = Executor::new(workers);
        let stub = Arc::new(Stub {
            contexts: (0..GUESTS).map(|_| GuestContext::default()).collect(),
            ..Stub::default()
        });
        executor.add_hot_source(stub.clone());
        let tasks: Vec<_> = (0..GUESTS)
            .map(|index| {
                let stub = stub.clone();
                executor.spawn_join(async move {
                    for trap in 0..TRAPS {
                        poll_fn(|cx| {
                            let context = &stub.contexts[index];
                            *context.waker.lock().expect("no panic") = Some(cx.waker().clone());
                            if context.state.load(Ordering::SeqCst) == 1 {
                                Poll::Ready(())
                            } else {
                                Poll::Pending
                            }
                        })
                        .await;
                        if trap % 64 == 0 {
                            blocking(|| std::thread::sleep(Duration::from_micros(10)));
                        }
                        stub.contexts[index].state.swap(0, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let guests: Vec<_> = (0..GUESTS)
            .map(|index| {
                let stub = stub.clone();
                std::thread::spawn(move || {
                    let mut random = Random(index as u64 + 1);
                    for _ in 0..TRAPS {
                        if random.next().is_multiple_of(32) {
                            // Until everybody sleeps.
                            std::thread::sleep(Duration::from_micros(200));
                        }
                        stub.trap(index);
                    }
                })
            })
            .collect();
        for guest in guests {
            guest.join().expect("no panic");
        }
        for task in tasks {
            block_on(task);
        }
        assert!(stub.sleeps.load(Ordering::Relaxed) > 0, "it never slept");
    }
}

/// The body of a process of its own, since it measures the process.
#[test]
fn an_idle_executor_uses_no_cpu() {
    const CASE: &str = "EXECUTOR_IDLE_CASE";
    if std::env::var_os(CASE).is_none() {
        let status = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args([
                "--exact",
                "an_idle_executor_uses_no_cpu",
                "--test-threads=1",
            ])
            .env(CASE, "1")
            .status()
            .expect("spawn");
        assert!(status.success());
        return;
    }
    let executor = Executor::new(4);
    let stub = Arc::new(Stub {
        contexts: vec![GuestContext::default()],
        ..Stub::default()
    });
    executor.add_hot_source(stub);
    let far = executor.call_at(Instant::now() + Duration::from_secs(3600), || {});
    block_on(executor.spawn_join(async {
        for _ in 0..100 {
            yield_now().await;
        }
    }));
    std::thread::sleep(Duration::from_millis(50));
    let before = sentry_platform::host::system::own_cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    let used = sentry_platform::host::system::own_cpu_time() - before;
    assert!(used < Duration::from_millis(1), "{used:?}");
    drop(far);
}
