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
        // Ends by a fault.
        "crash" => unsafe {
            std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1);
            Some(1)
        },
        // Sleeps until killed.
        "pause" => loop {
            unsafe { libc::pause() };
        },
        _ => None,
    }
}
