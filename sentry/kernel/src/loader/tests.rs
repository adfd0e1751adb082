//! Tests of what needs no address space: headers, scripts, stacks.

use syscall_tables::Errno;
use syscall_tables::abi::{AT_EXECFN, AT_NULL, AT_PAGESZ, AT_PLATFORM, AT_RANDOM};

use super::elf::{Elf, Source};
use super::script::{Script, parse_script};
use super::{Arguments, stack};

const GUEST: std::ops::Range<u64> = 0x1_0000..0x7fff_0000_0000;

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(from..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len_bytes(&self) -> Result<u64, Errno> {
        Ok(self.0.len() as u64)
    }
}

/// This test's own executable: dynamic, with an interpreter.
fn own() -> Vec<u8> {
    std::fs::read("/proc/self/exe").expect("a running program has its file")
}

#[test]
fn parses_a_real_executable() {
    let elf = Elf::parse(&Bytes(own()), &GUEST).expect("this program was executed");
    assert!(elf.is_dynamic);
    assert!(elf.headers_addr.is_some());
    assert!(!elf.has_exec_stack);
    assert!(elf.interpreter.is_none_or(|name| name.starts_with(b"/lib")));
    assert!(elf.segments.len() >= 2);
    for pair in elf.segments.windows(2) {
        assert!(pair[0].addr < pair[1].addr);
    }
}

#[test]
fn truncated_files_are_refused() {
    let bytes = own();
    for len in (0..1024).chain([4096, 65_536]) {
        let cut = Bytes(bytes[..len].to_vec());
        assert_eq!(Elf::parse(&cut, &GUEST), Err(Errno::ENOEXEC), "{len} bytes");
    }
}

#[test]
fn foreign_files_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = own();
        change(&mut bytes);
        assert_eq!(Elf::parse(&Bytes(bytes), &GUEST), Err(Errno::ENOEXEC));
    };
    refused(&|bytes| bytes[0] = 0);
    // 32 bit, big endian, another machine, a relocatable file.
    refused(&|bytes| bytes[4] = 1);
    refused(&|bytes| bytes[5] = 2);
    refused(&|bytes| bytes[18] = 183);
    refused(&|bytes| bytes[16] = 1);
    // Size and number of program headers.
    refused(&|bytes| bytes[54] = 57);
    refused(&|bytes| bytes[56..58].fill(0));
    refused(&|bytes| bytes[56..58].fill(0xff));
    refused(&|bytes| bytes[32..40].fill(0xff));
}

/// Random changes of the headers: whatever comes out must be within bounds,
/// and nothing may panic.
#[test]
fn mutated_headers_never_escape_the_checks() {
    let mut original = own();
    // The length of the file is all that matters behind the headers.
    let len = original.len();
    original.truncate(4096);
    original.resize(len.min(1 << 20), 0);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let interesting = [0, 1, 0x7f, 0x80, 0xff];
    let mut bytes = Bytes(original);
    for _ in 0..20_000 {
        let mut undo = Vec::new();
        for _ in 0..1 + random() % 6 {
            let at = (random() % 1024) as usize;
            undo.push((at, bytes.0[at]));
            bytes.0[at] = if random() % 2 == 0 {
                interesting[(random() % 5) as usize]
            } else {
                random() as u8
            };
        }
        if let Ok(elf) = Elf::parse(&bytes, &GUEST) {
            assert!(!elf.segments.is_empty());
            assert!(elf.align.is_power_of_two());
            let span = elf.span();
            assert!(span.end <= GUEST.end);
            for segment in &elf.segments {
                assert!(segment.file_len <= segment.mem_len);
                assert!(segment.pages().start < segment.pages().end);
                if segment.file_len > 0 {
                    assert!(segment.offset + segment.file_len <= bytes.0.len() as u64);
                    assert_eq!(segment.addr % 4096, segment.offset % 4096);
                }
            }
        }
        for (at, byte) in undo.into_iter().rev() {
            bytes.0[at] = byte;
        }
    }
}

fn script(interpreter: &str, argument: Option<&str>) -> Result<Option<Script>, ()> {
    Ok(Some(Script {
        interpreter: interpreter.into(),
        argument: argument.map(Into::into),
    }))
}

