//! The table of system calls against what the built product answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bundle::Ctx;

/// Calls below this are made.
const END: i64 = 520;

/// The host exempts it from every filter, so that it does not reach the
/// sentry of systrap; it ends its caller as it does on Linux.
const URETPROBE: i64 = 335;

const ENOSYS: i64 = -38;

/// "full" and "partial" rows are not answered by ENOSYS, others and unknown
/// numbers by exactly what their row says.
pub fn table_tells_the_truth(ctx: &Ctx<'_>) -> Result<(), String> {
    let help = ctx.run(&["help", "syscalls", "--format", "json"]);
    let table: Value = serde_json::from_str(&help.stdout).map_err(|e| format!("table: {e}"))?;
    let rows = table["linux"]["amd64"]["syscalls"]
        .as_object()
        .ok_or("the table has no rows")?;
    let guest = ctx.options.guest.to_string_lossy().into_owned();
    let done = ctx.run(&["do", "--", &guest, "answers", &END.to_string()]);
    let answers: BTreeMap<i64, Option<i64>> = done
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(number, answer)| Some((number.parse().ok()?, answer.parse().ok())))
        .collect();
    if !(0..END).all(|number| answers.contains_key(&number)) {
        return Err(format!("answers are missing: {}", done.describe()));
    }
    let wrong: Vec<String> = answers
        .iter()
        .filter_map(|(number, answer)| {
            let row = rows.get(&number.to_string());
            let told = |key| row.and_then(|row| row[key].as_str()).unwrap_or("");
            let expected = match told("support") {
                "full" | "partial" => None,
                "unimplemented" => Some(errno(told("note"))?),
                _ => Some(ENOSYS),
            };
            let fine = match (expected, answer) {
                (None, answer) => *answer != Some(ENOSYS),
                (Some(_), None) => *number == URETPROBE,
                (Some(expected), Some(answer)) => expected == *answer,
            };
            (!fine).then(|| {
                let (name, note) = (told("name"), told("note"));
                format!("{number} {name} answers {answer:?}, its row: {note:?}")
            })
        })
        .collect();
    let unknown = rows
        .values()
        .filter(|row| row["support"] == "unimplemented")
        .filter_map(|row| row["note"].as_str())
        .find(|note| errno(note).is_none());
    match unknown {
        Some(note) => Err(format!("{note:?} names no error this test knows")),
        None if wrong.is_empty() => Ok(()),
        None => Err(wrong.join("\n")),
    }
}

/// The answer that the note of an unimplemented row names.
fn errno(note: &str) -> Option<i64> {
    let number = match note.strip_prefix("returns ")? {
        "EPERM" => libc::EPERM,
        "ENXIO" => libc::ENXIO,
        "EACCES" => libc::EACCES,
        "ENODEV" => libc::ENODEV,
        "EINVAL" => libc::EINVAL,
        "ENOSPC" => libc::ENOSPC,
        "ENOSYS" => libc::ENOSYS,
        "EOPNOTSUPP" => libc::EOPNOTSUPP,
        _ => return None,
    };
    Some(-i64::from(number))
}
