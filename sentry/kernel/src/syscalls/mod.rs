//! System call handlers, one file per family, and their dispatch.
//!
//! A handler copies in and decodes, acts on kernel objects, copies out. Each
//! row of [`dispatch`]'s table ties a call of `syscall_tables` to one; keep
//! it in the order of the numbers, one line per call.

mod attributes;
mod control_message;
mod creds;
mod directory;
mod epoll;
mod exec;
mod fcntl;
mod futex;
mod inotify;
mod lock;
mod memfd;
mod memory;
mod memory_advice;
mod misc;
mod mount;
mod mqueue;
mod msg;
mod namespace;
mod open;
mod pidfd;
mod pipe;
mod poll;
mod prctl;
mod process;
mod process_vm;
mod ptrace;
mod read_write;
mod rlimit;
mod sched;
mod seccomp;
mod sem;
mod shm;
mod signal;
mod signalfd;
mod socket;
mod socket_message;
mod splice;
mod stat;
mod sync;
mod time;
mod timer;
mod transfer;
mod wait;
mod xattr;

use syscall_tables::Errno;
use syscall_tables::table::{self, Status, nr};

use crate::ctx::{Ctx, SysResult};
use crate::user::Args;

/// Builds `dispatch` and the list of handled numbers from one table.
macro_rules! handlers {
    ($($name:ident => $handler:path,)*) => {
        /// Numbers with a handler, ascending.
        pub const HANDLED: &[u32] = &[$(nr::$name),*];

        /// Runs the handler of call `number`; without one, the error that
        /// the call's row in the table names.
        pub async fn dispatch(ctx: &mut Ctx<'_>, number: u64, args: Args) -> SysResult {
            match u32::try_from(number).unwrap_or(u32::MAX) {
                $(nr::$name => $handler(ctx, args).await,)*
                _ => unimplemented_call(ctx, number),
            }
        }
    };
}

fn unimplemented_call(ctx: &Ctx<'_>, number: u64) -> SysResult {
    let row = table::by_number(number);
    ctx.kernel.log(
        crate::kernel::LogLevel::Debug,
        format_args!(
            "task {}: unimplemented call {} ({number})",
            ctx.task.tid(),
            row.map_or("?", |row| row.name),
        ),
    );
    match row.map(|row| row.status) {
        Some(Status::Unimplemented(errno)) => Err(errno),
        _ => Err(Errno::ENOSYS),
    }
}

