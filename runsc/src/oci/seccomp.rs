//! `linux.seccomp` as a classic BPF program, which the sentry evaluates for
//! the guest's system calls.
//!
//! System call numbers are found by a binary search over ranges with the same
//! answer, so that a profile of hundreds of names costs a handful of
//! comparisons. Source: OCI runtime specification, `config-linux.md`;
//! `seccomp(2)`.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use syscall_tables::abi::{
    AUDIT_ARCH_X86_64, BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP,
    BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use syscall_tables::table;

use crate::plan::{BpfInstruction, SeccompPlan};

/// Error of `SCMP_ACT_ERRNO` without one.
const EPERM: u32 = 1;

/// Highest error number that a filter can answer.
const MAX_ERRNO: u32 = 4095;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Conditions that must all hold, and the answer if they do.
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    answer: u32,
}

/// What a filter says to one system call number.
#[derive(Default)]
struct Call {
    /// Tried in order.
    conditional: Vec<Rule>,
    /// Whatever the arguments are.
    always: Option<u32>,
}

/// Compiles a profile; `None` if it lets everything through.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Option<SeccompPlan>> {
    ensure!(
        seccomp.listener_metadata().is_none() || seccomp.listener_path().is_some(),
        "linux.seccomp.listenerMetadata is set, but listenerPath is not"
    );
    let architectures = seccomp.architectures();
    let for_us = architectures
        .as_ref()
        .is_none_or(|list| list.is_empty() || list.contains(&Arch::ScmpArchX86_64));
    ensure!(
        for_us,
        "linux.seccomp.architectures does not name SCMP_ARCH_X86_64, the only one of the sandbox"
    );
    let default = answer(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut calls: BTreeMap<u32, Call> = BTreeMap::new();
    for rule in seccomp.syscalls().iter().flatten() {
        add(&mut calls, rule, default)?;
    }
    let mut log = false;
    for flag in seccomp.flags().iter().flatten() {
        log |= *flag == LinuxSeccompFilterFlag::SeccompFilterFlagLog;
    }
    if default == SECCOMP_RET_ALLOW && calls.is_empty() {
        return Ok(None);
    }
    let mut instructions = vec![
        load(ARCH),
        jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0),
        ret(SECCOMP_RET_KILL_PROCESS),
        load(NR),
    ];
    instructions.extend(search(&ranges(&calls, default)));
    ensure!(
        instructions.len() <= 4096,
        "linux.seccomp has too many rules: {} instructions",
        instructions.len()
    );
    Ok(Some(SeccompPlan { instructions, log }))
}

/// `SECCOMP_RET_*` of an action.
fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    ensure!(
        errno.is_none()
            || matches!(
                action,
                LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace
            ),
        "linux.seccomp: {action} takes no error number"
    );
    let code = errno.unwrap_or(EPERM);
    ensure!(
        code <= MAX_ERRNO,
        "linux.seccomp: {code} is not an error number"
    );
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SECCOMP_RET_KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => SECCOMP_RET_ERRNO | code,
        LinuxSeccompAction::ScmpActTrace => SECCOMP_RET_TRACE | code,
        LinuxSeccompAction::ScmpActLog => SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => SECCOMP_RET_ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            bail!(
                "linux.seccomp: SCMP_ACT_NOTIFY is not supported: a listener on the host can't \
                 serve calls that the sandbox has taken already"
            )
        }
    })
}

