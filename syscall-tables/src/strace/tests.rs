use zerocopy::IntoBytes;

use super::*;
use crate::abi::{self, OpenFlags};
use crate::table::{TABLE, nr};

/// Memory of a few pieces at chosen addresses.
#[derive(Default)]
struct Pieces(Vec<(u64, Vec<u8>)>);

impl Pieces {
    fn put(&mut self, addr: u64, bytes: &[u8]) -> u64 {
        self.0.push((addr, bytes.to_vec()));
        addr
    }
}

impl Memory for Pieces {
    fn read(&mut self, addr: u64, len: usize) -> Option<Vec<u8>> {
        self.0.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(addr.checked_sub(*start)?).ok()?;
            let rest = bytes.get(offset..).filter(|rest| !rest.is_empty())?;
            Some(rest[..len.min(rest.len())].to_vec())
        })
    }
}

fn show(nr: u32, args: &[u64], result: i64, memory: &mut Pieces) -> String {
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    line(nr.into(), &six, result as u64, memory, &Options::default())
}

#[test]
fn open_prints_flags_and_mode_only_when_creating() {
    let mut m = Pieces::default();
    let path = m.put(0x1000, b"/etc/passwd\0");
    let at = abi::AT_FDCWD as u32 as u64;
    assert_eq!(
        show(
            nr::OPENAT,
            &[at, path, u64::from(OpenFlags::O_CLOEXEC.bits()), 0o777],
            3,
            &mut m
        ),
        r#"openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3"#
    );
    let create = OpenFlags::O_WRONLY | OpenFlags::O_CREAT | OpenFlags::O_SYNC;
    assert_eq!(
        show(nr::OPEN, &[path, create.bits().into(), 0o644], -13, &mut m),
        r#"open("/etc/passwd", O_WRONLY|O_SYNC|O_CREAT, 0644) = -1 EACCES"#
    );
    assert_eq!(
        show(nr::OPEN, &[0xdead_0000, 0x8000_0000], -14, &mut m),
        "open(0xdead0000, O_RDONLY|0x80000000) = -1 EFAULT"
    );
}

#[test]
fn read_composes_from_two_parts() {
    let mut m = Pieces::default();
    let buf = m.put(0x2000, b"hi\n\0\x011");
    let entered = enter(
        nr::READ.into(),
        &[3, buf, 100, 0, 0, 0],
        &mut m,
        &Options::default(),
    );
    assert_eq!(entered.begun(), "read(3, ");
    assert_eq!(entered.unfinished(), "read(3,  <unfinished ...>");
    assert_eq!(
        entered.rest(6, &mut m, &Options::default()),
        r#""hi\n\0\0011", 100) = 6"#
    );
    assert_eq!(
        entered.finish(6, &mut m, &Options::default()),
        r#"read(3, "hi\n\0\0011", 100) = 6"#
    );
    assert_eq!(
        entered.resumed((-4_i64) as u64, &mut m, &Options::default()),
        "<... read resumed>0x2000, 100) = -1 EINTR"
    );
    assert_eq!(
        entered.finish((-512_i64) as u64, &mut m, &Options::default()),
        "read(3, 0x2000, 100) = ? ERESTARTSYS"
    );
}

#[test]
fn long_buffers_are_cut() {
    let mut m = Pieces::default();
    let buf = m.put(0x2000, &[b'a'; 100]);
    let options = Options {
        max_string: 4,
        ..Options::default()
    };
    assert_eq!(
        line(1, &[1, buf, 100, 0, 0, 0], 100, &mut m, &options),
        r#"write(1, "aaaa"..., 100) = 100"#
    );
}

