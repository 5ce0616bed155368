//! `peerdex check`: compares a whole folder with its blocks, shows how far it is, and says what is wrong in words.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use chainstore::{Checker, Report, Store};

use super::words::Span;
use crate::config::Folder;
use crate::validate::{Params, check_proof_of_work};

/// Between two lines of progress on a terminal, where each takes the place of the one before, and elsewhere.
const DRAW_EVERY: Duration = Duration::from_secs(1);
const LINE_EVERY: Duration = Duration::from_secs(30);

/// What is true of every kind of damage today.
const REMEDY: &str = "What is damaged cannot be mended in place. Look at the disk and its cables first; then move the \
    folder away and start peerdex: it fetches the chain and writes the index anew.";

/// Checks an open folder.
pub(super) fn check(folder: &Folder, store: &mut Store) -> anyhow::Result<Verdict> {
    let params = Params::of(folder.network);
    let header = |header: &Header| {
        check_proof_of_work(header, header.block_hash(), &params).map_err(|error| error.to_string())
    };
    let mut progress = ProgressLine::new();
    let mut checker = Checker {
        memory_bytes: folder.memory_mb as usize * 1024 * 1024 / 2,
        header: &header,
        progress: &mut |share| progress.show(share),
    };
    let report = store.check(&mut checker);
    progress.clear();
    Ok(Verdict(report?))
}

/// What is said in the end.
#[derive(Debug)]
pub(super) struct Verdict(Report);

impl Verdict {
    pub fn is_sound(&self) -> bool {
        self.0.is_sound()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { problems, more, skipped, blocks, txs, passes } = &self.0;
        for problem in problems {
            writeln!(f, "{}: {}", problem.file, problem.what)?;
        }
        if *more > 0 {
            writeln!(f, "and {more} more")?;
        }
        for what in skipped {
            writeln!(f, "note: {what}")?;
        }
        let word = if self.is_sound() { "sound" } else { "damaged" };
        writeln!(f, "{word}: {blocks} blocks and {txs} transactions were compared in {passes} passes")?;
        if !self.is_sound() {
            writeln!(f, "{REMEDY}")?;
        }
        Ok(())
    }
}

/// What is said of a folder that cannot even be opened because of what is in it.
pub(super) fn unopened(error: &chainstore::Error) -> String {
    format!("{error}\ndamaged: the folder cannot be opened\n{REMEDY}\n")
}

/// How far it is, on standard error.
struct ProgressLine {
    terminal: bool,
    start: Instant,
    next: Instant,
}

impl ProgressLine {
    fn new() -> Self {
        let now = Instant::now();
        Self { terminal: io::stderr().is_terminal(), start: now, next: now + DRAW_EVERY }
    }

    fn show(&mut self, share: f64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        let text = line(share, now - self.start);
        let mut stderr = io::stderr().lock();
        // Nobody to read it is no reason to stop.
        let _ = match self.terminal {
            true => write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{text}"),
        };
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

/// Percent, and what is left if it goes on as it did.
fn line(share: f64, elapsed: Duration) -> String {
    let share = share.clamp(0.0, 1.0);
    let left = if share > 0.0 { elapsed.as_secs_f64() * (1.0 - share) / share } else { 0.0 };
    let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
    format!("checking: {:.1} %, {} left", share * 100.0, Span(left))
}

#[cfg(test)]
mod tests {
    use chainstore::Problem;

    use super::*;

    #[test]
    fn progress_is_percent_and_time() {
        assert_eq!(line(0.25, Duration::from_secs(100)), "checking: 25.0 %, 5 min 0 s left");
        assert_eq!(line(0.0, Duration::from_secs(1)), "checking: 0.0 %, 0 s left");
        assert_eq!(line(1.0, Duration::from_secs(100)), "checking: 100.0 %, 0 s left");
    }

    #[test]
    fn a_verdict_says_each_problem_and_what_to_do() {
        let mut report = Report { blocks: 10, txs: 20, passes: 2, ..Report::default() };
        assert_eq!(
            Verdict(report.clone()).to_string(),
            "sound: 10 blocks and 20 transactions were compared in 2 passes\n"
        );
        report.problems.push(Problem { file: "txids".into(), what: "transaction 3 is wrong".into() });
        report.more = 7;
        let said = Verdict(report).to_string();
        for word in ["txids: transaction 3 is wrong\n", "and 7 more\n", "damaged: 10 blocks", "anew"] {
            assert!(said.contains(word), "'{word}' is missing in: {said}");
        }
    }
}
