//! `sysvipc/*`: the System V objects of the reader's IPC namespace.

use std::fmt::Write;

use syscall_tables::Errno;

use crate::fs::kernfs::{Builder, Viewer};

/// Adds the files to the directory `sysvipc`.
pub(super) fn fill(dir: &mut Builder) {
    dir.file("msg", 0o444, messages);
    dir.file("sem", 0o444, semaphores);
    dir.file("shm", 0o444, segments);
}

fn messages(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut text = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  \
                    cuid  cgid      stime      rtime      ctime\n"
        .to_owned();
    let ns = viewer.task()?.namespaces().ipc.clone();
    let (creds, pids) = (viewer.task()?.creds(), viewer.task()?.pid_ns());
    for (id, queue) in ns.msg.list() {
        let stat = queue.stat(&creds, &pids);
        let perm = &stat.msg_perm;
        let _ = writeln!(
            text,
            "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
            perm.key,
            perm.mode,
            stat.msg_cbytes,
            stat.msg_qnum,
            stat.msg_lspid,
            stat.msg_lrpid,
            perm.uid,
            perm.gid,
            perm.cuid,
            perm.cgid,
            stat.msg_stime,
            stat.msg_rtime,
            stat.msg_ctime,
        );
    }
    Ok(text.into_bytes())
}

fn semaphores(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut text =
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      \
                    ctime\n"
            .to_owned();
    let ns = viewer.task()?.namespaces().ipc.clone();
    let creds = viewer.task()?.creds();
    for (id, set) in ns.sem.list() {
        let stat = set.stat(&creds);
        let perm = &stat.sem_perm;
        let _ = writeln!(
            text,
            "{:10} {id:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
            perm.key,
            perm.mode,
            stat.sem_nsems,
            perm.uid,
            perm.gid,
            perm.cuid,
            perm.cgid,
            stat.sem_otime,
            stat.sem_ctime,
        );
    }
    Ok(text.into_bytes())
}

fn segments(viewer: &Viewer) -> Result<Vec<u8>, Errno> {
    let mut text = "       key      shmid perms                  size  cpid  lpid nattch   uid   \
                    gid  cuid  cgid      atime      dtime      ctime                   rss                  \
                    swap\n"
        .to_owned();
    let ns = viewer.task()?.namespaces().ipc.clone();
    let (creds, pids) = (viewer.task()?.creds(), viewer.task()?.pid_ns());
    for (id, segment) in ns.shm.list() {
        let stat = segment.stat(&creds, &pids);
        let perm = &stat.shm_perm;
        let _ = writeln!(
            text,
            "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} \
             {:21}",
            perm.key,
            perm.mode,
            stat.shm_segsz,
            stat.shm_cpid,
            stat.shm_lpid,
            stat.shm_nattch,
            perm.uid,
            perm.gid,
            perm.cuid,
            perm.cgid,
            stat.shm_atime,
            stat.shm_dtime,
            stat.shm_ctime,
            0,
            0,
        );
    }
    Ok(text.into_bytes())
}
