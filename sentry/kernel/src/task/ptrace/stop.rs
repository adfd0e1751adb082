//! The tracee's side of a stop.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use syscall_tables::abi::{
    CLD_STOPPED, CLD_TRAPPED, PTRACE_EVENT_STOP, SI_USER, SIG_IGN, SaFlags, SigInfo, Signal,
};

use super::{Resume, Trace, TraceFlags, TraceStop, VectorRequest};
use crate::ctx::Ctx;
use crate::signal::Origin;
use crate::sync::Events;
use crate::task::{Task, Work};

/// What ends a stop beside the tracer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Any end of the process.
    Killed,
    /// Only the tracer: the task is ending already.
    Resumed,
}

/// What a stopped tracee is woken for.
enum Wake {
    Resume(Resume),
    Vector(VectorRequest),
    Killed,
}

/// Stops until the tracer resumes the task; `None` if it was killed.
pub(super) async fn stop(ctx: &mut Ctx<'_>, stop: TraceStop, until: Until) -> Option<Resume> {
    let task = ctx.task.clone();
    let tracer = {
        let mut trace = task.trace.lock();
        let tracer = trace.tracer()?;
        trace.regs = *ctx.regs();
        trace.regs_changed = false;
        trace.resume = None;
        trace.stop = Some(stop);
        tracer
    };
    task.set_trace_stopped(true);
    tell_tracer(&task, &tracer, &stop);
    let mut resume = loop {
        match next_wake(&task, until).await {
            Wake::Resume(resume) => break Some(resume),
            Wake::Killed => break None,
            Wake::Vector(request) => serve_vector(ctx, request).await,
        }
    };
    {
        let mut trace = task.trace.lock();
        let stop = trace.stop.take();
        if let Some(resume) = &mut resume {
            // A signal that the tracer has seen is its to deliver; with the
            // tracer dead it is lost.
            resume.keep_signal &= stop.is_some_and(|stop| !stop.reported);
        }
        trace.resume = None;
        if trace.vector.take().is_some() {
            task.trace_answers.notify(Events::READABLE);
        }
        if trace.regs_changed {
            *ctx.regs_mut() = trace.regs;
        }
        trace.listening = resume.is_some_and(|resume| resume.listen);
    }
    task.set_trace_stopped(false);
    if let Some(resume) = resume {
        task.set_trace_mode(resume.flags);
    }
    resume
}

async fn next_wake(task: &Arc<Task>, until: Until) -> Wake {
    poll_fn(|cx| {
        let killed = task.has_work(cx, Work::KILL) && until == Until::Killed;
        let mut trace = task.trace.lock();
        if killed {
            return Poll::Ready(Wake::Killed);
        }
        if let Some(resume) = trace.resume.take() {
            return Poll::Ready(Wake::Resume(resume));
        }
        if trace.tracer().is_none_or(|tracer| tracer.has_exited()) {
            return Poll::Ready(Wake::Resume(Resume::FREE));
        }
        match trace.vector.take() {
            None => Poll::Pending,
            Some(done @ VectorRequest::Done(_)) => {
                trace.vector = Some(done);
                Poll::Pending
            }
            Some(request) => Poll::Ready(Wake::Vector(request)),
        }
    })
    .await
}

async fn serve_vector(ctx: &mut Ctx<'_>, request: VectorRequest) {
    let answer = match request {
        VectorRequest::Get => {
            let mut state = vec![0; ctx.kernel.platform.vector_state_len_bytes()];
            poll_fn(|cx| ctx.thread.poll_get_vector_state(cx, &mut state))
                .await
                .map(|()| state)
        }
        VectorRequest::Set(state) => poll_fn(|cx| ctx.thread.poll_set_vector_state(cx, &state))
            .await
            .map(|()| Vec::new()),
        VectorRequest::Done(answer) => answer,
    };
    ctx.task.trace.lock().vector = Some(VectorRequest::Done(answer));
    ctx.task.trace_answers.notify(Events::READABLE);
}

/// `SIGCHLD` to the tracer, and its waits woken.
fn tell_tracer(task: &Arc<Task>, tracer: &Arc<Task>, stop: &TraceStop) {
    let action = tracer.group.sighand().action(Signal::SIGCHLD);
    let unwanted = action.flags & SaFlags::SA_NOCLDSTOP.bits() != 0;
    if action.handler != SIG_IGN && !unwanted {
        let code = if stop.is_group_stop {
            CLD_STOPPED
        } else {
            CLD_TRAPPED
        };
        let pid = task.tid_in(&tracer.pid_ns());
        let uid = tracer.creds().user_ns.uid_or_overflow(task.creds().uid);
        let info = SigInfo::child(code, pid, uid, stop.code & 0x7f, 0, 0);
        let _ = tracer.group.signal(info, Origin::Kernel);
    }
    tracer.group.child_events.notify(Events::READABLE);
}

