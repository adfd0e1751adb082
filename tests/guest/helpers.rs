//! Roles that the guest program plays for its own cases after an exec.

use std::os::unix::ffi::OsStrExt;

/// The program itself, for cases that execute it again in another role.
pub fn exe() -> std::ffi::CString {
    let path = std::env::current_exe()
        .unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into());
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

pub fn run(helper: &str, rest: &[&str]) -> Option<i32> {
    let _ = rest;
    match helper {
        // Prints arguments and environment, one per line.
        "print-args" => {
            for a in std::env::args() {
                println!("arg {a}");
            }
            for (k, v) in std::env::vars() {
                println!("env {k}={v}");
            }
            Some(0)
        }
        // Exits with the given code.
        "exit" => Some(rest.first().and_then(|s| s.parse().ok()).unwrap_or(0)),
        // Prints effective and real ids.
        "print-ids" => {
            unsafe {
                println!(
                    "{} {} {} {}",
                    libc::getuid(),
                    libc::geteuid(),
                    libc::getgid(),
                    libc::getegid()
                );
                println!("secure {}", libc::getauxval(libc::AT_SECURE));
            }
            Some(0)
        }
        "print-dumpable" => {
            println!("{}", unsafe {
                libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0)
            });
            Some(0)
        }
        // Exits with how many words a program before this one has left where
        // it could not have mapped memory.
        "scan-planted" => Some(unsafe { crate::hostile::scan_planted() }),
        // Lists open descriptors.
        "print-fds" => {
            for fd in 0..256 {
                if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
                    println!("{fd}");
                }
            }
            Some(0)
        }
        // Prints signal state: blocked, ignored, caught, pending masks.
        "print-signals" => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            for line in status
                .lines()
                .filter(|l| l.starts_with("Sig") || l.starts_with("ShdPnd"))
            {
                println!("{line}");
            }
            Some(0)
        }
        // Nanoseconds per call, best of several rounds.
        "bench" => {
            bench();
            Some(0)
        }
        // What each system call below a number answers to bad arguments.
        "answers" => {
            let end = rest.first().and_then(|s| s.parse().ok()).unwrap_or(0);
            unsafe { crate::answers::print(end) };
            Some(0)
        }
        // Ends by a fault.
        "crash" => unsafe {
            std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1);
            Some(1)
        },
        // Makes a System V shared memory segment, and shows one made elsewhere.
        "shm-put" => unsafe {
            let id = libc::shmget(0x706f, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
            let at = libc::shmat(id, std::ptr::null(), 0).cast::<u8>();
            if id < 0 || at.addr() == usize::MAX {
                return Some(1);
            }
            at.write_volatile(b'!');
            Some(0)
        },
        "shm-get" => unsafe {
            let id = libc::shmget(0x706f, 4096, 0);
            if id < 0 {
                println!("none");
                return Some(0);
            }
            let at = libc::shmat(id, std::ptr::null(), 0).cast::<u8>();
            println!("{}", char::from(at.read_volatile()));
            Some(0)
        },
        // Takes and touches so many bytes of memory, says so, and holds them
        // for so many seconds.
        "hog" => {
            let number = |at: usize| rest.get(at).and_then(|s| s.parse::<usize>().ok());
            let len = number(0).unwrap_or(0);
            let mut held = Vec::<u8>::with_capacity(len);
            for at in (0..len).step_by(4096) {
                unsafe { held.as_mut_ptr().add(at).write_volatile(1) };
            }
            println!("holds {len}");
            let seconds = number(1).unwrap_or(0) as u64;
            std::thread::sleep(std::time::Duration::from_secs(seconds));
            Some(0)
        }
        // Uses a CPU for so many milliseconds.
        "burn" => {
            let ms = rest.first().and_then(|s| s.parse().ok()).unwrap_or(0);
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < ms {}
            Some(0)
        }
        // Sleeps until killed.
        "pause" => loop {
            unsafe { libc::pause() };
        },
        _ => None,
    }
}

/// The best of ten rounds, in nanoseconds per call.
unsafe fn best(calls: u32, mut f: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = std::time::Instant::now();
        for _ in 0..calls {
            f();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}

fn bench() {
    unsafe {
        let mut byte = [0u8; 1];
        let mut page = [0u8; 4096];
        let zero = libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY);
        let file = libc::open(c"/etc/services".as_ptr(), libc::O_RDONLY);
        let mut st: libc::stat = std::mem::zeroed();
        println!(
            "getppid {:.0}",
            best(2000, || {
                libc::syscall(libc::SYS_getppid);
            })
        );
        println!(
            "read {:.0}",
            best(2000, || {
                libc::read(zero, byte.as_mut_ptr().cast(), 1);
            })
        );
        println!(
            "stat {:.0}",
            best(2000, || {
                libc::stat(c"/etc/hostname".as_ptr(), &mut st);
            })
        );
        println!(
            "pread-4k {:.0}",
            best(2000, || {
                libc::pread(file, page.as_mut_ptr().cast(), 4096, 0);
            })
        );
        println!(
            "open-close {:.0}",
            best(500, || {
                libc::close(libc::open(c"/etc/hostname".as_ptr(), libc::O_RDONLY));
            })
        );
        println!(
            "fork-wait {:.0}",
            best(20, || {
                let pid = libc::fork();
                if pid == 0 {
                    libc::_exit(0);
                }
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            })
        );
    }
}
