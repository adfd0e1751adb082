//! Classic BPF as seccomp uses it: checked once, then run without surprises.

use syscall_tables::Errno;
use syscall_tables::abi::*;

/// Bytes of `struct seccomp_data`, all that a program can load.
const DATA_LEN: u32 = size_of::<SeccompData>() as u32;

/// A program that has been checked: it ends, jumps forward within itself,
/// and touches nothing but its data and scratch memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Program(Vec<SockFilter>);

const LOAD_ABS: u16 = BPF_LD | BPF_W | BPF_ABS;
const LOAD_LEN: u16 = BPF_LD | BPF_W | BPF_LEN;
const LOADX_LEN: u16 = BPF_LDX | BPF_W | BPF_LEN;
const LOAD_IMM: u16 = BPF_LD | BPF_IMM;
const LOADX_IMM: u16 = BPF_LDX | BPF_IMM;
const LOAD_MEM: u16 = BPF_LD | BPF_MEM;
const LOADX_MEM: u16 = BPF_LDX | BPF_MEM;
const RETURN_K: u16 = BPF_RET | BPF_K;
const RETURN_A: u16 = BPF_RET | BPF_A;
const JUMP: u16 = BPF_JMP | BPF_JA;
const TAX: u16 = BPF_MISC | BPF_TAX;
const TXA: u16 = BPF_MISC | BPF_TXA;

/// Instruction class, and the operation within ALU and JMP.
const CLASS: u16 = 0x07;
const OPERATION: u16 = 0xf0;

impl Program {
    /// Checks a program by the rules of seccomp(2); else `EINVAL`.
    pub fn new(code: Vec<SockFilter>) -> Result<Self, Errno> {
        if code.is_empty() || code.len() > BPF_MAXINSNS {
            return Err(Errno::EINVAL);
        }
        for (at, instruction) in code.iter().enumerate() {
            let left = code.len() - at - 1;
            if !is_valid(instruction, left) {
                return Err(Errno::EINVAL);
            }
        }
        let ends = code
            .last()
            .is_some_and(|last| matches!(last.code, RETURN_K | RETURN_A));
        if !ends || !initialises_memory(&code) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(code))
    }

    pub fn instructions(&self) -> &[SockFilter] {
        &self.0
    }

    /// What the program answers to call `number` on x86-64, if that depends on
    /// nothing else.
    pub fn constant(&self, number: u32) -> Option<u32> {
        let mut a = 0;
        let mut at = 0;
        loop {
            let instruction = self.0.get(at)?;
            at += 1;
            let k = instruction.k;
            match instruction.code {
                LOAD_ABS if k == 0 => a = number,
                LOAD_ABS if k == 4 => a = AUDIT_ARCH_X86_64,
                RETURN_K => return Some(k),
                JUMP => at = at.checked_add(usize::try_from(k).ok()?)?,
                code if code & CLASS == BPF_JMP && code & BPF_X == 0 => {
                    let jump = if compare(code & OPERATION, a, k) {
                        instruction.jt
                    } else {
                        instruction.jf
                    };
                    at += usize::from(jump);
                }
                code if code == BPF_ALU | BPF_AND => a &= k,
                _ => return None,
            }
        }
    }

    /// Runs the program on `data`.
    pub fn run(&self, data: &SeccompData) -> u32 {
        let words = words(data);
        let mut memory = [0_u32; BPF_MEMWORDS];
        let (mut a, mut x) = (0_u32, 0_u32);
        let mut at = 0;
        // The check made sure that this ends by a return.
        while let Some(instruction) = self.0.get(at) {
            at += 1;
            let k = instruction.k;
            let slot = usize::try_from(k).unwrap_or(usize::MAX);
            match instruction.code {
                LOAD_ABS => a = words.get(slot / 4).copied().unwrap_or(0),
                LOAD_LEN => a = DATA_LEN,
                LOADX_LEN => x = DATA_LEN,
                LOAD_IMM => a = k,
                LOADX_IMM => x = k,
                LOAD_MEM => a = memory.get(slot).copied().unwrap_or(0),
                LOADX_MEM => x = memory.get(slot).copied().unwrap_or(0),
                BPF_ST => set(&mut memory, slot, a),
                BPF_STX => set(&mut memory, slot, x),
                TAX => x = a,
                TXA => a = x,
                RETURN_K => return k,
                RETURN_A => return a,
                JUMP => at = at.saturating_add(slot),
                code if code & CLASS == BPF_JMP => {
                    let operand = if code & BPF_X != 0 { x } else { k };
                    let jump = if compare(code & OPERATION, a, operand) {
                        instruction.jt
                    } else {
                        instruction.jf
                    };
                    at += usize::from(jump);
                }
                code => {
                    let operand = if code & BPF_X != 0 { x } else { k };
                    match compute(code & OPERATION, a, operand) {
                        Some(result) => a = result,
                        // Division by a zero in X ends the program.
                        None => return 0,
                    }
                }
            }
        }
        0
    }
}