fn add(calls: &mut BTreeMap<u32, Call>, rule: &LinuxSyscall, default: u32) -> Result<()> {
    ensure!(
        !rule.names().is_empty(),
        "linux.seccomp: a rule names no system call"
    );
    let answer = answer(rule.action(), rule.errno_ret())?;
    // As everywhere: a rule for what happens anyway is none.
    if answer == default {
        return Ok(());
    }
    let conditions = rule.args().clone().unwrap_or_default();
    for condition in &conditions {
        ensure!(
            condition.index() < 6,
            "linux.seccomp: system calls have no argument {}",
            condition.index()
        );
    }
    for name in rule.names() {
        // Names of calls that this architecture doesn't have are usual.
        let Some(row) = table::by_name(name) else {
            continue;
        };
        let call = calls.entry(row.number).or_default();
        if conditions.is_empty() {
            call.always.get_or_insert(answer);
        } else if repeats_an_argument(&conditions) {
            // Several conditions on one argument are alternatives.
            let alternatives = conditions.iter().map(|condition| Rule {
                conditions: vec![*condition],
                answer,
            });
            call.conditional.extend(alternatives);
        } else {
            call.conditional.push(Rule {
                conditions: conditions.clone(),
                answer,
            });
        }
    }
    Ok(())
}

fn repeats_an_argument(conditions: &[LinuxSeccompArg]) -> bool {
    let mut rest = conditions;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| other.index() == first.index()) {
            return true;
        }
        rest = others;
    }
    false
}

/// What to do from a system call number on, up to the next range.
#[derive(Clone, PartialEq, Eq)]
enum Leaf {
    Answer(u32),
    Code(Vec<BpfInstruction>),
}

fn ranges(calls: &BTreeMap<u32, Call>, default: u32) -> Vec<(u32, Leaf)> {
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    let mut push = |from: u32, leaf: Leaf| match ranges.last() {
        Some((_, last)) if *last == leaf => {}
        _ => ranges.push((from, leaf)),
    };
    let mut next = 0;
    for (&number, call) in calls {
        if number > next {
            push(next, Leaf::Answer(default));
        }
        let leaf = match call.always {
            // Those with conditions can't make it any other.
            Some(answer) => Leaf::Answer(answer),
            None => Leaf::Code(conditional(&call.conditional, default)),
        };
        push(number, leaf);
        next = number + 1;
    }
    push(next, Leaf::Answer(default));
    ranges
}

/// A binary search for the range of the number in the accumulator.
fn search(ranges: &[(u32, Leaf)]) -> Vec<BpfInstruction> {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let from = match above.first() {
        Some((_, Leaf::Answer(answer))) if below.is_empty() => return vec![ret(*answer)],
        Some((_, Leaf::Code(code))) if below.is_empty() => return code.clone(),
        Some((from, _)) => from,
        None => return Vec::new(),
    };
    let (below, above) = (search(below), search(above));
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![jump(BPF_JGE, *from, skip, 0)],
        Err(_) => vec![
            jump(BPF_JGE, *from, 0, 1),
            BpfInstruction {
                code: BPF_JMP | BPF_JA,
                jt: 0,
                jf: 0,
                k: u32::try_from(below.len()).unwrap_or(u32::MAX),
            },
        ],
    };
    code.extend(below);
    code.extend(above);
    code
}

/// Rules with conditions, one after the other, then the default.
fn conditional(rules: &[Rule], default: u32) -> Vec<BpfInstruction> {
    let mut code = Vec::new();
    for rule in rules {
        code.extend(one_rule(rule));
    }
    code.push(ret(default));
    code
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// Past this many instructions.
    Skip(u8),
    /// To the next rule.
    Fail,
}

enum Step {
    Load(u32),
    And(u32),
    Jump(u16, u32, To, To),
}

fn one_rule(rule: &Rule) -> Vec<BpfInstruction> {
    let mut steps = Vec::new();
    for condition in &rule.conditions {
        compare(condition, &mut steps);
    }
    // The answer comes after all steps, the next rule after that.
    let end = steps.len() + 1;
    let mut code = Vec::new();
    for (at, step) in steps.into_iter().enumerate() {
        let to = |target| match target {
            To::Skip(count) => count,
            // Six conditions of six steps are well below the limit.
            To::Fail => u8::try_from(end - at - 1).unwrap_or(u8::MAX),
        };
        code.push(match step {
            Step::Load(offset) => load(offset),
            Step::And(mask) => BpfInstruction {
                code: BPF_ALU | BPF_AND | BPF_K,
                jt: 0,
                jf: 0,
                k: mask,
            },
            Step::Jump(test, value, yes, no) => jump(test, value, to(yes), to(no)),
        });
    }
    code.push(ret(rule.answer));
    code
}

