//! Numbers about the host that /proc and `sysinfo(2)` of the guest show.
//!
//! Files are opened once, before the sentry locks itself in, and read again
//! through their descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use syscall_tables::Errno;

/// Memory of the host, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub buffers: u64,
    pub cached: u64,
    pub swap_total: u64,
    pub swap_free: u64,
}

/// Answers of `sysinfo(2)` that concern load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Load averages over 1, 5 and 15 minutes.
    pub averages: [f64; 3],
    pub processes: u16,
}

/// One cache of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuCache {
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    pub size_bytes: u64,
    pub line_bytes: u32,
    pub ways: u32,
    pub sets: u32,
}

/// What the sentry knows about its host.
#[derive(Debug)]
pub struct System {
    meminfo: Option<File>,
    cpuinfo: Vec<u8>,
    caches: Vec<CpuCache>,
    cpu_count: usize,
    proc: Option<OwnedFd>,
}

impl System {
    /// Opens what is needed later. Call it before the sandbox is locked in.
    /// What can't be opened is left out.
    pub fn open() -> Self {
        Self {
            meminfo: File::open("/proc/meminfo").ok(),
            cpuinfo: std::fs::read("/proc/cpuinfo").unwrap_or_default(),
            caches: (0..8).map_while(read_cache).collect(),
            cpu_count: std::thread::available_parallelism().map_or(1, usize::from),
            proc: File::open("/proc").map(OwnedFd::from).ok(),
        }
    }

    /// The host's `/proc`, for the platform.
    pub fn take_proc(&mut self) -> Option<OwnedFd> {
        self.proc.take()
    }

    /// CPUs this process could use when it started.
    pub fn cpu_count(&self) -> usize {
        self.cpu_count
    }

    /// The host's `/proc/cpuinfo` as it was at the start.
    pub fn cpuinfo(&self) -> &[u8] {
        &self.cpuinfo
    }

    /// Caches of the first CPU, as `/sys/devices/system/cpu` numbers them.
    pub fn caches(&self) -> &[CpuCache] {
        &self.caches
    }

    /// Memory now.
    pub fn memory(&self) -> Memory {
        let mut text = vec![0; 8192];
        let len = self
            .meminfo
            .as_ref()
            .and_then(|file| file.read_at(&mut text, 0).ok());
        match len {
            Some(len) => parse_meminfo(text.get(..len).unwrap_or_default()),
            None => memory_by_sysinfo().unwrap_or_default(),
        }
    }

    /// Load now.
    pub fn load(&self) -> Load {
        let Ok(info) = sysinfo() else {
            return Load::default();
        };
        Load {
            // Fixed point with 16 binary places; f64 holds it exactly enough.
            averages: info.loads.map(|load| load as f64 / 65536.0),
            processes: info.procs,
        }
    }
}

fn read_cache(index: u32) -> Option<CpuCache> {
    let read = |name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned())
    };
    let number = |name: &str| read(name)?.parse().ok();
    let size = read("size")?;
    let kibibytes: u64 = size.strip_suffix('K')?.parse().ok()?;
    Some(CpuCache {
        level: number("level")?,
        kind: read("type")?,
        size_bytes: kibibytes.checked_mul(1024)?,
        line_bytes: number("coherency_line_size").unwrap_or(64),
        ways: number("ways_of_associativity").unwrap_or(0),
        sets: number("number_of_sets").unwrap_or(0),
    })
}

fn sysinfo() -> Result<libc::sysinfo, Errno> {
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the host fills the structure.
    if unsafe { libc::sysinfo(&raw mut info) } < 0 {
        return Err(Errno::from(std::io::Error::last_os_error()));
    }
    Ok(info)
}

fn memory_by_sysinfo() -> Result<Memory, Errno> {
    let info = sysinfo()?;
    let bytes = |units: u64| units.saturating_mul(u64::from(info.mem_unit));
    Ok(Memory {
        total: bytes(info.totalram),
        free: bytes(info.freeram),
        available: bytes(info.freeram.saturating_add(info.bufferram)),
        buffers: bytes(info.bufferram),
        cached: 0,
        swap_total: bytes(info.totalswap),
        swap_free: bytes(info.freeswap),
    })
}

fn parse_meminfo(text: &[u8]) -> Memory {
    let mut memory = Memory::default();
    for line in text.split(|&byte| byte == b'\n') {
        let line = std::str::from_utf8(line).unwrap_or_default();
        let mut words = line.split_whitespace();
        let field = match words.next() {
            Some("MemTotal:") => &mut memory.total,
            Some("MemFree:") => &mut memory.free,
            Some("MemAvailable:") => &mut memory.available,
            Some("Buffers:") => &mut memory.buffers,
            Some("Cached:") => &mut memory.cached,
            Some("SwapTotal:") => &mut memory.swap_total,
            Some("SwapFree:") => &mut memory.swap_free,
            _ => continue,
        };
        let kibibytes = words.next().and_then(|word| word.parse::<u64>().ok());
        *field = kibibytes.unwrap_or(0).saturating_mul(1024);
    }
    memory
}

/// CPU time that the sentry process itself has used.
pub fn own_cpu_time() -> Duration {
    let id = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    nix::time::clock_gettime(id).map_or(Duration::ZERO, Duration::from)
}

/// CPU time that process `pid` has used, for example a stub.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn cpu_time_of(pid: i32) -> Result<Duration, Errno> {
    let id = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid));
    let time = id
        .and_then(nix::time::clock_gettime)
        .map_err(|err| match err {
            // What the host says of a clock whose process is gone.
            nix::Error::EINVAL => Errno::ESRCH,
            err => super::errno(err),
        })?;
    Ok(Duration::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_adds_up() {
        let memory = System::open().memory();
        assert!(memory.total > 0 && memory.free <= memory.total);
        assert!(memory.available <= memory.total);
        let rough = memory_by_sysinfo().expect("sysinfo");
        assert_eq!(rough.total, memory.total);
    }

    #[test]
    fn cpu_time_of_a_process_grows_and_ends_with_it() {
        let mut child = std::process::Command::new("sleep")
            .arg("10")
            .spawn()
            .expect("spawn");
        let pid = child.id().cast_signed();
        assert!(cpu_time_of(pid).is_ok());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(cpu_time_of(pid), Err(Errno::ESRCH));
        assert!(own_cpu_time() > Duration::ZERO);
    }
}