fn words(data: &SeccompData) -> [u32; 16] {
    let mut words = [0; 16];
    let low = |word: u64| word as u32;
    let high = |word: u64| (word >> 32) as u32;
    let [nr, arch, ip_low, ip_high, args @ ..] = &mut words;
    *nr = data.nr.cast_unsigned();
    *arch = data.arch;
    *ip_low = low(data.instruction_pointer);
    *ip_high = high(data.instruction_pointer);
    for (pair, arg) in args.chunks_exact_mut(2).zip(data.args) {
        if let [first, second] = pair {
            *first = low(arg);
            *second = high(arg);
        }
    }
    words
}

fn set(memory: &mut [u32], slot: usize, value: u32) {
    if let Some(word) = memory.get_mut(slot) {
        *word = value;
    }
}

fn compare(operation: u16, a: u32, operand: u32) -> bool {
    match operation {
        BPF_JEQ => a == operand,
        BPF_JGT => a > operand,
        BPF_JGE => a >= operand,
        _ => a & operand != 0,
    }
}

fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        BPF_ADD => a.wrapping_add(operand),
        BPF_SUB => a.wrapping_sub(operand),
        BPF_MUL => a.wrapping_mul(operand),
        BPF_DIV => a.checked_div(operand)?,
        BPF_OR => a | operand,
        BPF_AND => a & operand,
        BPF_XOR => a ^ operand,
        BPF_LSH => a.checked_shl(operand).unwrap_or(0),
        BPF_RSH => a.checked_shr(operand).unwrap_or(0),
        _ => a.wrapping_neg(),
    })
}

/// Whether seccomp takes this instruction with `left` ones after it.
fn is_valid(instruction: &SockFilter, left: usize) -> bool {
    let k = instruction.k;
    let reaches = |distance: u32| usize::try_from(distance).is_ok_and(|distance| distance < left);
    match instruction.code {
        LOAD_ABS => k < DATA_LEN && k.is_multiple_of(4),
        LOAD_LEN | LOADX_LEN | LOAD_IMM | LOADX_IMM => true,
        TAX | TXA | RETURN_K | RETURN_A => true,
        LOAD_MEM | LOADX_MEM | BPF_ST | BPF_STX => {
            usize::try_from(k).is_ok_and(|slot| slot < BPF_MEMWORDS)
        }
        JUMP => reaches(k),
        code if code & CLASS == BPF_JMP => {
            let known = matches!(code & OPERATION, BPF_JEQ | BPF_JGT | BPF_JGE | BPF_JSET)
                && code & !(CLASS | OPERATION | BPF_X) == 0;
            known && reaches(instruction.jt.into()) && reaches(instruction.jf.into())
        }
        code if code & CLASS == BPF_ALU => {
            let constant = code & BPF_X == 0;
            let plain = code & !(CLASS | OPERATION | BPF_X) == 0;
            plain
                && match code & OPERATION {
                    BPF_ADD | BPF_SUB | BPF_MUL | BPF_OR | BPF_AND | BPF_XOR => true,
                    BPF_DIV => !constant || k != 0,
                    BPF_LSH | BPF_RSH => !constant || k < 32,
                    BPF_NEG => constant,
                    _ => false,
                }
        }
        _ => false,
    }
}

