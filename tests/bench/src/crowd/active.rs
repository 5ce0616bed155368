//! Many wallets that sync at once, and how long each of their requests took.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bitcoin::hex::{DisplayHex, FromHex};

use super::gathering::{Gathering, Heard};
use super::request::{self, Entry};
use super::scripts;
use super::wallet::{Answered, Ask, Kind, Wallet};
use super::wire::From;
use crate::load::check;
use crate::load::known::Known;
use crate::sync::watch;
use crate::tip::stand::Stand;

/// One answer in so many is kept and checked.
const SAMPLE: usize = 64;
/// Between two looks at what came, where all wallets come at once: a hundredth of what they wait.
const REST: Duration = Duration::from_micros(500);
/// Mistakes that are told in full.
const TOLD: usize = 5;
/// Longest silence of all wallets together.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub wallets: usize,
    pub addresses: usize,
    /// Of a hundred addresses, how many the chain has.
    pub used_percent: usize,
    /// Requests that each wallet keeps in flight.
    pub depth: usize,
    /// The wallets come one by one in this time.
    pub over: Duration,
}

/// What was seen.
#[derive(Debug)]
pub struct Synced {
    /// From the first connection until the last wallet was done.
    pub elapsed: Duration,
    /// Microseconds of each answer, sorted, by what was asked.
    pub latencies: Vec<(Kind, Vec<u32>)>,
    /// How long each wallet took, sorted.
    pub wallets: Vec<Duration>,
    pub server_cpu: f64,
    pub client_cpu: f64,
    pub peak_memory: u64,
    /// Of all wallets.
    pub sent_bytes: usize,
    pub received_bytes: usize,
    pub checked: usize,
    pub mistakes: usize,
    /// The first mistakes, in words.
    pub told: Vec<String>,
    /// Wallets that the server hung up on.
    pub lost: usize,
}

/// The wallets, and who of them has begun when.
struct Run {
    began: HashMap<usize, Instant>,
    latencies: Vec<Vec<u32>>,
    kept: Vec<(usize, Ask, Vec<u8>)>,
    refused: Vec<String>,
    refusals: usize,
    lost: usize,
    done: usize,
}

/// Lets all wallets sync. Those of another `round` are others: scripts and subnets too.
pub fn sync(stand: &Stand, known: &Known, plan: &Plan, round: usize) -> anyhow::Result<Synced> {
    let used = plan.addresses * plan.used_percent / 100;
    let (first, all) = (round * plan.wallets, (round + 1) * plan.wallets);
    let existing = scripts::existing(&stand.chain, used * all, &scripts::long(known))?;
    let mut rng = fastrand::Rng::with_seed(round as u64);
    let mut wallets = (first..all).map(|number| {
        let mut scripts = existing[number * used..(number + 1) * used].to_vec();
        scripts.resize_with(plan.addresses, || scripts::unseen(&mut rng));
        // Wallets look at their addresses in order, and any may have been used.
        rng.shuffle(&mut scripts);
        Wallet::new(&scripts, plan.depth)
    });

    let process = stand.server.process();
    let (server_before, client_before) = (watch::cpu(process)?.0, watch::cpu(std::process::id())?.0);
    let mut run = Run {
        began: HashMap::new(),
        latencies: vec![Vec::new(); Kind::ALL.len()],
        kept: Vec::new(),
        refused: Vec::new(),
        refusals: 0,
        lost: 0,
        done: 0,
    };
    let mut crowd = Gathering::new(if plan.over.is_zero() { REST } else { Duration::ZERO })?;
    let start = Instant::now();
    let mut heard_at = start;
    while run.done < plan.wallets {
        let mut next = None;
        while run.began.len() < plan.wallets {
            let due = start + plan.over * run.began.len() as u32 / plan.wallets as u32;
            if due > Instant::now() {
                next = Some(due);
                break;
            }
            let from = From::subnet(first + run.began.len());
            let number = crowd.join(stand.service, from, wallets.next().context("as many as planned")?)?;
            let now = Instant::now();
            run.began.insert(number, now);
            crowd.say(number, |wallet, out| wallet.go_on(now, out));
        }
        let patience = next.map_or(SILENCE, |due| due.saturating_duration_since(Instant::now()));
        let answered = run.turn(&mut crowd, patience)?;
        if answered > 0 {
            heard_at = Instant::now();
        }
        ensure!(heard_at.elapsed() < SILENCE, "no wallet has an answer for {} s", SILENCE.as_secs());
    }
    let server_cpu = watch::cpu(process)?.0 - server_before;
    let client_cpu = watch::cpu(std::process::id())?.0 - client_before;
    let peak_memory = watch::peak_memory(process)?;
    run.report(&crowd, known, start, (server_cpu, client_cpu, peak_memory))
}

