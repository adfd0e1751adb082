//! System call handlers, one file per family, and their dispatch.
//!
//! A handler copies in and decodes, acts on kernel objects, copies out. Each
//! row of [`dispatch`]'s table ties a call of `syscall_tables` to one; keep
//! it in the order of the numbers, one line per call.

mod epoll;
mod exec;
mod pipe;
mod poll;
mod process;
mod signal;
mod wait;

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
    POLL => poll::poll,
    RT_SIGACTION => signal::rt_sigaction,
    RT_SIGPROCMASK => signal::rt_sigprocmask,
    RT_SIGRETURN => signal::rt_sigreturn,
    PIPE => pipe::pipe,
    SELECT => poll::select,
    PAUSE => signal::pause,
    GETPID => process::getpid,
    CLONE => process::clone,
    FORK => process::fork,
    VFORK => process::vfork,
    EXECVE => exec::execve,
    EXIT => process::exit,
    WAIT4 => wait::wait4,
    KILL => signal::kill,
    SETPGID => process::setpgid,
    GETPPID => process::getppid,
    GETPGRP => process::getpgrp,
    SETSID => process::setsid,
    GETPGID => process::getpgid,
    GETSID => process::getsid,
    RT_SIGPENDING => signal::rt_sigpending,
    RT_SIGTIMEDWAIT => signal::rt_sigtimedwait,
    RT_SIGQUEUEINFO => signal::rt_sigqueueinfo,
    RT_SIGSUSPEND => signal::rt_sigsuspend,
    SIGALTSTACK => signal::sigaltstack,
    GETTID => process::gettid,
    TKILL => signal::tkill,
    EPOLL_CREATE => epoll::epoll_create,
    SET_TID_ADDRESS => process::set_tid_address,
    EXIT_GROUP => process::exit_group,
    EPOLL_WAIT => epoll::epoll_wait,
    EPOLL_CTL => epoll::epoll_ctl,
    TGKILL => signal::tgkill,
    WAITID => wait::waitid,
    PSELECT6 => poll::pselect6,
    PPOLL => poll::ppoll,
    EPOLL_PWAIT => epoll::epoll_pwait,
    EVENTFD => pipe::eventfd,
    EVENTFD2 => pipe::eventfd2,
    EPOLL_CREATE1 => epoll::epoll_create1,
    PIPE2 => pipe::pipe2,
    RT_TGSIGQUEUEINFO => signal::rt_tgsigqueueinfo,
    EXECVEAT => exec::execveat,
    CLONE3 => process::clone3,
    EPOLL_PWAIT2 => epoll::epoll_pwait2,
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
