use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::host_poll::{Readiness, Watch, poll_now, readiness};
use super::{Executor, block_on, blocking, yield_now};

#[test]
fn spawned_futures_run_and_return_their_results() {
    let executor = Executor::new(2);
    let handles: Vec<_> = (0..1000_u64)
        .map(|n| {
            executor.spawn_join(async move {
                yield_now().await;
                n
            })
        })
        .collect();
    let sum = block_on(async {
        let mut sum = 0;
        for handle in handles {
            sum += handle.await;
        }
        sum
    });
    assert_eq!(sum, 499_500);
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines_and_not_early() {
    let executor = Executor::new(2);
    let start = Instant::now();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let handles: Vec<_> = [30_u64, 10, 20]
        .into_iter()
        .map(|ms| {
            let (executor2, order) = (executor.clone(), order.clone());
            executor.spawn_join(async move {
                let deadline = start + Duration::from_millis(ms);
                executor2.sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
                order.lock().push(ms);
            })
        })
        .collect();
    block_on(async {
        for handle in handles {
            handle.await;
        }
    });
    assert_eq!(*order.lock(), [10, 20, 30]);
}

#[test]
fn a_dropped_timer_guard_cancels_the_call() {
    let executor = Executor::new(1);
    let fired = Arc::new(AtomicBool::new(false));
    let flag = fired.clone();
    let guard = executor.call_at(Instant::now() + Duration::from_millis(20), move || {
        flag.store(true, Ordering::SeqCst);
    });
    drop(guard);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!fired.load(Ordering::SeqCst));
}

#[test]
fn blocking_sections_do_not_hold_up_other_tasks() {
    let executor = Executor::new(1);
    let (send, receive) = std::sync::mpsc::channel();
    let blocked = executor.spawn_join(async move {
        blocking(|| {
            receive
                .recv_timeout(Duration::from_secs(10))
                .expect("the other task runs while this one blocks");
        });
    });
    executor.spawn(async move {
        send.send(()).expect("the receiver waits");
    });
    block_on(blocked);
}

#[test]
fn a_wake_from_within_a_blocking_section_is_served_at_once() {
    let executor = Executor::new(1);
    let (send, receive) = std::sync::mpsc::channel();
    let executor2 = executor.clone();
    let blocked = executor.spawn_join(async move {
        blocking(|| {
            executor2.spawn(async move { send.send(()).expect("the receiver waits") });
            receive
                .recv_timeout(Duration::from_secs(10))
                .expect("the task spawned here runs elsewhere");
        });
    });
    block_on(blocked);
}

#[test]
fn dropping_a_join_handle_cancels_the_future() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let executor = Executor::new(1);
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(dropped.clone());
    let handle = executor.spawn_join(async move {
        let _flag = flag;
        std::future::pending::<()>().await;
    });
    std::thread::sleep(Duration::from_millis(10));
    drop(handle);
    let end = Instant::now() + Duration::from_secs(5);
    while !dropped.load(Ordering::SeqCst) {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
}

#[test]
fn watches_report_edges_and_readiness_reports_levels() {
    let (reader, mut writer) = std::io::pipe().expect("pipe");
    assert_eq!(
        poll_now(reader.as_fd(), Readiness::READ),
        Ok(Readiness::empty())
    );
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let watch = Watch::new(reader.as_fd(), Readiness::READ, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    })
    .expect("pipes can be watched");
    writer.write_all(b"x").expect("write");
    let ready = block_on(readiness(reader.as_fd(), Readiness::READ));
    assert_eq!(ready, Ok(Readiness::READ));
    let end = Instant::now() + Duration::from_secs(5);
    while calls.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    drop(watch);
    drop(writer);
    let ready = block_on(readiness(reader.as_fd(), Readiness::READ)).expect("poll");
    assert!(ready.contains(Readiness::HANG_UP));
    let file = std::fs::File::open("/proc/self/exe").expect("open");
    assert_eq!(
        block_on(readiness(file.as_fd(), Readiness::READ)),
        Ok(Readiness::READ)
    );
}
