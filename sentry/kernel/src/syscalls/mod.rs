//! System call handlers, one file per family, and their dispatch.
//!
//! A handler copies in and decodes, acts on kernel objects, copies out. Each
//! row of [`dispatch`]'s table ties a number of `syscall_tables` to one.

mod epoll;
mod pipe;
mod poll;

use syscall_tables::Errno;

use crate::ctx::{Ctx, SysResult};
use crate::user::Args;

/// Builds `dispatch` and the list of handled numbers from one table.
macro_rules! handlers {
    ($($number:literal => $handler:path,)*) => {
        /// Numbers with a handler, ascending.
        pub const HANDLED: &[u64] = &[$($number),*];

        /// Runs the handler of call `number`; `ENOSYS` without one.
        pub async fn dispatch(ctx: &mut Ctx<'_>, number: u64, args: Args) -> SysResult {
            match number {
                $($number => $handler(ctx, args).await,)*
                _ => unimplemented_call(ctx, number).await,
            }
        }
    };
}

async fn unimplemented_call(_ctx: &mut Ctx<'_>, _number: u64) -> SysResult {
    Err(Errno::ENOSYS)
}

/// `restart_syscall(2)` placeholder until the signal code is in.
async fn restart_syscall(_ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    Err(Errno::EINTR)
}

handlers! {
    7 => poll::poll,
    22 => pipe::pipe,
    23 => poll::select,
    213 => epoll::epoll_create,
    219 => restart_syscall,
    232 => epoll::epoll_wait,
    233 => epoll::epoll_ctl,
    270 => poll::pselect6,
    271 => poll::ppoll,
    281 => epoll::epoll_pwait,
    284 => pipe::eventfd,
    290 => pipe::eventfd2,
    291 => epoll::epoll_create1,
    293 => pipe::pipe2,
    441 => epoll::epoll_pwait2,
}
