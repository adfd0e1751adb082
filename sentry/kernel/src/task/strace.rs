//! `--strace`: one readable line per system call in the log.

use std::fmt;
use std::time::Instant;

use syscall_tables::abi::SigInfo;
use syscall_tables::strace::{Entered, Gather, Options, enter, siginfo};
use syscall_tables::table::nr;

use super::Task;
use crate::ctx::Ctx;
use crate::kernel::LogLevel;

/// Rounds of fetching pointers behind pointers.
const MAX_ROUNDS: usize = 6;

/// A call that is being traced.
pub(crate) struct TracedCall {
    entered: Entered,
    started: Instant,
}

fn line(task: &Task, text: fmt::Arguments<'_>) {
    let comm = task.comm();
    task.kernel().log(
        LogLevel::Info,
        format_args!(
            "[{:>5}] {} {text}",
            task.tid(),
            String::from_utf8_lossy(&comm)
        ),
    );
}

async fn fetch(ctx: &mut Ctx<'_>, gather: &mut Gather) -> bool {
    let wanted = gather.take_wanted();
    let any = !wanted.is_empty();
    for (addr, len) in wanted {
        let mut bytes = vec![0; len];
        let got = ctx.read_partial(addr, &mut bytes).await;
        bytes.truncate(got);
        gather.supply(addr, len, (got > 0 || len == 0).then_some(bytes));
    }
    any
}

/// Decodes what the call reads.
pub(crate) async fn begin(ctx: &mut Ctx<'_>, number: u64, args: &[u64; 6]) -> TracedCall {
    let options = Options::default();
    let mut gather = Gather::new();
    let mut entered = enter(number, args, &mut gather, &options);
    for _ in 0..MAX_ROUNDS {
        if !fetch(ctx, &mut gather).await {
            break;
        }
        entered = enter(number, args, &mut gather, &options);
    }
    let ends = [nr::EXIT, nr::EXIT_GROUP, nr::EXECVE, nr::EXECVEAT].map(u64::from);
    if ends.contains(&number) {
        // What comes after may be another program, or nothing.
        line(ctx.task, format_args!("{}", entered.unfinished()));
    }
    TracedCall {
        entered,
        started: Instant::now(),
    }
}

/// Logs the call with its result.
pub(crate) async fn end(ctx: &mut Ctx<'_>, call: TracedCall, result: u64) {
    let took = call.started.elapsed();
    let options = Options::default();
    let mut gather = Gather::new();
    let mut text = call.entered.finish(result, &mut gather, &options);
    for _ in 0..MAX_ROUNDS {
        if !fetch(ctx, &mut gather).await {
            break;
        }
        text = call.entered.finish(result, &mut gather, &options);
    }
    let micros = took.as_secs_f64() * 1e6;
    line(ctx.task, format_args!("{text} <{micros:.1}us>"));
}

/// Logs a signal that is delivered.
pub(crate) fn signal(task: &Task, info: &SigInfo) {
    if task.kernel().strace {
        line(task, format_args!("--- {} ---", siginfo(info)));
    }
}