#[test]
fn structs_are_decoded() {
    let mut m = Pieces::default();
    let stat = abi::Stat {
        st_mode: abi::S_IFREG | 0o644,
        st_size: 5,
        ..Default::default()
    };
    let buf = m.put(0x2000, stat.as_bytes());
    assert_eq!(
        show(nr::FSTAT, &[3, buf], 0, &mut m),
        "fstat(3, {st_mode=S_IFREG|0644, st_size=5, ...}) = 0"
    );
    assert_eq!(
        show(nr::FSTAT, &[3, buf], -9, &mut m),
        "fstat(3, 0x2000) = -1 EBADF"
    );
    let set = abi::SigSet::of(abi::Signal::SIGINT).union(abi::SigSet::of(abi::Signal::SIGCHLD));
    let set = m.put(0x3000, &set.0.to_ne_bytes());
    let all = m.put(
        0x3100,
        &abi::SigSet::UNBLOCKABLE.complement().0.to_ne_bytes(),
    );
    assert_eq!(
        show(nr::RT_SIGPROCMASK, &[2, set, all, 8], 0, &mut m),
        "rt_sigprocmask(SIG_SETMASK, [INT CHLD], ~[KILL STOP], 8) = 0"
    );
    let pollfds = [
        abi::PollFd {
            fd: 3,
            events: 1,
            revents: 1,
        },
        abi::PollFd {
            fd: -1,
            events: 5,
            revents: 0,
        },
    ];
    let fds = m.put(0x4000, pollfds.as_bytes());
    assert_eq!(
        show(nr::POLL, &[fds, 2, u64::MAX], 1, &mut m),
        "poll([{fd=3, events=POLLIN, revents=POLLIN}, {fd=-1, events=POLLIN|POLLOUT}], 2, -1) = 1"
    );
    let status = m.put(0x5000, &0x0300_i32.to_ne_bytes());
    assert_eq!(
        show(nr::WAIT4, &[u64::MAX, status, 1, 0], 7, &mut m),
        "wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], WNOHANG, NULL) = 7"
    );
}

#[test]
fn values_that_change_show_both() {
    let mut m = Pieces::default();
    let addr = abi::SockAddrIn {
        sin_family: abi::AF_INET,
        sin_port: 80_u16.to_be_bytes(),
        sin_addr: [127, 0, 0, 1],
        ..Default::default()
    };
    let at = m.put(0x1000, addr.as_bytes());
    let len = m.put(0x2000, &28_u32.to_ne_bytes());
    let entered = enter(
        nr::ACCEPT.into(),
        &[3, at, len, 0, 0, 0],
        &mut m,
        &Options::default(),
    );
    let mut after = Pieces::default();
    after.put(at, addr.as_bytes());
    after.put(len, &16_u32.to_ne_bytes());
    assert_eq!(
        entered.finish(4, &mut after, &Options::default()),
        r#"accept(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, [28 => 16]) = 4"#
    );
    assert_eq!(
        entered.finish((-11_i64) as u64, &mut after, &Options::default()),
        "accept(3, 0x1000, [28]) = -1 EAGAIN"
    );
}

#[test]
fn execve_lists_arguments_and_counts_the_environment() {
    let mut m = Pieces::default();
    let path = m.put(0x1000, b"/bin/ls\0");
    let ls = m.put(0x1100, b"ls\0");
    let words = [ls, path, 0];
    let argv = m.put(0x2000, words.as_bytes());
    assert_eq!(
        show(nr::EXECVE, &[path, argv, argv], 0, &mut m),
        r#"execve("/bin/ls", ["ls", "/bin/ls"], 0x2000 /* 2 vars */) = 0"#
    );
}

#[test]
fn special_words() {
    let mut m = Pieces::default();
    let flags = abi::CloneFlags::CLONE_CHILD_SETTID | abi::CloneFlags::CLONE_CHILD_CLEARTID;
    assert_eq!(
        show(nr::CLONE, &[flags.bits() | 17, 0, 0, 0x10, 0], 9, &mut m),
        "clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, NULL, NULL, 0x10, NULL) = 9"
    );
    assert_eq!(
        show(nr::FUTEX, &[0x10, 129, 1, 0, 0, 0], 1, &mut m),
        "futex(0x10, FUTEX_WAKE_PRIVATE, 1, 0, NULL, 0) = 1"
    );
    assert_eq!(
        show(nr::SOCKET, &[1, 1 | 0x80000, 0], 3, &mut m),
        "socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 3"
    );
    assert_eq!(
        show(
            nr::MMAP,
            &[0, 4096, 3, 0x22, u64::MAX, 0],
            0x7f00_0000_0000,
            &mut m
        ),
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000"
    );
    assert_eq!(
        show(nr::FCNTL, &[3, 2, 1], 0, &mut m),
        "fcntl(3, F_SETFD, FD_CLOEXEC) = 0"
    );
    assert_eq!(
        show(nr::FCNTL, &[3, 3, 99], 2, &mut m),
        "fcntl(3, F_GETFL) = 2"
    );
    assert_eq!(show(nr::EXIT_GROUP, &[1], 0, &mut m), "exit_group(1) = ?");
    assert_eq!(show(nr::UMASK, &[0o22], 0o2, &mut m), "umask(022) = 02");
    assert_eq!(
        show(400, &[1, 2, 3], -38, &mut m),
        "syscall_0x190(0x1, 0x2, 0x3, 0, 0, 0) = -1 ENOSYS"
    );
    let one = m.put(0x9000, &1_i32.to_ne_bytes());
    assert_eq!(
        show(nr::SETSOCKOPT, &[3, 1, 2, one, 4], 0, &mut m),
        "setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0"
    );
}