impl Run {
    /// The number of lines that came.
    fn turn(&mut self, crowd: &mut Gathering<Wallet>, patience: Duration) -> anyhow::Result<usize> {
        let (mut lines, mut failed) = (0, None);
        crowd.turn(patience, |number, wallet, heard, now, out| {
            let was_done = wallet.finished.is_some();
            lines += 1;
            match heard {
                Heard::Line(line) => {
                    match wallet.hear(line, now) {
                        Ok(Some(answered)) => self.take(number, answered, line),
                        Ok(None) => {}
                        Err(error) => failed = Some(error.context(request::start(line))),
                    }
                    wallet.go_on(now, out);
                }
                Heard::HungUp => {
                    self.lost += usize::from(!was_done);
                    wallet.finished.get_or_insert(now);
                }
            }
            self.done += usize::from(!was_done && wallet.finished.is_some());
        })?;
        failed.map_or(Ok(lines), Err)
    }

    fn take(&mut self, wallet: usize, Answered { ask, micros, is_refusal }: Answered, line: &[u8]) {
        let latencies = &mut self.latencies[ask.kind as usize];
        latencies.push(micros);
        if is_refusal {
            self.refusals += 1;
            if self.refused.len() < TOLD {
                self.refused.push(format!("{}: {}", ask.kind.method(), request::start(line)));
            }
        } else if latencies.len().is_multiple_of(SAMPLE) {
            self.kept.push((wallet, ask, line.to_vec()));
        }
    }

    fn report(
        mut self,
        crowd: &Gathering<Wallet>,
        known: &Known,
        start: Instant,
        (server_cpu, client_cpu, peak_memory): (f64, f64, u64),
    ) -> anyhow::Result<Synced> {
        let members: Vec<&Wallet> = crowd.members().collect();
        let (mut mistakes, mut told) = (self.refusals, std::mem::take(&mut self.refused));
        for (number, ask, line) in &self.kept {
            if let Err(error) = check_answer(known, members[*number], ask, line) {
                mistakes += 1;
                if told.len() < TOLD {
                    told.push(format!("{}: {error:#}", ask.kind.method()));
                }
            }
        }
        let ends = members.iter().filter_map(|wallet| wallet.finished);
        let elapsed = ends.max().context("no wallet was done")?.duration_since(start);
        let mut wallets: Vec<Duration> = members
            .iter()
            .enumerate()
            .filter_map(|(number, wallet)| Some(wallet.finished?.duration_since(self.began[&number])))
            .collect();
        wallets.sort_unstable();
        self.latencies.iter_mut().for_each(|latencies| latencies.sort_unstable());
        Ok(Synced {
            elapsed,
            latencies: Kind::ALL.into_iter().zip(self.latencies).collect(),
            wallets,
            server_cpu,
            client_cpu,
            peak_memory,
            sent_bytes: members.iter().map(|wallet| wallet.sent_bytes).sum(),
            received_bytes: members.iter().map(|wallet| wallet.received_bytes).sum(),
            checked: self.kept.len(),
            mistakes,
            told,
            lost: self.lost,
        })
    }
}

/// Whether an answer fits what else is known: the chain, or what the wallet was told before.
fn check_answer(known: &Known, wallet: &Wallet, ask: &Ask, line: &[u8]) -> anyhow::Result<()> {
    let subject = ask.subject.to_lower_hex_string();
    match ask.kind {
        Kind::History => {
            let history: Vec<Entry<'_>> = request::result(line)?;
            let told = wallet.told.iter().find(|(script, _)| *script == ask.subject);
            let told = told.context("a history that nobody asked for")?.1;
            ensure!(request::status_of(history) == Some(told), "a history that has another status");
        }
        Kind::Transaction => {
            let raw = Vec::from_hex(request::result(line)?)?;
            let txid = bitcoin::consensus::deserialize::<bitcoin::Transaction>(&raw)?.compute_txid();
            ensure!(txid.to_string() == subject, "another transaction: {txid}");
        }
        // The truth does not reach further.
        Kind::Merkle if ask.height > known.summary.height => {}
        Kind::Merkle => check::proof_of(known, &subject, ask.height, &request::result(line)?)?,
        Kind::Version | Kind::Features | Kind::Tip | Kind::Fee | Kind::Subscribe => {
            if line.is_empty() {
                bail!("nothing");
            }
        }
    }
    Ok(())
}

impl Synced {
    pub fn requests(&self) -> usize {
        self.latencies.iter().map(|(_, latencies)| latencies.len()).sum()
    }

    /// What a wallet cost on the average, by the published prices and with a unit for 5,000 bytes.
    pub fn cost_of_a_wallet(&self) -> f64 {
        let asked: f64 =
            self.latencies.iter().map(|(kind, latencies)| kind.price() * latencies.len() as f64).sum();
        let bytes = (self.sent_bytes + self.received_bytes) as f64 / 5_000.0;
        // A connection costs 5.
        5.0 + (asked + bytes) / self.wallets.len().max(1) as f64
    }
}