/// Whether no path loads scratch memory that it has not stored to.
fn initialises_memory(code: &[SockFilter]) -> bool {
    // For each instruction, the slots that all paths to it have stored to.
    let mut known = vec![u16::MAX; code.len()];
    let mut stored = 0_u16;
    for (at, instruction) in code.iter().enumerate() {
        stored &= known.get(at).copied().unwrap_or(u16::MAX);
        let bit = 1_u16.checked_shl(instruction.k).unwrap_or(0);
        let mut meet = |distance: u32, stored: u16| {
            let target = usize::try_from(distance).ok();
            let target = target.and_then(|distance| (at + 1).checked_add(distance));
            if let Some(slot) = target.and_then(|target| known.get_mut(target)) {
                *slot &= stored;
            }
        };
        match instruction.code {
            BPF_ST | BPF_STX => stored |= bit,
            LOAD_MEM | LOADX_MEM if stored & bit == 0 => return false,
            JUMP => {
                meet(instruction.k, stored);
                stored = u16::MAX;
            }
            code if code & CLASS == BPF_JMP => {
                meet(instruction.jt.into(), stored);
                meet(instruction.jf.into(), stored);
                stored = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, k: u32) -> SockFilter {
        SockFilter {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }

    fn jump(code: u16, k: u32, jt: u8, jf: u8) -> SockFilter {
        SockFilter {
            code: BPF_JMP | code,
            jt,
            jf,
            k,
        }
    }

    #[test]
    fn a_usual_filter_runs() {
        let program = Program::new(vec![
            op(LOAD_ABS, 4),
            jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
            op(RETURN_K, SECCOMP_RET_KILL_PROCESS),
            op(LOAD_ABS, 0),
            jump(BPF_JEQ, 39, 0, 1),
            op(RETURN_K, SECCOMP_RET_ERRNO | 1),
            op(RETURN_K, SECCOMP_RET_ALLOW),
        ])
        .expect("valid");
        let mut data = SeccompData {
            nr: 39,
            arch: AUDIT_ARCH_X86_64,
            ..SeccompData::default()
        };
        assert_eq!(program.run(&data), SECCOMP_RET_ERRNO | 1);
        data.nr = 1;
        assert_eq!(program.run(&data), SECCOMP_RET_ALLOW);
        assert_eq!(program.constant(39), Some(SECCOMP_RET_ERRNO | 1));
        assert_eq!(program.constant(1), Some(SECCOMP_RET_ALLOW));
        data.arch = 1;
        assert_eq!(program.run(&data), SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn arguments_are_two_words_each() {
        let program = Program::new(vec![
            op(LOAD_ABS, 16 + 8 + 4),
            op(TAX, 0),
            op(LOAD_ABS, 16 + 8),
            op(BPF_ALU | BPF_ADD | BPF_X, 0),
            op(RETURN_A, 0),
        ])
        .expect("valid");
        let data = SeccompData {
            args: [0, 0x7_0000_0003, 0, 0, 0, 0],
            ..SeccompData::default()
        };
        assert_eq!(program.run(&data), 10);
        assert_eq!(program.constant(0), None);
    }

    #[test]
    fn bad_programs_are_refused() {
        let bad: [Vec<SockFilter>; 9] = [
            vec![],
            vec![op(LOAD_IMM, 0)],
            vec![op(LOAD_ABS, 64), op(RETURN_A, 0)],
            vec![op(LOAD_ABS, 2), op(RETURN_A, 0)],
            vec![op(BPF_LD | BPF_B | BPF_ABS, 0), op(RETURN_A, 0)],
            vec![op(JUMP, 1), op(RETURN_K, 0)],
            vec![op(JUMP, u32::MAX), op(RETURN_K, 0)],
            vec![op(BPF_ALU | BPF_DIV, 0), op(RETURN_A, 0)],
            vec![op(LOAD_MEM, 3), op(RETURN_A, 0)],
        ];
        for code in bad {
            assert_eq!(Program::new(code.clone()), Err(Errno::EINVAL), "{code:?}");
        }
    }
}
