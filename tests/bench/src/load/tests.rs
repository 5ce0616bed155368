//! The client against a server that knows the truth, and does not always tell it.

use std::fs::File;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

use super::fake::{Lie, serve};
use super::known::Known;
use super::question::Load;
use super::run::{Outcome, Plan, run};
use crate::forge::forge;

static KNOWN: LazyLock<Arc<Known>> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let file = |name| File::create(folder.path().join(name)).unwrap();
    forge(3_000_000, 1, &mut file("blocks.dat"), &mut file("truth.jsonl")).unwrap();
    let mut known = Known::load(folder.path()).unwrap();
    // The fake server searches them one by one.
    known.scripts.truncate(150);
    known.transactions.truncate(150);
    Arc::new(known)
});

fn ask(load: Load, connections: usize, lie: Option<(usize, Lie)>) -> anyhow::Result<Outcome> {
    let server = serve(KNOWN.clone(), lie);
    let time = Duration::from_millis(100);
    let plan = Plan { server, connections, depth: 4, time, process: Some(std::process::id()) };
    run(&KNOWN, load, &plan).map(|outcome| outcome.expect("the forge made some of all"))
}

#[test]
fn an_honest_server_is_believed() {
    for load in Load::value_variants() {
        let outcome = ask(*load, 3, None).unwrap();
        assert_eq!(outcome.tally.mismatches, 0, "{load:?}: {:?}", outcome.tally.told);
        let timed = outcome.latencies.len();
        assert!(timed > 0 && outcome.elapsed > Duration::ZERO, "{load:?}");
        let (all, kept) = (load.questions(&KNOWN).len(), outcome.tally.checked as usize);
        assert!(
            (all + timed / 64..=all + timed / 64 + 3).contains(&kept),
            "{load:?}: {kept} of {all} and {timed}"
        );
    }
}

#[test]
fn one_wrong_answer_is_found() {
    for load in Load::value_variants() {
        let last = load.questions(&KNOWN).len() - 1;
        let outcome = ask(*load, 1, Some((last, Lie::Result))).unwrap();
        assert_eq!(outcome.tally.mismatches, 1, "{load:?}");
        assert_eq!(outcome.tally.told.len(), 1, "{load:?}");
    }
}

#[test]
fn a_refusal_is_found_while_the_time_runs() {
    let asked_before = Load::Header.questions(&KNOWN).len();
    let outcome = ask(Load::Header, 1, Some((asked_before + 3, Lie::Error))).unwrap();
    assert_eq!(outcome.tally.mismatches, 1);
    assert!(outcome.tally.told[0].contains("busy"), "{:?}", outcome.tally.told);
}

#[test]
fn a_sampled_answer_is_checked_while_the_time_runs() {
    let asked_before = Load::Header.questions(&KNOWN).len();
    let outcome = ask(Load::Header, 1, Some((asked_before, Lie::Result))).unwrap();
    assert_eq!(outcome.tally.mismatches, 1);
}

#[test]
fn an_answer_to_nothing_ends_the_run() {
    let error = ask(Load::Header, 2, Some((5, Lie::Id))).unwrap_err().to_string();
    assert!(error.contains("not in flight"), "{error}");
}
