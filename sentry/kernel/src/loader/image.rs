//! What to execute, and the address space made of it.

use std::ops::Range;
use std::sync::Arc;

use sentry_platform::host::random;
use sentry_platform::{AddressSpace, GuestThread, MemError, MemImage, MemOp, Platform, Protection};
use syscall_tables::Errno;
use syscall_tables::abi::{
    AT_BASE, AT_CLKTCK, AT_EGID, AT_ENTRY, AT_EUID, AT_FLAGS_ENTRY, AT_GID, AT_HWCAP, AT_HWCAP2,
    AT_MINSIGSTKSZ, AT_PAGESZ, AT_PHDR, AT_PHENT, AT_PHNUM, AT_SECURE, AT_SYSINFO_EHDR, AT_UID,
    ElfProgramHeader, Regs,
};

use super::elf::{Elf, Source};
use super::place::{Placed, place};
use super::script::{HEAD_LEN, parse_script};
use super::{Arguments, LoadError, stack};
use crate::mm::{
    Aslr, Backing, FutexObject, Holder, Layout, Mapped, MemoryManager, PAGE_SIZE, Vma, VmaFlags,
    page_ceil,
};
use crate::task::{Gid, Uid};
use crate::vfs::File;

/// Opens a file for execution by its path: checks execute permission, that it
/// is a regular file, and the mount's flags.
pub type OpenExec<'a> = dyn Fn(&[u8]) -> Result<Arc<File>, Errno> + Send + Sync + 'a;

/// Most interpreters in a row.
const MAX_SCRIPT_DEPTH: usize = 5;

/// Bytes of a signal frame beside the vector state, rounded up generously.
const SIGNAL_FRAME_LEN: u64 = 1024;

/// A program that can be executed: scripts followed, headers checked.
pub struct Image {
    /// The ELF file: its set-id bits count, and it is `/proc/PID/exe`.
    pub file: Arc<File>,
    pub elf: Elf,
    /// The dynamic linker.
    pub interpreter: Option<(Arc<File>, Elf)>,
    /// With the arguments that scripts add.
    pub arguments: Arguments,
    /// Whether a script led here.
    pub is_script: bool,
}

/// Who the new program runs as, for the auxiliary vector.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub uid: Uid,
    pub euid: Uid,
    pub gid: Gid,
    pub egid: Gid,
    /// `AT_SECURE`: set-id or gained capabilities.
    pub secure: bool,
}

/// Circumstances of the new address space.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub aslr: Aslr,
    /// `RLIMIT_STACK` in bytes.
    pub stack_limit: u64,
}

/// An address space with a program in it, as it is to be.
pub struct Planned {
    vmas: Vec<Vma>,
    /// Parts of pages to be zeroed: address and length in bytes.
    zeroes: Vec<(u64, usize)>,
    stack: Vec<u8>,
    stack_pointer: u64,
    layout: Layout,
    guest: Range<u64>,
    entry: u64,
    file: Arc<File>,
    name: String,
    comm: Vec<u8>,
}

impl Planned {
    /// Makes it of a fresh address space.
    pub async fn load(self, space: Arc<dyn AddressSpace>) -> Result<Loaded, LoadError> {
        let result = self.put(async |image| space.load(image).await).await;
        result.map_err(|error| LoadError::new(error.errno, self.name.clone()))?;
        Ok(self.loaded(space))
    }

    /// Makes it of the address space of `thread`, whose memory goes. After an
    /// error the thread can't go on.
    pub async fn replace(self, thread: &mut dyn GuestThread) -> Result<Loaded, LoadError> {
        let result = self
            .put(async |image| thread.replace_memory(image).await)
            .await;
        result.map_err(|error| LoadError::new(error.errno, self.name.clone()))?;
        Ok(self.loaded(thread.space()))
    }

