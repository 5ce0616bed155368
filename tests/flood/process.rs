//! What the system says of a running program.

use std::collections::BTreeMap;

/// Ticks of a second in `/proc`, on every Linux (`sysconf(_SC_CLK_TCK)`).
const TICKS: f64 = 100.0;

/// Bytes of memory by its name in `/proc/PID/status`: `VmRSS` now, `VmHWM` at most.
pub fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the program runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.expect("Linux counts memory").trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().expect("a number of kB") * 1024
}

/// Seconds of processor by the name of the thread; those of one name together.
pub fn processor(process: u32) -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the program runs");
    for task in tasks.flatten() {
        // A thread may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")) else {
            continue;
        };
        // After the name: state, ten more, then ticks in user mode and in the kernel.
        let ticks: f64 = rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        *seconds.entry(name.to_owned()).or_default() += ticks / TICKS;
    }
    seconds
}

/// What was used between two looks.
pub fn used(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let used = after.iter().map(|(name, all)| (name.clone(), all - before.get(name).unwrap_or(&0.0)));
    used.filter(|(_, seconds)| *seconds > 0.0).collect()
}
