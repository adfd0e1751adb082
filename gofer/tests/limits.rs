//! Many files with few open fds. One test alone, because it counts the fds of
//! the process.

mod common;

use std::path::Path;

use common::{Gofer, TempDir, root};
use gofer::{Access, Config, Limits};
use gofer_proto::request::Removed;
use gofer_proto::{NodeId, OpenFlags};

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("fds").count()
}

fn make_tree(at: &Path) -> u32 {
    let mut files = 0;
    for d in 0..500 {
        let dir = at.join(format!("{}/{}", d / 25, d));
        std::fs::create_dir_all(&dir).expect("dir");
        for f in 0..100 {
            std::fs::write(dir.join(f.to_string()), b"").expect("file");
            files += 1;
        }
    }
    files
}

#[test]
fn fifty_thousand_files_need_few_fds() {
    let dir = TempDir::new();
    assert_eq!(make_tree(&dir.0), 50_000);
    let limits = Limits {
        directories: 64,
        removed: 32,
        streams: 4,
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let before = open_fds();
    let gofer = Gofer::start(config, vec![root(&dir.0, Access::ReadWrite)]);
    let start = gofer.root();
    let mut nodes: Vec<(u32, u32, NodeId)> = Vec::new();
    for d in 0..500 {
        for f in 0..100 {
            let reply = gofer.walk(start, &format!("{}/{d}/{f}", d / 25));
            assert_eq!(reply.errno, 0);
            nodes.push((d, f, reply.steps[2].id()));
        }
    }
    let bound = before + limits.directories + limits.removed + limits.streams + 32;
    assert!(open_fds() <= bound, "{} fds open", open_fds());

    // Evicted directories come back, in any order.
    for step in [7919, 104_729] {
        for i in 0..5000 {
            let (.., node) = nodes[i * step % nodes.len()];
            gofer.getattr(node).expect("attributes");
        }
    }
    gofer.open(nodes[49_999].2, OpenFlags::READ).expect("open");
    assert!(open_fds() <= bound, "{} fds open", open_fds());

    // Removed files are kept open up to the limit only.
    let parent = gofer.node("0/0");
    for f in 0..100 {
        gofer
            .unlink(parent, &f.to_string(), Removed::Keep)
            .expect("unlink");
    }
    let usable = (0..100)
        .filter(|&f| gofer.getattr(nodes[f].2).is_ok())
        .count();
    assert_eq!(usable, limits.removed);
    assert!(open_fds() <= bound, "{} fds open", open_fds());

    for (.., node) in &nodes {
        gofer.forget(*node, 1);
    }
    drop(gofer);
    assert!(open_fds() <= before + 1);
}