/// The stop before a signal is delivered; the signal to deliver then.
pub(crate) async fn signal_stop(
    ctx: &mut Ctx<'_>,
    signal: Signal,
    info: SigInfo,
) -> Option<(Signal, SigInfo)> {
    let task = ctx.task.clone();
    let here = TraceStop {
        code: signal.raw(),
        info: Some(info),
        reported: false,
        is_group_stop: false,
    };
    let resume = stop(ctx, here, Until::Killed).await;
    let kept = task.signals.lock().last_info.take();
    // A tracer that is gone, or a kill, leaves the signal as it was.
    let Some(resume) = resume else {
        return Some((signal, info));
    };
    let wanted = match resume.signal {
        None if resume.keep_signal => signal,
        None => return None,
        Some(wanted) => wanted,
    };
    let info = kept.unwrap_or(info);
    let info = if wanted.raw() == info.si_signo {
        info
    } else {
        sent_by_tracer(&task, wanted)
    };
    if task.blocked().contains(wanted) {
        // It was blocked meanwhile: it waits as any other.
        let _ = task.signal(info, Origin::Kernel);
        return None;
    }
    Some((wanted, info))
}

fn sent_by_tracer(task: &Task, signal: Signal) -> SigInfo {
    match task.trace.lock().tracer() {
        None => SigInfo::new(signal, SI_USER),
        Some(tracer) => {
            let pid = tracer.group.id_in(&task.pid_ns());
            let uid = task.creds().user_ns.uid_or_overflow(tracer.creds().uid);
            SigInfo::kill(signal, pid, uid)
        }
    }
}

/// The stop of a traced task whose process stops (or is stopped).
pub(crate) async fn group_stop(ctx: &mut Ctx<'_>, signal: Signal) {
    let task = ctx.task.clone();
    let seized = task.trace.lock().seized;
    let code = if seized {
        Trace::event_stop(signal)
    } else {
        signal.raw()
    };
    let here = TraceStop {
        code,
        info: seized.then(|| SigInfo::new(Signal::SIGTRAP, code)),
        reported: false,
        is_group_stop: true,
    };
    let resume = stop(ctx, here, Until::Killed).await;
    if resume.is_some_and(|resume| resume.listen) {
        listen(ctx).await;
    }
}

/// `PTRACE_LISTEN`: stays stopped until the process is continued or the
/// tracer wants a trap, then traps.
async fn listen(ctx: &mut Ctx<'_>) {
    let task = ctx.task.clone();
    task.set_stopped(true);
    poll_fn(|cx| {
        let wanted = task.has_work(cx, Work::KILL | Work::TRACE);
        let traced = task.trace.lock().tracer.is_some();
        let stopped = task.group.signals.lock().stop.signal.is_some();
        if wanted || !stopped || !traced {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    task.set_stopped(false);
    task.trace.lock().listening = false;
    task.add_work_quietly(Work::TRACE);
}

/// A stop that the tracer asked for (`PTRACE_INTERRUPT`, attaching to a
/// stopped task, the start of a seized child).
pub(crate) async fn requested_stop(ctx: &mut Ctx<'_>) {
    let task = ctx.task.clone();
    task.clear_work(Work::TRACE);
    let (traced, seized) = {
        let trace = task.trace.lock();
        (trace.tracer.is_some(), trace.seized)
    };
    if !traced {
        return;
    }
    let group_signal = task.group.signals.lock().stop.signal;
    match group_signal {
        Some(signal) => group_stop(ctx, signal).await,
        None if seized => {
            let code = Trace::event_stop(Signal::SIGTRAP);
            let here = TraceStop {
                code,
                info: Some(SigInfo::new(Signal::SIGTRAP, code)),
                reported: false,
                is_group_stop: false,
            };
            stop(ctx, here, Until::Killed).await;
        }
        None => {}
    }
}

/// A stop with an event number or the plain trap of an older kind.
pub(super) async fn event(ctx: &mut Ctx<'_>, number: u32, message: u64, until: Until) {
    let code = Signal::SIGTRAP.raw() | (number.cast_signed() << 8);
    ctx.task.trace.lock().event_message = message;
    let here = TraceStop {
        code,
        info: Some(SigInfo::new(Signal::SIGTRAP, code)),
        reported: false,
        is_group_stop: false,
    };
    debug_assert!(number != PTRACE_EVENT_STOP);
    let resume = stop(ctx, here, until).await;
    // A signal injected here is sent, as Linux does for old tracers.
    if let Some(signal) = resume.and_then(|resume| resume.signal) {
        let info = sent_by_tracer(ctx.task, signal);
        let _ = ctx.task.signal(info, Origin::Kernel);
    }
}

/// A stop before or after a call.
pub(super) async fn call_stop(ctx: &mut Ctx<'_>, good: bool) -> Option<Resume> {
    let code = Signal::SIGTRAP.raw() | if good { 0x80 } else { 0 };
    let here = TraceStop {
        code,
        info: Some(SigInfo::new(Signal::SIGTRAP, code)),
        reported: false,
        is_group_stop: false,
    };
    let resume = stop(ctx, here, Until::Killed).await;
    if let Some(signal) = resume.and_then(|resume| resume.signal) {
        let info = sent_by_tracer(ctx.task, signal);
        let _ = ctx.task.signal(info, Origin::Kernel);
    }
    resume
}

impl Task {
    /// Sets the tracer's wishes for the time until the next stop.
    pub(super) fn set_trace_mode(&self, flags: TraceFlags) {
        let traced = self.trace.lock().tracer.is_some();
        let flags = if traced {
            flags | TraceFlags::TRACED
        } else {
            TraceFlags::empty()
        };
        self.set_trace_flags(flags);
    }
}
