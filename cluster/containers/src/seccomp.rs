//! The built-in system call filter (`RuntimeDefault`) and the translation of an OCI seccomp section into kernel filters. Pure.
//!
//! The list is an allow list: what ordinary programs need and what cannot reach beyond the container. Some calls depend on a capability the
//! container has. Everything else answers EPERM, except `clone3`, which answers ENOSYS so that libc falls back to `clone`, whose flags can be checked.

mod table;

use std::collections::BTreeMap;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use self::table::{ALWAYS, BY_CAPABILITY};

/// Flags of `clone` and `unshare` that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32`, each also with `UNAME26`, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default filter for a container that holds `capabilities` (`CAP_…`).
pub(crate) fn runtime_default(capabilities: &[String]) -> Result<LinuxSeccomp, OciSpecError> {
    let holds = |name: &str| capabilities.iter().any(|have| have == name);
    let mut names: Vec<String> = ALWAYS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (capability, calls) in BY_CAPABILITY {
        if holds(capability) {
            names.extend(calls.iter().map(|(name, _)| (*name).to_owned()));
        }
    }
    let mut calls = vec![allow(names, None)?];
    for value in PERSONALITIES {
        calls.push(allow(
            vec!["personality".into()],
            Some(argument(0, value, None, LinuxSeccompOperator::ScmpCmpEq)?),
        )?);
    }
    let vsock = argument(0, libc::AF_VSOCK as u64, None, LinuxSeccompOperator::ScmpCmpNe)?;
    calls.push(allow(vec!["socket".into()], Some(vsock))?);
    if !holds("CAP_SYS_ADMIN") {
        let plain = argument(0, NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        calls.push(allow(vec!["clone".into()], Some(plain))?);
        calls.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(libc::ENOSYS as u32)
                .build()?,
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(vec![native()])
        .syscalls(calls)
        .build()
}

/// Kernel filters for a section; install all of them, in this order. Names this kernel's architecture lacks are left out.
pub(crate) fn compile(section: &LinuxSeccomp) -> Result<Vec<BpfProgram>, String> {
    let default = action(section.default_action(), section.default_errno_ret())?;
    // One filter holds one action; the kernel takes the strictest answer, so every filter but the allowing one lets the rest through.
    let mut groups: Vec<(SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)> = Vec::new();
    for call in section.syscalls().iter().flatten() {
        let wanted = action(call.action(), call.errno_ret())?;
        if wanted == default {
            continue;
        }
        let at = groups.iter().position(|(known, _)| *known == wanted).unwrap_or_else(|| {
            groups.push((wanted.clone(), BTreeMap::new()));
            groups.len() - 1
        });
        add(&mut groups[at].1, call)?;
    }
    let known: Vec<i64> = groups.iter().flat_map(|(_, rules)| rules.keys().copied()).collect();
    let mut programs = Vec::new();
    for (wanted, mut rules) in groups {
        let mismatch = if wanted == SeccompAction::Allow {
            // Calls another filter answers must pass here, and that filter decides.
            for number in &known {
                rules.entry(*number).or_default();
            }
            default.clone()
        } else {
            SeccompAction::Allow
        };
        let filter = SeccompFilter::new(rules, mismatch, wanted, target()?).map_err(|e| e.to_string())?;
        programs.push(BpfProgram::try_from(filter).map_err(|e| e.to_string())?);
    }
    Ok(programs)
}

fn add(rules: &mut BTreeMap<i64, Vec<SeccompRule>>, call: &LinuxSyscall) -> Result<(), String> {
    for name in call.names() {
        let Some(number) = number(name) else { continue };
        let entry = rules.entry(number);
        let arguments = call.args().as_deref().unwrap_or_default();
        if arguments.is_empty() {
            // An empty list of rules matches whatever the arguments.
            entry.insert_entry(Vec::new());
            continue;
        }
        let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        let rule = SeccompRule::new(conditions).map_err(|e| e.to_string())?;
        match entry {
            std::collections::btree_map::Entry::Occupied(mut known) if !known.get().is_empty() => {
                known.get_mut().push(rule);
            }
            std::collections::btree_map::Entry::Occupied(_) => {}
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(vec![rule]);
            }
        }
    }
    Ok(())
}

fn condition(argument: &LinuxSeccompArg) -> Result<SeccompCondition, String> {
    let (value, two) = (argument.value(), argument.value_two().unwrap_or(0));
    let (op, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, value),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, value),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, value),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, value),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, value),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, value),
        // OCI: mask in `value`, wanted result in `valueTwo`.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(value), two),
    };
    let index = u8::try_from(argument.index()).map_err(|e| e.to_string())?;
    // Arguments of these calls are ints: the upper half of the register is not the program's.
    let length = if value <= u64::from(u32::MAX) { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    SeccompCondition::new(index, length, op, value).map_err(|e| e.to_string())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction, String> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => SeccompAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        other => return Err(format!("seccomp action {other} is not supported")),
    })
}

fn number(name: &str) -> Option<i64> {
    let all =
        ALWAYS.iter().chain(table::CHECKED).chain(BY_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter()));
    all.into_iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

fn allow(names: Vec<String>, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let call = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => call.args(vec![argument]).build(),
        None => call.build(),
    }
}

fn argument(
    index: usize,
    value: u64,
    two: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    match two {
        Some(two) => argument.value_two(two).build(),
        None => argument.build(),
    }
}

fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 }
}

fn target() -> Result<TargetArch, String> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_compiles_within_the_kernels_limit() {
        let section = runtime_default(&["CAP_CHOWN".into()]).unwrap();
        let programs = compile(&section).unwrap();
        assert_eq!(programs.len(), 2, "one that allows, one that answers ENOSYS");
        assert!(programs.iter().all(|program| program.len() < 4096));
    }

    #[test]
    fn capabilities_open_their_calls() {
        let named = |capabilities: &[String], name: &str| {
            let section = runtime_default(capabilities).unwrap();
            section.syscalls().iter().flatten().any(|call| call.names().iter().any(|n| n == name))
        };
        assert!(!named(&[], "mount"));
        assert!(named(&["CAP_SYS_ADMIN".into()], "mount"));
        assert!(!named(&["CAP_SYS_ADMIN".into()], "clone3") || !named(&[], "init_module"));
        assert!(!named(&["CAP_SYS_ADMIN".into()], "init_module"));
    }

    #[test]
    fn every_name_has_one_number() {
        let mut names: Vec<_> = ALWAYS.iter().map(|(name, _)| name).collect();
        names.sort();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