    async fn put(
        &self,
        put: impl AsyncFnOnce(MemImage<'_>) -> Result<(), MemError>,
    ) -> Result<(), MemError> {
        const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        let ops: Vec<MemOp<'_>> = self.vmas.iter().map(Vma::map_op).collect();
        let mut writes: Vec<(u64, &[u8])> = Vec::with_capacity(self.zeroes.len() + 1);
        for (addr, len) in &self.zeroes {
            writes.push((*addr, ZEROS.get(..*len).unwrap_or(&ZEROS)));
        }
        writes.push((self.stack_pointer, &self.stack));
        let image = MemImage {
            ops: &ops,
            writes: &writes,
        };
        put(image).await
    }

    fn loaded(self, space: Arc<dyn AddressSpace>) -> Loaded {
        space.set_program(&self.comm);
        let mm = MemoryManager::new(space, self.guest, self.layout);
        mm.adopt(self.vmas);
        mm.set_exe(Some(self.file));
        Loaded {
            mm: Arc::new(mm),
            entry: self.entry,
            stack_pointer: self.stack_pointer,
            comm: self.comm,
        }
    }
}

/// An address space with a program in it.
pub struct Loaded {
    pub mm: Arc<MemoryManager>,
    /// First instruction: of the dynamic linker if there is one.
    pub entry: u64,
    pub stack_pointer: u64,
    /// Name of the task: last component of the path, cut to 15 bytes.
    pub comm: Vec<u8>,
}

impl Loaded {
    /// Registers at the first instruction.
    pub fn start_regs(&self) -> Regs {
        Regs {
            rip: self.entry,
            rsp: self.stack_pointer,
            ..Regs::default()
        }
    }
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Image {
    /// Follows interpreter scripts from `file` and checks what is found.
    /// `guest` is [`Platform::guest_range`].
    pub fn open(
        open_exec: &OpenExec<'_>,
        file: Arc<File>,
        arguments: Arguments,
        stack_limit: u64,
        guest: &Range<u64>,
    ) -> Result<Self, LoadError> {
        let mut file = file;
        let mut arguments = arguments;
        let mut path = arguments.filename.clone();
        let mut depth = 0;
        loop {
            let mut head = [0; HEAD_LEN];
            let failed = |errno| LoadError::new(errno, display(&path));
            let len = file.read_at(&mut head, 0).map_err(failed)?;
            let head = head.get(..len).unwrap_or_default();
            let script = match parse_script(head) {
                Ok(None) => break,
                Ok(Some(script)) => script,
                Err(()) => {
                    let what = format!("{}: no interpreter in its #! line", display(&path));
                    return Err(LoadError::new(Errno::ENOEXEC, what));
                }
            };
            depth += 1;
            if depth > MAX_SCRIPT_DEPTH {
                let what = format!("{}: too many interpreters in a row", display(&path));
                return Err(LoadError::new(Errno::ELOOP, what));
            }
            let rest = arguments.argv.get(1..).unwrap_or_default().to_vec();
            arguments.argv = vec![script.interpreter.clone()];
            arguments.argv.extend(script.argument);
            arguments.argv.push(path.clone());
            arguments.argv.extend(rest);
            arguments
                .check_size(stack_limit)
                .map_err(|errno| LoadError::new(errno, display(&path)))?;
            file = open_exec(&script.interpreter).map_err(|errno| {
                let what = format!(
                    "interpreter {} of script {}",
                    display(&script.interpreter),
                    display(&path)
                );
                LoadError::new(errno, what)
            })?;
            path = script.interpreter;
        }
        arguments
            .check_size(stack_limit)
            .map_err(|errno| LoadError::new(errno, "arguments and environment"))?;
        let elf = Elf::parse(&file, guest).map_err(|errno| {
            let what = format!("{}: not an executable this machine runs", display(&path));
            LoadError::new(errno, what)
        })?;
        let interpreter = match &elf.interpreter {
            None => None,
            Some(name) => {
                let what = || format!("interpreter {} of {}", display(name), display(&path));
                let file = open_exec(name).map_err(|errno| LoadError::new(errno, what()))?;
                let elf = Elf::parse(&file, guest).map_err(|errno| {
                    let errno = match errno {
                        Errno::ENOEXEC => Errno::ELIBBAD,
                        other => other,
                    };
                    LoadError::new(errno, what())
                })?;
                Some((file, elf))
            }
        };
        Ok(Self {
            file,
            elf,
            interpreter,
            arguments,
            is_script: depth > 0,
        })
    }

    /// Name of the task that executes this.
    pub fn comm(&self) -> Vec<u8> {
        let path = &self.arguments.filename;
        let name = path.rsplit(|&byte| byte == b'/').next();
        let name = name.unwrap_or_default();
        name.get(..name.len().min(15)).unwrap_or_default().to_vec()
    }

    /// Plans an address space.
    pub fn plan(
        self,
        platform: &dyn Platform,
        identity: &Identity,
        settings: &Settings,
    ) -> Result<Planned, LoadError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno| LoadError::new(errno, what)
        };
        let name = display(&self.arguments.filename);
        let mut chance = Chance::new().map_err(failed("random bytes"))?;
        let guest = platform.guest_range();
        let mut layout = Layout::new(
            &guest,
            settings.stack_limit,
            settings.aslr,
            [chance.next(), chance.next()],
        );
        let mut placed = Placed::new(guest.clone(), &layout);