/// Compares a 64-bit argument, high half first.
fn compare(condition: &LinuxSeccompArg, steps: &mut Vec<Step>) {
    use Step::{And, Jump, Load};
    use To::{Fail, Skip};
    let index = u32::try_from(condition.index()).unwrap_or(0);
    let (low_at, high_at) = (ARGS + index * 8, ARGS + index * 8 + 4);
    let halves = |value: u64| ((value >> 32) as u32, (value & u64::from(u32::MAX)) as u32);
    let (high, low) = halves(condition.value());
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => steps.extend([
            Load(high_at),
            Jump(BPF_JEQ, high, Skip(0), Fail),
            Load(low_at),
            Jump(BPF_JEQ, low, Skip(0), Fail),
        ]),
        LinuxSeccompOperator::ScmpCmpNe => steps.extend([
            Load(high_at),
            Jump(BPF_JEQ, high, Skip(0), Skip(2)),
            Load(low_at),
            Jump(BPF_JEQ, low, Fail, Skip(0)),
        ]),
        op @ (LinuxSeccompOperator::ScmpCmpGe | LinuxSeccompOperator::ScmpCmpGt) => {
            let test = match op {
                LinuxSeccompOperator::ScmpCmpGe => BPF_JGE,
                _ => BPF_JGT,
            };
            steps.extend([
                Load(high_at),
                Jump(BPF_JGT, high, Skip(3), Skip(0)),
                Jump(BPF_JEQ, high, Skip(0), Fail),
                Load(low_at),
                Jump(test, low, Skip(0), Fail),
            ]);
        }
        op @ (LinuxSeccompOperator::ScmpCmpLe | LinuxSeccompOperator::ScmpCmpLt) => {
            let beyond = match op {
                LinuxSeccompOperator::ScmpCmpLt => BPF_JGE,
                _ => BPF_JGT,
            };
            steps.extend([
                Load(high_at),
                Jump(BPF_JGT, high, Fail, Skip(0)),
                Jump(BPF_JEQ, high, Skip(0), Skip(2)),
                Load(low_at),
                Jump(beyond, low, Fail, Skip(0)),
            ]);
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(condition.value_two().unwrap_or(0));
            steps.extend([
                Load(high_at),
                And(high),
                Jump(BPF_JEQ, wanted_high, Skip(0), Fail),
                Load(low_at),
                And(low),
                Jump(BPF_JEQ, wanted_low, Skip(0), Fail),
            ]);
        }
    }
}