#[test]
fn messages_show_data_and_rights() {
    let mut m = Pieces::default();
    let data = m.put(0x1000, b"hello");
    let iov = m.put(
        0x2000,
        abi::Iovec {
            iov_base: data,
            iov_len: 5,
        }
        .as_bytes(),
    );
    let cmsg = abi::CmsgHdr {
        cmsg_len: 20,
        cmsg_level: 1,
        cmsg_type: abi::SCM_RIGHTS,
    };
    let mut control = cmsg.as_bytes().to_vec();
    control.extend_from_slice(&7_i32.to_ne_bytes());
    control.extend_from_slice(&[0; 4]);
    let control = m.put(0x3000, &control);
    let header = abi::MsgHdr {
        msg_iov: iov,
        msg_iovlen: 1,
        msg_control: control,
        msg_controllen: 24,
        ..Default::default()
    };
    let msg = m.put(0x4000, header.as_bytes());
    assert_eq!(
        show(nr::SENDMSG, &[3, msg, 0x4000], 5, &mut m),
        r#"sendmsg(3, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="hello", iov_len=5}], msg_iovlen=1, msg_control=[{cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[7]}], msg_controllen=24, msg_flags=0}, MSG_NOSIGNAL) = 5"#
    );
}

#[test]
fn gather_asks_until_it_has_all() {
    let mut m = Pieces::default();
    let path = m.put(0x1000, b"/bin/ls\0");
    let argv = m.put(0x2000, [path, 0].as_bytes());
    let mut gather = Gather::new();
    let args = [path, argv, 0, 0, 0, 0];
    let mut rounds = 0;
    let text = loop {
        let entered = enter(nr::EXECVE.into(), &args, &mut gather, &Options::default());
        let wanted = gather.take_wanted();
        if wanted.is_empty() {
            break entered.never();
        }
        rounds += 1;
        for (addr, len) in wanted {
            gather.supply(addr, len, m.read(addr, len));
        }
    };
    assert_eq!(text, r#"execve("/bin/ls", ["/bin/ls"], NULL) = ?"#);
    assert_eq!(rounds, 2);
}

/// A memory of noise: every read succeeds.
struct Noise(u64);

impl Memory for Noise {
    fn read(&mut self, _addr: u64, len: usize) -> Option<Vec<u8>> {
        assert!(len <= 1 << 20, "asked for {len} bytes");
        let mut bytes = Vec::with_capacity(len);
        for _ in 0..len {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            bytes.push((self.0 >> 33) as u8);
        }
        Some(bytes)
    }
}

#[test]
fn any_arguments_and_memory_are_survived() {
    let words = [
        0,
        1,
        5,
        0x1234_5678,
        u64::from(u32::MAX),
        u64::MAX,
        i64::MIN as u64,
    ];
    let mut noise = Noise(1);
    let mut nothing = Pieces::default();
    for call in &TABLE {
        for (i, &a) in words.iter().enumerate() {
            let args = std::array::from_fn(|n| words[(i + n * 3) % words.len()]);
            for result in [0, 3, 100, a, (-22_i64) as u64] {
                let options = Options::default();
                let text = line(call.number.into(), &args, result, &mut noise, &options);
                assert!(text.starts_with(call.name) && !text.contains('\n'));
                line(call.number.into(), &args, result, &mut nothing, &options);
            }
        }
    }
}