        let main_map = mapped(&self.file).map_err(failed(&name))?;
        let has_interpreter = self.interpreter.is_some();
        let pie_base = Layout::pie_base(&guest, settings.aslr, chance.next());
        let bias = place(
            &mut placed,
            &self.elf,
            &main_map,
            has_interpreter.then_some(pie_base),
        )
        .map_err(failed(&name))?;
        let span = self.elf.span();
        let image_end = span.end.wrapping_add(bias);
        let mut entry = self.elf.entry.wrapping_add(bias);
        let program_entry = entry;
        let mut interpreter_base = 0;
        if let Some((file, elf)) = &self.interpreter {
            let interpreter = display(self.elf.interpreter.as_deref().unwrap_or_default());
            let map = mapped(file).map_err(failed(&interpreter))?;
            let bias = place(&mut placed, elf, &map, None).map_err(failed(&interpreter))?;
            interpreter_base = elf.span().start.wrapping_add(bias);
            entry = elf.entry.wrapping_add(bias);
        }
        layout.vdso = platform
            .vdso()
            .map(|vdso| {
                let len = page_ceil(vdso.len_bytes).ok_or(Errno::ENOMEM)?;
                let addr = placed.gap(len, PAGE_SIZE)?;
                let mapped = Mapped {
                    fd: vdso.fd.clone(),
                    object: FutexObject::Anonymous(Arc::as_ptr(&vdso.fd).addr()),
                    holder: Holder::Special("[vdso]"),
                };
                let vma = Vma {
                    start: addr,
                    end: addr + len,
                    protection: Protection::READ | Protection::EXEC,
                    max_protection: Protection::READ | Protection::EXEC,
                    flags: VmaFlags::SPECIAL,
                    backing: Backing::Object(Arc::new(mapped), 0),
                    name: None,
                };
                placed.add(vma)?;
                Ok(addr)
            })
            .transpose()
            .map_err(failed("vDSO"))?;

        let mut stack_protection = Protection::READ | Protection::WRITE;
        stack_protection.set(Protection::EXEC, self.elf.has_exec_stack);
        let stack_vma = Vma {
            start: layout.stack.start,
            end: layout.stack.end,
            protection: stack_protection,
            max_protection: Protection::all(),
            flags: VmaFlags::GROWSDOWN,
            backing: Backing::Anonymous,
            name: None,
        };
        placed.add(stack_vma).map_err(failed(&name))?;

        // A static executable that is position independent lies among the
        // libraries, where a break could not grow.
        let brk_from = if self.elf.is_dynamic && !has_interpreter {
            pie_base
        } else {
            image_end
        };
        layout.brk_start = Layout::brk_base(brk_from, settings.aslr, chance.next());
        layout.brk = layout.brk_start;
        self.set_ranges(&mut layout, bias);

        let auxv = self.auxv(
            platform,
            identity,
            &layout,
            bias,
            interpreter_base,
            program_entry,
        );
        let gap = match settings.aslr {
            Aslr::Randomize => chance.next() % 8192,
            Aslr::Off => 0,
        };
        let stack = stack::build(
            layout.stack.end,
            &self.arguments,
            chance.bytes(),
            &auxv,
            gap,
        )
        .map_err(failed("arguments and environment"))?;
        if stack.pointer < layout.stack.start + 16 * PAGE_SIZE {
            return Err(LoadError::new(Errno::E2BIG, "arguments and environment"));
        }
        layout.stack_start = stack.pointer;
        layout.args = stack.args.clone();
        layout.env = stack.env.clone();
        layout.auxv.clone_from(&stack.auxv);