#[test]
fn script_lines() {
    assert_eq!(parse_script(b"\x7fELF"), Ok(None));
    assert_eq!(parse_script(b"#"), Ok(None));
    assert_eq!(parse_script(b"#!/bin/sh\n"), script("/bin/sh", None));
    assert_eq!(parse_script(b"#!/bin/sh"), script("/bin/sh", None));
    assert_eq!(
        parse_script(b"#! \t/usr/bin/env  python3 -u  \nprint(1)\n"),
        script("/usr/bin/env", Some("python3 -u"))
    );
    assert_eq!(parse_script(b"#!\n/bin/sh\n"), Err(()));
    assert_eq!(parse_script(b"#!   \t\n"), Err(()));
    // The head ends within the path, and within the argument.
    let mut long = b"#!/".to_vec();
    long.resize(256, b'x');
    assert_eq!(parse_script(&long), Err(()));
    let mut long = b"#!/bin/sh ".to_vec();
    long.resize(256, b'x');
    let argument = "x".repeat(246);
    assert_eq!(parse_script(&long), script("/bin/sh", Some(&argument)));
}

fn word(stack: &stack::StackImage, index: usize) -> u64 {
    let bytes = stack.bytes[index * 8..index * 8 + 8].try_into();
    u64::from_le_bytes(bytes.expect("eight bytes"))
}

fn string_at(stack: &stack::StackImage, addr: u64) -> &[u8] {
    let from = (addr - stack.pointer) as usize;
    let rest = &stack.bytes[from..];
    let len = rest.iter().position(|&byte| byte == 0).expect("ends");
    &rest[..len]
}

#[test]
fn the_stack_is_as_the_abi_says() {
    for count in 0..4 {
        let arguments = Arguments {
            filename: b"/bin/prog".to_vec(),
            argv: (0..count).map(|n| format!("arg{n}").into_bytes()).collect(),
            envp: vec![b"A=1".to_vec(), b"B=".to_vec()],
        };
        let top = 0x7000_0000;
        let stack =
            stack::build(top, &arguments, [7; 16], &[(AT_PAGESZ, 4096)], 48).expect("it fits");
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(stack.pointer + stack.bytes.len() as u64, top);
        assert_eq!(word(&stack, 0), count);
        for n in 0..count as usize {
            let pointer = word(&stack, 1 + n);
            assert_eq!(string_at(&stack, pointer), arguments.argv[n]);
            assert!(stack.args.contains(&pointer));
        }
        let envp = 1 + count as usize;
        assert_eq!(word(&stack, envp), 0);
        assert_eq!(string_at(&stack, word(&stack, envp + 1)), b"A=1");
        assert_eq!(string_at(&stack, word(&stack, envp + 2)), b"B=");
        assert!(stack.env.contains(&word(&stack, envp + 2)));
        assert_eq!(word(&stack, envp + 3), 0);
        let mut at = envp + 4;
        let mut found = std::collections::BTreeMap::new();
        while word(&stack, at) != AT_NULL {
            found.insert(word(&stack, at), word(&stack, at + 1));
            at += 2;
        }
        assert_eq!(found[&AT_PAGESZ], 4096);
        assert_eq!(string_at(&stack, found[&AT_EXECFN]), b"/bin/prog");
        assert_eq!(string_at(&stack, found[&AT_PLATFORM]), b"x86_64");
        let random = (found[&AT_RANDOM] - stack.pointer) as usize;
        assert_eq!(stack.bytes[random..random + 16], [7; 16]);
        // The top word is zero, and argument strings follow one another.
        assert_eq!(stack.bytes[stack.bytes.len() - 8..], [0; 8]);
        let env = (stack.env.start - stack.pointer) as usize;
        assert!(stack.bytes[env..].starts_with(b"A=1\0B=\0/bin/prog\0"));
    }
}

#[test]
fn arguments_have_limits() {
    let mut arguments = Arguments {
        filename: b"/x".to_vec(),
        argv: vec![vec![b'a'; 100_000]],
        envp: Vec::new(),
    };
    assert_eq!(arguments.check_size(8 << 20), Ok(()));
    assert_eq!(arguments.check_size(0), Ok(()));
    arguments.argv.push(vec![b'b'; 40_000]);
    assert_eq!(arguments.check_size(64 << 10), Err(Errno::E2BIG));
    arguments.argv = vec![Vec::new(); 700_000];
    assert_eq!(arguments.check_size(u64::MAX), Err(Errno::E2BIG));
}
