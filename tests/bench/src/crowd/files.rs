//! The open-file limit, which each connection takes one of on either side.

use std::process::Command;

use anyhow::{Context, ensure};

/// Files beside connections: the store's, and what programs have open anyway.
const OTHERS: usize = 1_000;

/// Lets this process, and those that it starts from now on, hold so many connections.
pub fn allow(connections: usize) -> anyhow::Result<()> {
    let wanted = connections + OTHERS;
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut fields = line.context("no limit of open files")?.split_whitespace();
    let mut next = || fields.next().map(|field| field.parse().unwrap_or(usize::MAX));
    let (soft, hard) = next().zip(next()).context("no limit of open files")?;
    if soft >= wanted {
        return Ok(());
    }
    // Only root may raise the hard limit; the system says so.
    let limit = format!("--nofile={wanted}:{}", hard.max(wanted));
    let raised = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status();
    ensure!(
        raised.context("prlimit, of util-linux")?.success(),
        "{connections} connections need {wanted} open files; {hard} are allowed"
    );
    Ok(())
}