        Ok(Planned {
            comm: self.comm(),
            vmas: placed.vmas,
            zeroes: placed.zeroes,
            stack: stack.bytes,
            stack_pointer: stack.pointer,
            layout,
            guest,
            entry,
            file: self.file,
            name,
        })
    }

    /// Fills in the ranges of code and data.
    fn set_ranges(&self, layout: &mut Layout, bias: u64) {
        for segment in &self.elf.segments {
            let start = segment.addr.wrapping_add(bias);
            let range = start..start.wrapping_add(segment.file_len);
            if segment.protection.contains(Protection::EXEC) {
                if layout.code.is_empty() || range.start < layout.code.start {
                    layout.code.start = range.start;
                }
                layout.code.end = layout.code.end.max(range.end);
            }
            if segment.protection.contains(Protection::WRITE) {
                if layout.data.is_empty() || range.start > layout.data.start {
                    layout.data.start = range.start;
                }
                layout.data.end = layout.data.end.max(range.end);
            }
        }
    }

    /// The auxiliary vector but for what points into the stack.
    fn auxv(
        &self,
        platform: &dyn Platform,
        identity: &Identity,
        layout: &Layout,
        bias: u64,
        interpreter_base: u64,
        entry: u64,
    ) -> Vec<(u64, u64)> {
        let vector_len = u64::try_from(platform.vector_state_len_bytes()).unwrap_or(4096);
        let headers = self.elf.headers_addr.map(|addr| addr.wrapping_add(bias));
        let mut auxv = Vec::with_capacity(24);
        if let Some(addr) = layout.vdso {
            auxv.push((AT_SYSINFO_EHDR, addr));
        }
        auxv.extend([
            (AT_MINSIGSTKSZ, vector_len + SIGNAL_FRAME_LEN),
            (AT_HWCAP, u64::from(hwcap())),
            (AT_PAGESZ, PAGE_SIZE),
            (AT_CLKTCK, 100),
            (AT_PHDR, headers.unwrap_or(0)),
            (AT_PHENT, size_of::<ElfProgramHeader>() as u64),
            (AT_PHNUM, u64::from(self.elf.header_count)),
            (AT_BASE, interpreter_base),
            (AT_FLAGS_ENTRY, 0),
            (AT_ENTRY, entry),
            (AT_UID, u64::from(identity.uid.0)),
            (AT_EUID, u64::from(identity.euid.0)),
            (AT_GID, u64::from(identity.gid.0)),
            (AT_EGID, u64::from(identity.egid.0)),
            (AT_SECURE, u64::from(identity.secure)),
            // FSGSBASE (bit 1) is hidden: guests that set their own GS base
            // would lose what the platform keeps there.
            (AT_HWCAP2, 0),
        ]);
        auxv
    }
}

/// `AT_HWCAP`: EDX of CPUID leaf 1.
fn hwcap() -> u32 {
    std::arch::x86_64::__cpuid(1).edx
}

/// The host object behind an executable; `ENOEXEC` if it can't be mapped.
fn mapped(file: &Arc<File>) -> Result<Arc<Mapped>, Errno> {
    match file.ops.map(file) {
        Ok(crate::vfs::MapSource::Host { fd, object, .. }) => Ok(Arc::new(Mapped {
            fd,
            object: FutexObject::File(object),
            holder: Holder::File(file.clone()),
        })),
        Ok(crate::vfs::MapSource::Zero) | Err(Errno::ENODEV) => Err(Errno::ENOEXEC),
        Err(error) => Err(error),
    }
}

/// Random numbers of one exec, fetched at once.
struct Chance {
    bytes: [u8; 64],
    used: usize,
}

impl Chance {
    fn new() -> Result<Self, Errno> {
        let mut bytes = [0; 64];
        random::fill(&mut bytes)?;
        Ok(Self { bytes, used: 0 })
    }

    fn next(&mut self) -> u64 {
        let mut raw = [0; 8];
        if let Some(bytes) = self.bytes.get(self.used..self.used + 8) {
            raw.copy_from_slice(bytes);
        }
        self.used += 8;
        u64::from_ne_bytes(raw)
    }

    /// For `AT_RANDOM`.
    fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&self.next().to_ne_bytes());
        high.copy_from_slice(&self.next().to_ne_bytes());
        bytes
    }
}