fn load(offset: u32) -> BpfInstruction {
    BpfInstruction {
        code: BPF_LD | BPF_W | BPF_ABS,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

fn ret(answer: u32) -> BpfInstruction {
    BpfInstruction {
        code: BPF_RET | BPF_K,
        jt: 0,
        jf: 0,
        k: answer,
    }
}

fn jump(test: u16, value: u32, yes: u8, no: u8) -> BpfInstruction {
    BpfInstruction {
        code: BPF_JMP | test | BPF_K,
        jt: yes,
        jf: no,
        k: value,
    }
}

#[cfg(test)]
mod tests {
    use sentry_kernel::task::seccomp::Program;
    use serde_json::{Value, json};
    use syscall_tables::abi::{SeccompData, SockFilter};

    use super::*;

    /// What the profile answers to a call.
    fn ask(profile: &Value, name: &str, args: [u64; 6]) -> u32 {
        let seccomp = serde_json::from_value(profile.clone()).expect("a profile");
        let plan = compile(&seccomp).expect("compiles").expect("a filter");
        let code = plan.instructions.iter().map(|one| SockFilter {
            code: one.code,
            jt: one.jt,
            jf: one.jf,
            k: one.k,
        });
        let program = Program::new(code.collect()).expect("valid");
        let number = table::by_name(name).expect("known").number;
        program.run(&SeccompData {
            nr: number.cast_signed(),
            arch: AUDIT_ARCH_X86_64,
            args,
            ..SeccompData::default()
        })
    }

    #[test]
    fn allow_list() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ]});
        assert_eq!(ask(&profile, "read", [0; 6]), SECCOMP_RET_ALLOW);
        assert_eq!(ask(&profile, "write", [0; 6]), SECCOMP_RET_ALLOW);
        assert_eq!(ask(&profile, "open", [0; 6]), SECCOMP_RET_ERRNO | 1);
        assert_eq!(ask(&profile, "clone3", [0; 6]), SECCOMP_RET_ERRNO | 38);
        assert_eq!(ask(&profile, "setns", [0; 6]), SECCOMP_RET_ERRNO | 1);
    }

    #[test]
    fn deny_list() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS"},
        ]});
        assert_eq!(ask(&profile, "read", [0; 6]), SECCOMP_RET_KILL_PROCESS);
        assert_eq!(ask(&profile, "write", [0; 6]), SECCOMP_RET_ALLOW);
    }

    #[test]
    fn every_call_of_a_long_list_is_found() {
        let names: Vec<&str> = (0..400)
            .filter(|number| number % 3 != 0)
            .filter_map(|number| table::by_number(number).map(|row| row.name))
            .collect();
        let profile = json!({"defaultAction": "SCMP_ACT_TRAP", "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
        ]});
        for number in 0..400 {
            let Some(row) = table::by_number(number) else {
                continue;
            };
            let expected = if number % 3 == 0 {
                SECCOMP_RET_TRAP
            } else {
                SECCOMP_RET_ALLOW
            };
            assert_eq!(ask(&profile, row.name, [0; 6]), expected, "{}", row.name);
        }
    }

    #[test]
    fn comparisons() {
        let big = 0x1_0000_0005_u64;
        let cases = [
            ("SCMP_CMP_EQ", big, 0, vec![big], vec![5, big + 1, big << 1]),
            ("SCMP_CMP_NE", big, 0, vec![5, big + 1], vec![big]),
            (
                "SCMP_CMP_GE",
                big,
                0,
                vec![big, big + 1, 2 * big],
                vec![5, 9, big - 1],
            ),
            ("SCMP_CMP_GT", big, 0, vec![big + 1, 2 * big], vec![5, big]),
            (
                "SCMP_CMP_LE",
                big,
                0,
                vec![0, 9, big],
                vec![big + 1, 2 * big],
            ),
            (
                "SCMP_CMP_LT",
                big,
                0,
                vec![0, 9, big - 1],
                vec![big, 2 * big],
            ),
            (
                "SCMP_CMP_MASKED_EQ",
                0xf0,
                0x30,
                vec![0x3f, big * 16 - 0x20],
                vec![0x40, 0],
            ),
        ];
        for (op, value, two, yes, no) in cases {
            let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 2, "value": value, "valueTwo": two, "op": op}]},
            ]});
            for (args, expected) in [(yes, SECCOMP_RET_ALLOW), (no, SECCOMP_RET_ERRNO | 1)] {
                for arg in args {
                    assert_eq!(
                        ask(&profile, "read", [0, 0, arg, 0, 0, 0]),
                        expected,
                        "{op} {value:#x} {arg:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn conditions_and_alternatives() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"},
                      {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]},
        ]});
        let allowed = SECCOMP_RET_ALLOW;
        assert_eq!(ask(&profile, "personality", [0, 5, 0, 0, 0, 0]), allowed);
        assert_eq!(ask(&profile, "personality", [8, 1, 0, 0, 0, 0]), allowed);
        assert_ne!(ask(&profile, "personality", [8, 2, 0, 0, 0, 0]), allowed);
        assert_ne!(ask(&profile, "personality", [9, 1, 0, 0, 0, 0]), allowed);
    }
}
