//! Whatever a sentry sends ends at most its own connection.

mod common;

use common::{Gofer, TempDir, root};
use gofer::shared::SharedPort;
use gofer::{Access, Config, ProcFd, ServeError, create_ring, create_socket};
use gofer_proto::ring::{CallError, Client, Port, WINDOW_LEN};
use gofer_proto::{NodeId, Request};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;

/// xorshift: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn start(
    dir: &TempDir,
) -> (
    Client<SharedPort>,
    std::thread::JoinHandle<Result<(), ServeError>>,
) {
    let ring = create_ring().expect("ring");
    let (ours, theirs) = create_socket().expect("socket");
    let client = Client::new(SharedPort::new(&ring, ours).expect("port")).expect("client");
    let roots = vec![root(&dir.0, Access::ReadWrite)];
    let thread = std::thread::spawn(move || {
        let proc_fd = ProcFd::open().expect("proc");
        gofer::serve(Config::default(), proc_fd, ring, theirs, roots)
    });
    (client, thread)
}

#[test]
fn malformed_requests_end_the_connection() {
    let dir = TempDir::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..150 {
        let (client, thread) = start(&dir);
        let mut request = Vec::new();
        match round % 3 {
            // Noise.
            0 => {
                let len = usize::try_from(random.next()).expect("64 bit") % 300;
                request = random.bytes(len);
            }
            // A valid one cut short or followed by noise.
            1 => {
                Request::GetAttr { node: NodeId(1) }.encode(&mut request);
                request.truncate(11);
            }
            // An operation with noise for its fields.
            _ => {
                let op = u32::try_from(random.next() % 40).expect("small");
                request.extend_from_slice(&op.to_ne_bytes());
                request.extend(random.bytes(5));
            }
        }
        let mut reply = Vec::new();
        let result = client.call(&request, &mut reply).err();
        assert_eq!(result, Some(CallError::Gone), "{request:02x?}");
        assert!(client.is_gone());
        drop(client);
        let end = thread.join().expect("the server does not panic");
        assert!(matches!(end, Err(ServeError::Violation(_))), "{end:?}");
    }
}

#[test]
fn requests_with_random_fields_get_an_answer_or_an_end() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.join("d/e")).expect("dirs");
    let mut random = Random(77);
    let (mut client, mut thread) = start(&dir);
    let mut survived = 0;
    for _ in 0..5_000 {
        // A structured request, with bytes changed.
        let name = ["d", "e", "f", "x"][usize::try_from(random.next() % 4).expect("small")];
        let mut request = Vec::new();
        let op = u32::try_from(1 + random.next() % 23).expect("small");
        request.extend_from_slice(&op.to_ne_bytes());
        request.extend_from_slice(&(random.next() % 6).to_ne_bytes());
        if random.next().is_multiple_of(2) {
            request.extend_from_slice(&u16::try_from(name.len()).expect("len").to_ne_bytes());
            request.extend_from_slice(name.as_bytes());
        }
        for _ in 0..random.next() % 8 {
            request.extend_from_slice(
                &u32::try_from(random.next() % 4)
                    .expect("small")
                    .to_ne_bytes(),
            );
        }
        match client.call(&request, &mut Vec::new()) {
            Err(CallError::Gone) => {
                drop(client);
                let end = thread.join().expect("the server does not panic");
                assert!(matches!(end, Err(ServeError::Violation(_))), "{end:?}");
                (client, thread) = start(&dir);
            }
            _ => survived += 1,
        }
    }
    assert!(survived > 50, "only {survived} were answered");
    drop(client);
    thread.join().expect("server").expect("a good end");
}

#[test]
fn noise_all_over_the_ring_ends_the_connection() {
    let dir = TempDir::new();
    let mut random = Random(99);
    for _ in 0..100 {
        let ring = create_ring().expect("ring");
        let (ours, theirs) = create_socket().expect("socket");
        let port = SharedPort::new(&ring, ours).expect("port");
        let roots = vec![root(&dir.0, Access::ReadWrite)];
        let thread = std::thread::spawn(move || {
            let proc_fd = ProcFd::open().expect("proc");
            gofer::serve(Config::default(), proc_fd, ring, theirs, roots)
        });
        // Headers and control words, then the doorbell.
        for word in port.words().iter().take(2048) {
            word.store(u32::try_from(random.next() >> 32).expect("32 bit"), SeqCst);
        }
        let words = port.words();
        words[32].store(u32::MAX, SeqCst);
        words[64].fetch_add(1, SeqCst);
        port.wake(&words[64], 1000);
        let end = thread.join().expect("the server does not panic");
        assert!(matches!(end, Err(ServeError::Violation(_))), "{end:?}");
    }
}

#[test]
fn a_message_on_the_socket_ends_the_connection() {
    let dir = TempDir::new();
    let ring = create_ring().expect("ring");
    let (ours, theirs) = create_socket().expect("socket");
    let roots = vec![root(&dir.0, Access::ReadWrite)];
    let thread = std::thread::spawn(move || {
        let proc_fd = ProcFd::open().expect("proc");
        gofer::serve(Config::default(), proc_fd, ring, theirs, roots)
    });
    rustix::net::send(&ours, b"noise", rustix::net::SendFlags::NOSIGNAL).expect("send");
    thread.join().expect("server").expect("an end");
}

#[test]
fn rings_that_could_shrink_are_refused() {
    use rustix::fs::MemfdFlags;
    let unsealed = rustix::fs::memfd_create("ring", MemfdFlags::ALLOW_SEALING).expect("memfd");
    rustix::fs::ftruncate(&unsealed, 1 << 20).expect("size");
    let (ours, _theirs) = create_socket().expect("socket");
    let result = SharedPort::new(&unsealed, ours);
    assert_eq!(result.err(), Some(rustix::io::Errno::PERM));
}

#[test]
fn a_gofer_that_dies_fails_calls_at_once() {
    let dir = TempDir::new();
    let gofer = Gofer::on(&dir);
    let client = gofer.client.as_ref().expect("client");
    // A second client of the same name would be a violation; shutting the
    // socket down is what the end of the process looks like from here.
    let ring = create_ring().expect("ring");
    let (ours, theirs) = create_socket().expect("socket");
    let dead = Client::new(SharedPort::new(&ring, ours).expect("port")).expect("client");
    drop(theirs.as_fd().try_clone_to_owned());
    drop(theirs);
    let start = std::time::Instant::now();
    assert_eq!(
        dead.call(b"anything", &mut Vec::new()).err(),
        Some(CallError::Gone)
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
    assert!(!client.is_gone());
}

#[test]
fn the_largest_request_fits_and_a_larger_one_is_refused() {
    let dir = TempDir::new();
    std::fs::write(dir.join("f"), b"").expect("file");
    let gofer = Gofer::on(&dir);
    let value = vec![7; 65_536];
    let result = gofer.call(&Request::SetXattr {
        node: gofer.node("f"),
        name: b"user.large",
        value: &value,
        flags: 0,
    });
    // Whether the file system has room for it is its own business.
    if let Err(errno) = result {
        eprintln!("host: {errno:?}");
    }
    let client = gofer.client.as_ref().expect("client");
    let too_long = vec![0; WINDOW_LEN + 1];
    assert_eq!(
        client.call(&too_long, &mut Vec::new()).err(),
        Some(CallError::Errno(syscall_tables::Errno::E2BIG))
    );
    assert!(!client.is_gone());
}
