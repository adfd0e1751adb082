use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use syscall_tables::Errno;

use super::*;

/// Both ends in one process; sleeping is a short nap.
#[derive(Clone)]
struct TestPort {
    words: Arc<Vec<AtomicU32>>,
    gone: Arc<std::sync::atomic::AtomicBool>,
    spin: Duration,
}

impl TestPort {
    fn new(spin_us: u64) -> Self {
        Self {
            words: Arc::new((0..RING_WORDS).map(|_| AtomicU32::new(0)).collect()),
            gone: Arc::default(),
            spin: Duration::from_micros(spin_us),
        }
    }
}

impl Port for TestPort {
    fn words(&self) -> &[AtomicU32] {
        &self.words
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        let start = std::time::Instant::now();
        while word.load(SeqCst) == expected && timeout.is_none_or(|limit| start.elapsed() < limit) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn wake(&self, _: &AtomicU32, _: u32) {}

    fn spin(&self) -> Duration {
        self.spin
    }
}

impl ClientPort for TestPort {
    fn receive(&self) -> Received {
        if self.gone.load(SeqCst) {
            Received::Gone
        } else {
            Received::Nothing
        }
    }
}

fn echo(server: &Server<TestPort>) -> Result<(), Violation> {
    let (mut request, mut budget) = (Vec::new(), server.spin_budget());
    while let Some(claim) = server.next(&mut request, &mut budget)? {
        let error = (request == b"fail").then_some(Errno::ENOENT);
        server.answer(claim, error, &request, false)?;
    }
    Ok(())
}

#[test]
fn calls_from_many_threads_get_their_own_replies() {
    for spin_us in [0, 30] {
        let port = TestPort::new(spin_us);
        let client = Client::new(port.clone()).expect("client");
        let server = Server::new(port, 2).expect("server");
        std::thread::scope(|scope| {
            let servers: Vec<_> = (0..3).map(|_| scope.spawn(|| echo(&server))).collect();
            let callers: Vec<_> = (0..40u32)
                .map(|caller| {
                    let client = &client;
                    scope.spawn(move || {
                        let mut reply = Vec::new();
                        for i in 0..50u32 {
                            let len =
                                usize::try_from((caller * 37 + i * 1001) % 5000).expect("len");
                            let sent = vec![u8::try_from(caller).expect("byte"); len];
                            assert!(client.call(&sent, &mut reply).expect("reply").is_none());
                            assert_eq!(sent, reply);
                        }
                        assert_eq!(
                            client.call(b"fail", &mut reply).err(),
                            Some(CallError::Errno(Errno::ENOENT))
                        );
                    })
                })
                .collect();
            for caller in callers {
                caller.join().expect("caller");
            }
            server.stop();
            for thread in servers {
                assert_eq!(thread.join().expect("server"), Ok(()));
            }
        });
    }
}

#[test]
fn a_dead_gofer_fails_all_calls() {
    let port = TestPort::new(10);
    let client = Client::new(port.clone()).expect("client");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| client.call(b"x", &mut Vec::new()).err()))
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        port.gone.store(true, SeqCst);
        for call in calls {
            assert_eq!(call.join().expect("call"), Some(CallError::Gone));
        }
    });
    assert!(client.is_gone());
    assert_eq!(
        client.call(b"x", &mut Vec::new()).err(),
        Some(CallError::Gone)
    );
}

#[test]
fn the_server_ends_at_what_it_does_not_expect() {
    type Spoil = fn(&Layout<'_>);
    let cases: [(&str, Spoil); 5] = [
        ("slot without a request", |_| {}),
        ("wrong generation", |l| {
            l.slot(3)
                .state
                .store(7 << GENERATION_SHIFT | STATE_REQUEST, SeqCst);
        }),
        ("slot without a request", |l| {
            l.slot(3)
                .state
                .store(1 << GENERATION_SHIFT | STATE_REPLY, SeqCst);
        }),
        ("request longer than its window", |l| {
            l.slot(3)
                .state
                .store(1 << GENERATION_SHIFT | STATE_REQUEST, SeqCst);
            l.slot(3).request_len.store(u32::MAX, SeqCst);
        }),
        ("ring of another version", |l| {
            l.slot(3)
                .state
                .store(1 << GENERATION_SHIFT | STATE_REQUEST, SeqCst);
            l.word(WORD_VERSION).store(99, SeqCst);
        }),
    ];
    for (expected, spoil) in cases {
        let port = TestPort::new(0);
        let _client = Client::new(port.clone()).expect("client");
        let server = Server::new(port.clone(), 1).expect("server");
        let layout = Layout::new(&port.words);
        spoil(&layout);
        layout.pending().store(1 << 3, SeqCst);
        let mut budget = server.spin_budget();
        assert_eq!(
            server.next(&mut Vec::new(), &mut budget).err(),
            Some(Violation(expected))
        );
    }
}

#[test]
fn bytes_survive_the_windows() {
    let window: Vec<AtomicU32> = (0..WINDOW_LEN / 4).map(|_| AtomicU32::new(0)).collect();
    let mut out = Vec::new();
    for len in [0, 1, 3, 4, 5, 4095, WINDOW_LEN] {
        let bytes: Vec<u8> = (0..len)
            .map(|i| u8::try_from(i % 251).expect("byte"))
            .collect();
        store_bytes(&window, &bytes);
        load_bytes(&window, len, &mut out);
        assert_eq!(out, bytes);
    }
}
