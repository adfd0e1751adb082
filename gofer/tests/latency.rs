//! Round trips in nanoseconds. Run by hand:
//! `cargo test --release -p gofer --test latency -- --ignored --nocapture`.

mod common;

use std::time::Instant;

use common::{Gofer, TempDir};
use gofer_proto::OpenFlags;
use gofer_proto::request::Removed;

fn measure(what: &str, mut call: impl FnMut()) {
    const ROUNDS: usize = 20_000;
    let mut samples: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_nanos()
        })
        .collect();
    samples.sort_unstable();
    println!(
        "{what:24} p50 {:6}  p99 {:6}",
        samples[ROUNDS / 2],
        samples[ROUNDS * 99 / 100]
    );
}

#[test]
#[ignore = "a measurement"]
fn latency() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.join("a/b/c")).expect("dirs");
    std::fs::write(dir.join("a/b/c/f"), b"x").expect("file");
    let gofer = Gofer::on(&dir);
    let (root, node) = (gofer.root(), gofer.node("a/b/c/f"));
    measure("getattr", || {
        let _ = gofer.getattr(node);
    });
    measure("walk of 4", || drop(gofer.walk(root, "a/b/c/f")));
    measure("walk to nothing", || drop(gofer.walk(root, "none")));
    measure("open and close", || drop(gofer.open(node, OpenFlags::READ)));
    measure("create and unlink", || {
        gofer.create(root, "new").expect("create");
        gofer.unlink(root, "new", Removed::Drop).expect("unlink");
    });
    measure("host: stat", || {
        drop(std::fs::metadata(dir.join("a/b/c/f")))
    });
    measure("host: open and close", || {
        drop(std::fs::File::open(dir.join("a/b/c/f")))
    });
}
