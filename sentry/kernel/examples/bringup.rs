use std::os::fd::AsFd;
use std::sync::Arc;
use sentry_kernel::fs::tmpfs::{TmpFs, TmpFsOptions};
use sentry_kernel::fs::host_file::HostFile;
use sentry_kernel::kernel::{KernelConfig, LogLevel, LogSink};
use sentry_kernel::sandbox::{ContainerConfig, ProcessConfig, Sandbox};
use sentry_kernel::task::{Creds, Rlimits};
use sentry_kernel::vfs::open::{OpenArgs, Opener};
use sentry_kernel::vfs::path::Walk;
use sentry_kernel::vfs::{Fd, FsState, MountFlags, OpenMode, WalkFlags};
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::Platform;
use syscall_tables::abi::OpenFlags;

struct Stderr;
impl LogSink for Stderr {
    fn enabled(&self, _: LogLevel) -> bool { true }
    fn log(&self, l: LogLevel, line: std::fmt::Arguments<'_>) { eprintln!("{l:?}: {line}"); }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let executor = Executor::with_default_workers();
    let platform: Arc<dyn Platform> = if args[1] == "ptrace" {
        sentry_platform::ptrace::PtracePlatform::new().unwrap()
    } else {
        let p = sentry_platform::systrap::Systrap::new(Default::default()).unwrap();
        executor.add_hot_source(p.hot_source());
        p
    };
    let sandbox = Sandbox::new(KernelConfig {
        platform,
        executor,
        hostname: b"test".to_vec(),
        cpus: 2,
        memory_bytes: 1 << 30,
        log: Arc::new(Stderr),
        strace: std::env::var_os("STRACE").is_some(),
    }).unwrap();
    let vfs = &sandbox.kernel().vfs;
    let fs = TmpFs::new(vfs.next_dev(), &TmpFsOptions::default());
    let root = vfs.new_namespace(&vfs.superblock(fs), MountFlags::empty());
    let state = FsState::at_root_of(&root).unwrap();
    let creds = Creds::root();
    let opener = Opener { vfs, creds: &creds, umask: 0, task: None };
    let at = state.root.clone();
    let mut walk = Walk::new(vfs, &creds, at.clone(), at, WalkFlags::empty());
    let oa = OpenArgs { flags: OpenFlags::O_CREAT | OpenFlags::O_WRONLY, perm: 0o755, resolve: WalkFlags::empty() };
    let file = opener.open(&mut walk, b"/program", &oa).unwrap().file;
    let data = std::fs::read(&args[2]).unwrap();
    let mut done = 0;
    while done < data.len() { done += file.ops.write(&file, &data[done..]).map(|n| { n }).unwrap(); file_pos(&file, done); }
    drop(file);
    let stdio = |fd: std::os::fd::BorrowedFd<'_>, mode| HostFile::open(fd.try_clone_to_owned().unwrap(), mode).unwrap();
    let files = vec![
        (Fd(0), stdio(std::io::stdin().as_fd(), OpenMode::READ)),
        (Fd(1), stdio(std::io::stdout().as_fd(), OpenMode::WRITE)),
        (Fd(2), stdio(std::io::stderr().as_fd(), OpenMode::WRITE)),
    ];
    let config = ContainerConfig {
        id: "c".to_owned(),
        process: ProcessConfig {
            argv: std::iter::once(b"/program".to_vec()).chain(args[3..].iter().map(|a| a.clone().into_bytes())).collect(),
            envp: vec![b"PATH=/bin".to_vec()],
            cwd: b"/".to_vec(),
            creds: Creds::root(),
            rlimits: Rlimits::default(),
            umask: 0o022,
            files,
            terminal: None,
        },
        hostname: Vec::new(),
        domainname: Vec::new(),
        root,
        pid_namespace_of: None,
    };
    block_on(sandbox.create_container(config)).unwrap();
    let begin = std::time::Instant::now();
    sandbox.start("c").unwrap();
    let status = block_on(sandbox.wait("c"));
    eprintln!("{status:?} after {:?}", begin.elapsed());
}
fn file_pos(_f: &sentry_kernel::vfs::File, _n: usize) {}
