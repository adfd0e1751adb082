//! A sandbox on the fake platform, for unit tests that play guest code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentry_platform::executor::{Executor, block_on};
use sentry_platform::fake::{FakeGuest, FakePlatform};
use sentry_platform::host::system::System;
use syscall_tables::abi::{ElfHeader, ElfProgramHeader, OpenFlags};
use zerocopy::IntoBytes;

use crate::fs::tmpfs::{TmpFs, TmpFsOptions};
use crate::kernel::{KernelConfig, NoLog};
use crate::sandbox::{ContainerConfig, ProcessConfig, Sandbox};
use crate::task::{Creds, Rlimits, Task};
use crate::vfs::open::{OpenArgs, Opener};
use crate::vfs::path::Walk;
use crate::vfs::{FsState, MountFlags, WalkFlags};

/// Writable memory of the test program.
pub const DATA: u64 = 0x40_0000;
const DATA_LEN: u64 = 0x1_0000;

/// A container `c` whose init is played by the test.
pub struct World {
    pub sandbox: Sandbox,
    pub platform: Arc<FakePlatform>,
    pub init: FakeGuest,
}

/// An ELF file with one writable segment at [`DATA`].
fn program() -> Vec<u8> {
    let header = ElfHeader {
        e_ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        e_type: 2,
        e_machine: 62,
        e_version: 1,
        e_entry: DATA,
        e_phoff: size_of::<ElfHeader>() as u64,
        e_ehsize: size_of::<ElfHeader>() as u16,
        e_phentsize: size_of::<ElfProgramHeader>() as u16,
        e_phnum: 1,
        ..ElfHeader::default()
    };
    let segment = ElfProgramHeader {
        p_type: 1,
        p_flags: 7,
        p_vaddr: DATA,
        p_filesz: 0x1000,
        p_memsz: DATA_LEN,
        p_align: 0x1000,
        ..ElfProgramHeader::default()
    };
    let mut file = header.as_bytes().to_vec();
    file.extend_from_slice(segment.as_bytes());
    file.resize(0x1000, 0);
    file
}

impl World {
    /// Starts the container.
    pub fn new() -> Self {
        let platform = FakePlatform::new();
        let sandbox = Sandbox::new(KernelConfig {
            platform: platform.clone(),
            executor: Executor::new(2),
            hostname: b"test".to_vec(),
            cpus: 2,
            memory_bytes: 1 << 30,
            log: Arc::new(NoLog),
            strace: false,
            host: System::open(),
            network: None,
        })
        .expect("kernel");
        let vfs = &sandbox.kernel().vfs;
        let fs = TmpFs::new(vfs.next_dev(), &TmpFsOptions::default());
        let root = vfs.new_namespace(&vfs.superblock(fs), MountFlags::empty());
        let state = FsState::at_root_of(&root).expect("root");
        let creds = Creds::root();
        let flags = OpenFlags::O_CREAT | OpenFlags::O_WRONLY;
        let opener = Opener {
            vfs,
            creds: &creds,
            umask: 0,
            task: None,
        };
        let at = state.root.clone();
        let mut walk = Walk::new(vfs, &creds, at.clone(), at, WalkFlags::empty());
        let args = OpenArgs {
            flags,
            perm: 0o755,
            resolve: WalkFlags::empty(),
        };
        let opened = opener.open(&mut walk, b"/program", &args).expect("create");
        let file = opened.file;
        file.ops.write(&file, &program()).expect("write");
        drop(file);
        let config = ContainerConfig {
            id: "c".to_owned(),
            process: ProcessConfig {
                argv: vec![b"/program".to_vec()],
                envp: Vec::new(),
                cwd: b"/".to_vec(),
                creds: Creds::root(),
                rlimits: Rlimits::default(),
                umask: 0o022,
                oom_score_adj: 0,
                seccomp: Default::default(),
                files: Vec::new(),
                terminal: None,
            },
            hostname: Vec::new(),
            ipc: Vec::new(),
            domainname: Vec::new(),
            root,
            shares: crate::sandbox::Shares::default(),
        };
        block_on(sandbox.create_container(config)).expect("container");
        sandbox.start("c").expect("start");
        let init = platform.try_next_guest().expect("init's thread");
        Self {
            sandbox,
            platform,
            init,
        }
    }

    /// The task with this id in the container.
    pub fn task(&self, tid: i32) -> Arc<Task> {
        // The root namespace counts as the container's does, being the same
        // tasks in the same order.
        let ns = &self.sandbox.kernel().root_pid_ns;
        ns.task(tid).expect("a live task")
    }

    /// Makes a call and answers `rax`.
    pub fn call(&self, guest: &FakeGuest, number: u32, args: &[u64]) -> i64 {
        self.try_call(guest, number, args)
            .expect("the call returns")
    }

    /// As [`Self::call`]; `None` if the task ended in it.
    pub fn try_call(&self, guest: &FakeGuest, number: u32, args: &[u64]) -> Option<i64> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        block_on(guest.syscall(number.into(), all)).map(u64::cast_signed)
    }

    /// The other side of the thread that was made last.
    pub fn next_guest(&self) -> FakeGuest {
        block_on(self.platform.next_guest())
    }

    /// Stores bytes in the memory of a task.
    pub fn poke(&self, tid: i32, addr: u64, bytes: &[u8]) {
        let mm = self.task(tid).mm();
        block_on(mm.write_memory(addr, bytes)).expect("mapped");
    }

    /// Reads a word of the memory of a task.
    pub fn peek(&self, tid: i32, addr: u64) -> u64 {
        let mm = self.task(tid).mm();
        let mut bytes = [0; 8];
        block_on(mm.read_memory(addr, &mut bytes)).expect("mapped");
        u64::from_le_bytes(bytes)
    }

    /// Waits until `condition` holds.
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