handlers! {
    READ => read_write::read,
    WRITE => read_write::write,
    OPEN => open::open,
    CLOSE => open::close,
    STAT => stat::stat,
    FSTAT => stat::fstat,
    LSTAT => stat::lstat,
    POLL => poll::poll,
    LSEEK => read_write::lseek,
    MMAP => memory::mmap,
    MPROTECT => memory::mprotect,
    MUNMAP => memory::munmap,
    BRK => memory::brk,
    RT_SIGACTION => signal::rt_sigaction,
    RT_SIGPROCMASK => signal::rt_sigprocmask,
    RT_SIGRETURN => signal::rt_sigreturn,
    IOCTL => fcntl::ioctl,
    PREAD64 => read_write::pread64,
    PWRITE64 => read_write::pwrite64,
    READV => read_write::readv,
    WRITEV => read_write::writev,
    ACCESS => stat::access,
    PIPE => pipe::pipe,
    SELECT => poll::select,
    SCHED_YIELD => sched::sched_yield,
    MREMAP => memory::mremap,
    MSYNC => memory_advice::msync,
    MINCORE => memory_advice::mincore,
    MADVISE => memory_advice::madvise,
    SHMGET => shm::shmget,
    SHMAT => shm::shmat,
    SHMCTL => shm::shmctl,
    DUP => open::dup,
    DUP2 => open::dup2,
    PAUSE => signal::pause,
    NANOSLEEP => time::nanosleep,
    GETITIMER => timer::getitimer,
    ALARM => timer::alarm,
    SETITIMER => timer::setitimer,
    GETPID => process::getpid,
    SENDFILE => splice::sendfile,
    SOCKET => socket::socket,
    CONNECT => socket::connect,
    ACCEPT => socket::accept,
    SENDTO => socket_message::sendto,
    RECVFROM => socket_message::recvfrom,
    SENDMSG => socket_message::sendmsg,
    RECVMSG => socket_message::recvmsg,
    SHUTDOWN => socket::shutdown,
    BIND => socket::bind,
    LISTEN => socket::listen,
    GETSOCKNAME => socket::getsockname,
    GETPEERNAME => socket::getpeername,
    SOCKETPAIR => socket::socketpair,
    SETSOCKOPT => socket::setsockopt,
    GETSOCKOPT => socket::getsockopt,
    CLONE => process::clone,
    FORK => process::fork,
    VFORK => process::vfork,
    EXECVE => exec::execve,
    EXIT => process::exit,
    WAIT4 => wait::wait4,
    KILL => signal::kill,
    UNAME => misc::uname,
    SEMGET => sem::semget,
    SEMOP => sem::semop,
    SEMCTL => sem::semctl,
    SHMDT => shm::shmdt,
    MSGGET => msg::msgget,
    MSGSND => msg::msgsnd,
    MSGRCV => msg::msgrcv,
    MSGCTL => msg::msgctl,
    FCNTL => fcntl::fcntl,
    FLOCK => lock::flock,
    FSYNC => sync::fsync,
    FDATASYNC => sync::fdatasync,
    TRUNCATE => attributes::truncate,
    FTRUNCATE => attributes::ftruncate,
    GETDENTS => directory::getdents,
    GETCWD => directory::getcwd,
    CHDIR => directory::chdir,
    FCHDIR => directory::fchdir,
    RENAME => directory::rename,
    MKDIR => directory::mkdir,
    RMDIR => directory::rmdir,
    CREAT => open::creat,
    LINK => directory::link,
    UNLINK => directory::unlink,
    SYMLINK => directory::symlink,
    READLINK => stat::readlink,
    CHMOD => attributes::chmod,
    FCHMOD => attributes::fchmod,
    CHOWN => attributes::chown,
    FCHOWN => attributes::fchown,
    LCHOWN => attributes::lchown,
    UMASK => attributes::umask,
    GETTIMEOFDAY => time::gettimeofday,
    GETRLIMIT => rlimit::getrlimit,
    GETRUSAGE => rlimit::getrusage,
    SYSINFO => misc::sysinfo,
    TIMES => rlimit::times,
    PTRACE => ptrace::ptrace,
    GETUID => creds::getuid,
    SYSLOG => misc::syslog,
    GETGID => creds::getgid,
    SETUID => creds::setuid,
    SETGID => creds::setgid,
    GETEUID => creds::geteuid,
    GETEGID => creds::getegid,
    SETPGID => process::setpgid,
    GETPPID => process::getppid,
    GETPGRP => process::getpgrp,
    SETSID => process::setsid,
    SETREUID => creds::setreuid,
    SETREGID => creds::setregid,
    GETGROUPS => creds::getgroups,
    SETGROUPS => creds::setgroups,
    SETRESUID => creds::setresuid,
    GETRESUID => creds::getresuid,
    SETRESGID => creds::setresgid,
    GETRESGID => creds::getresgid,
    GETPGID => process::getpgid,
    SETFSUID => creds::setfsuid,
    SETFSGID => creds::setfsgid,
    GETSID => process::getsid,
    CAPGET => creds::capget,
    CAPSET => creds::capset,
    RT_SIGPENDING => signal::rt_sigpending,
    RT_SIGTIMEDWAIT => signal::rt_sigtimedwait,
    RT_SIGQUEUEINFO => signal::rt_sigqueueinfo,
    RT_SIGSUSPEND => signal::rt_sigsuspend,
    SIGALTSTACK => signal::sigaltstack,
    UTIME => attributes::utime,
    MKNOD => directory::mknod,
    PERSONALITY => prctl::personality,
    USTAT => stat::ustat,
    STATFS => stat::statfs,
    FSTATFS => stat::fstatfs,
    GETPRIORITY => sched::getpriority,
    SETPRIORITY => sched::setpriority,
    SCHED_SETPARAM => sched::sched_setparam,
    SCHED_GETPARAM => sched::sched_getparam,
    SCHED_SETSCHEDULER => sched::sched_setscheduler,
    SCHED_GETSCHEDULER => sched::sched_getscheduler,
    SCHED_GET_PRIORITY_MAX => sched::sched_get_priority_max,
    SCHED_GET_PRIORITY_MIN => sched::sched_get_priority_min,
    SCHED_RR_GET_INTERVAL => sched::sched_rr_get_interval,
    MLOCK => memory_advice::mlock,
    MUNLOCK => memory_advice::munlock,
    MLOCKALL => memory_advice::mlockall,
    MUNLOCKALL => memory_advice::munlockall,
    PIVOT_ROOT => mount::pivot_root,
    PRCTL => prctl::prctl,
    ARCH_PRCTL => prctl::arch_prctl,
    ADJTIMEX => time::adjtimex,
    SETRLIMIT => rlimit::setrlimit,
    CHROOT => directory::chroot,
    SYNC => sync::sync,
    SETTIMEOFDAY => time::settimeofday,
    MOUNT => mount::mount,
    UMOUNT2 => mount::umount2,
    REBOOT => misc::reboot,
    SETHOSTNAME => misc::sethostname,
    SETDOMAINNAME => misc::setdomainname,
    GETTID => process::gettid,
    READAHEAD => sync::readahead,
    SETXATTR => xattr::setxattr,
    LSETXATTR => xattr::lsetxattr,
    FSETXATTR => xattr::fsetxattr,
    GETXATTR => xattr::getxattr,
    LGETXATTR => xattr::lgetxattr,
    FGETXATTR => xattr::fgetxattr,
    LISTXATTR => xattr::listxattr,
    LLISTXATTR => xattr::llistxattr,
    FLISTXATTR => xattr::flistxattr,
    REMOVEXATTR => xattr::removexattr,
    LREMOVEXATTR => xattr::lremovexattr,
    FREMOVEXATTR => xattr::fremovexattr,
    TKILL => signal::tkill,
    TIME => time::time,
    FUTEX => futex::futex,
    SCHED_SETAFFINITY => sched::sched_setaffinity,
    SCHED_GETAFFINITY => sched::sched_getaffinity,
    EPOLL_CREATE => epoll::epoll_create,
    REMAP_FILE_PAGES => memory::remap_file_pages,
    GETDENTS64 => directory::getdents64,
    SET_TID_ADDRESS => process::set_tid_address,
    RESTART_SYSCALL => signal::restart_syscall,
    SEMTIMEDOP => sem::semtimedop,
    FADVISE64 => sync::fadvise64,
    TIMER_CREATE => timer::timer_create,
    TIMER_SETTIME => timer::timer_settime,
    TIMER_GETTIME => timer::timer_gettime,
    TIMER_GETOVERRUN => timer::timer_getoverrun,
    TIMER_DELETE => timer::timer_delete,
    CLOCK_SETTIME => time::clock_settime,
    CLOCK_GETTIME => time::clock_gettime,
    CLOCK_GETRES => time::clock_getres,
    CLOCK_NANOSLEEP => time::clock_nanosleep,
    EXIT_GROUP => process::exit_group,
    EPOLL_WAIT => epoll::epoll_wait,
    EPOLL_CTL => epoll::epoll_ctl,
    TGKILL => signal::tgkill,
    UTIMES => attributes::utimes,
    MBIND => memory_advice::mbind,
    SET_MEMPOLICY => memory_advice::set_mempolicy,
    GET_MEMPOLICY => memory_advice::get_mempolicy,
    MQ_OPEN => mqueue::mq_open,
    MQ_UNLINK => mqueue::mq_unlink,
    MQ_TIMEDSEND => mqueue::mq_timedsend,
    MQ_TIMEDRECEIVE => mqueue::mq_timedreceive,
    MQ_NOTIFY => mqueue::mq_notify,
    MQ_GETSETATTR => mqueue::mq_getsetattr,
    WAITID => wait::waitid,
    IOPRIO_SET => sched::ioprio_set,
    IOPRIO_GET => sched::ioprio_get,
    INOTIFY_INIT => inotify::inotify_init,
    INOTIFY_ADD_WATCH => inotify::inotify_add_watch,
    INOTIFY_RM_WATCH => inotify::inotify_rm_watch,
    OPENAT => open::openat,
    MKDIRAT => directory::mkdirat,
    MKNODAT => directory::mknodat,
    FCHOWNAT => attributes::fchownat,
    FUTIMESAT => attributes::futimesat,
    NEWFSTATAT => stat::newfstatat,
    UNLINKAT => directory::unlinkat,
    RENAMEAT => directory::renameat,
    LINKAT => directory::linkat,
    SYMLINKAT => directory::symlinkat,
    READLINKAT => stat::readlinkat,
    FCHMODAT => attributes::fchmodat,
    FACCESSAT => stat::faccessat,
    PSELECT6 => poll::pselect6,
    PPOLL => poll::ppoll,
    UNSHARE => namespace::unshare,
    SET_ROBUST_LIST => futex::set_robust_list,
    GET_ROBUST_LIST => futex::get_robust_list,
    SPLICE => splice::splice,
    TEE => splice::tee,
    SYNC_FILE_RANGE => sync::sync_file_range,
    VMSPLICE => splice::vmsplice,
    UTIMENSAT => attributes::utimensat,
    EPOLL_PWAIT => epoll::epoll_pwait,
    SIGNALFD => signalfd::signalfd,
    TIMERFD_CREATE => timer::timerfd_create,
    EVENTFD => pipe::eventfd,
    FALLOCATE => attributes::fallocate,
    TIMERFD_SETTIME => timer::timerfd_settime,
    TIMERFD_GETTIME => timer::timerfd_gettime,
    ACCEPT4 => socket::accept4,
    SIGNALFD4 => signalfd::signalfd4,
    EVENTFD2 => pipe::eventfd2,
    EPOLL_CREATE1 => epoll::epoll_create1,
    DUP3 => open::dup3,
    PIPE2 => pipe::pipe2,
    INOTIFY_INIT1 => inotify::inotify_init1,
    PREADV => read_write::preadv,
    PWRITEV => read_write::pwritev,
    RT_TGSIGQUEUEINFO => signal::rt_tgsigqueueinfo,
    RECVMMSG => socket_message::recvmmsg,
    PRLIMIT64 => rlimit::prlimit64,
    CLOCK_ADJTIME => time::clock_adjtime,
    SYNCFS => sync::syncfs,
    SENDMMSG => socket_message::sendmmsg,
    SETNS => namespace::setns,
    GETCPU => misc::getcpu,
    PROCESS_VM_READV => process_vm::process_vm_readv,
    PROCESS_VM_WRITEV => process_vm::process_vm_writev,
    KCMP => misc::kcmp,
    SCHED_SETATTR => sched::sched_setattr,
    SCHED_GETATTR => sched::sched_getattr,
    RENAMEAT2 => directory::renameat2,
    SECCOMP => seccomp::seccomp,
    GETRANDOM => misc::getrandom,
    MEMFD_CREATE => memfd::memfd_create,
    EXECVEAT => exec::execveat,
    MEMBARRIER => misc::membarrier,
    MLOCK2 => memory_advice::mlock2,
    COPY_FILE_RANGE => splice::copy_file_range,
    PREADV2 => read_write::preadv2,
    PWRITEV2 => read_write::pwritev2,
    PKEY_MPROTECT => memory::pkey_mprotect,
    STATX => stat::statx,
    PIDFD_SEND_SIGNAL => pidfd::pidfd_send_signal,
    PIDFD_OPEN => pidfd::pidfd_open,
    CLONE3 => process::clone3,
    CLOSE_RANGE => open::close_range,
    OPENAT2 => open::openat2,
    PIDFD_GETFD => pidfd::pidfd_getfd,
    FACCESSAT2 => stat::faccessat2,
    PROCESS_MADVISE => process_vm::process_madvise,
    EPOLL_PWAIT2 => epoll::epoll_pwait2,
    PROCESS_MRELEASE => process_vm::process_mrelease,
    FUTEX_WAITV => futex::futex_waitv,
    FCHMODAT2 => attributes::fchmodat2,
    FUTEX_WAKE => futex::futex_wake,
    FUTEX_WAIT => futex::futex_wait,
    FUTEX_REQUEUE => futex::futex_requeue,
    MSEAL => memory::mseal,
    SETXATTRAT => xattr::setxattrat,
    GETXATTRAT => xattr::getxattrat,
    LISTXATTRAT => xattr::listxattrat,
    REMOVEXATTRAT => xattr::removexattrat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_handled() {
        assert!(HANDLED.is_sorted(), "rows are in the order of the numbers");
        for row in &table::TABLE {
            let handled = HANDLED.contains(&row.number);
            assert_eq!(
                handled,
                row.status.is_implemented(),
                "{}: handler and table disagree",
                row.name
            );
        }
    }
}
