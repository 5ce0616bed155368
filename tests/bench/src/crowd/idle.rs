//! Sessions that subscribe, each to its share of scripts, and then do nothing.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::gathering::{Gathering, Heard};
use super::request::{self, Said, said};
use super::scripts::{self, Hash};
use super::wire::From;
use crate::sync::watch;
use crate::tip::stand::Stand;

/// Sessions that ask for their subscriptions at once.
const AT_ONCE: usize = 64;
/// Between two looks at what came, which is as near as times are told.
const REST: Duration = Duration::from_millis(1);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// The ids of the first two requests; those of subscriptions come after.
const GREETING: u64 = 0;
const HEADERS: u64 = 1;
const FIRST: u64 = 2;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub sessions: usize,
    /// Of all together.
    pub subscriptions: usize,
    /// Of a hundred, how many scripts are some that the chain has; nobody ever paid the others.
    pub used_percent: usize,
    /// How long they do nothing.
    pub idle: Duration,
}

/// One session.
#[derive(Debug)]
pub struct Sitter {
    pub scripts: Vec<Hash>,
    /// How many of these, from the first on, the chain has.
    used: usize,
    pub answered: usize,
    pub next: u64,
}

/// What the server's process took, at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Resident, in bytes; and what of it is not pages of files.
    pub memory: u64,
    pub heap: u64,
    pub peak: u64,
    pub cpu: f64,
}

impl Taken {
    pub fn now(process: u32) -> anyhow::Result<Self> {
        let (cpu, _) = watch::cpu(process)?;
        let (memory, heap) = (watch::memory(process)?, watch::heap(process)?);
        Ok(Self { memory, heap, peak: watch::peak_memory(process)?, cpu })
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seated {
    pub before: Taken,
    /// With all sessions greeted.
    pub connected: Taken,
    /// With all subscriptions.
    pub subscribed: Taken,
    /// After doing nothing.
    pub after: Taken,
    pub connecting: Duration,
    pub subscribing: Duration,
}

/// Opens all sessions and subscribes; they stay.
pub fn seat(stand: &Stand, plan: &Plan) -> anyhow::Result<(Gathering<Sitter>, Seated)> {
    let process = stand.server.process();
    let used = plan.subscriptions * plan.used_percent / 100;
    let mut existing = scripts::existing(&stand.chain, used, &[].into())?.into_iter();
    let mut rng = fastrand::Rng::with_seed(1);
    let share = |all: usize, number: usize| all * (number + 1) / plan.sessions - all * number / plan.sessions;
    let sitters = (0..plan.sessions).map(|number| {
        let mut scripts: Vec<Hash> = existing.by_ref().take(share(used, number)).collect();
        let used = scripts.len();
        scripts.resize_with(share(plan.subscriptions, number), || scripts::unseen(&mut rng));
        Sitter { scripts, used, answered: 0, next: FIRST }
    });
    let sitters: Vec<Sitter> = sitters.collect();

    let before = Taken::now(process)?;
    let began = Instant::now();
    let mut crowd = Gathering::new(REST)?;
    for (number, sitter) in sitters.into_iter().enumerate() {
        crowd.join(stand.service, From::subnet(number), sitter)?;
        crowd.say(number, |_, out| request::write(out, GREETING, "server.version", request::VERSION));
    }
    // The listener takes its time to take all of them.
    let greeted = |sitter: &Sitter| sitter.answered == 1;
    while !crowd.members().all(greeted) {
        listen(&mut crowd, |_| {})?;
    }
    let connecting = began.elapsed();
    let connected = Taken::now(process)?;

    let began = Instant::now();
    let (mut next, mut done) = (0, 0);
    while done < plan.sessions {
        while next < plan.sessions.min(done + AT_ONCE) {
            crowd.say(next, Sitter::subscribe);
            next += 1;
        }
        listen(&mut crowd, |sitter| done += usize::from(sitter.answered == 2 + sitter.scripts.len()))?;
    }
    let subscribing = began.elapsed();
    let subscribed = Taken::now(process)?;

    let end = Instant::now() + plan.idle;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        turn(&mut crowd, left, |_| {})?;
    }
    let after = Taken::now(process)?;
    Ok((crowd, Seated { before, connected, subscribed, after, connecting, subscribing }))
}

impl Sitter {
    fn subscribe(&mut self, out: &mut Vec<u8>) {
        request::write(out, HEADERS, "blockchain.headers.subscribe", "[]");
        for script in &self.scripts {
            request::write(out, self.next, "blockchain.scripthash.subscribe", &request::one(script));
            self.next += 1;
        }
    }

    fn hear(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let id = match said(line) {
            Said::Result(id) => id,
            Said::Refusal(_) => bail!("refused: {}", request::start(line)),
            Said::Notification => bail!("nothing happened, and the server says {}", request::start(line)),
        };
        if let Some(place) = id.checked_sub(FIRST) {
            let is_used = (place as usize) < self.used;
            let status = request::status(line)?;
            ensure!(
                status.is_some() == is_used,
                "{} for a script that is used: {is_used}",
                request::start(line)
            );
        }
        self.answered += 1;
        Ok(())
    }
}

/// Hears what comes next, of which there must be some.
fn listen(crowd: &mut Gathering<Sitter>, mut answered: impl FnMut(&Sitter)) -> anyhow::Result<()> {
    let end = Instant::now() + ANSWER;
    while turn(crowd, ANSWER, &mut answered)? == 0 {
        ensure!(Instant::now() < end, "no answer in {} s", ANSWER.as_secs());
    }
    Ok(())
}

/// The number of lines that came.
fn turn(
    crowd: &mut Gathering<Sitter>,
    patience: Duration,
    mut answered: impl FnMut(&Sitter),
) -> anyhow::Result<usize> {
    let (mut lines, mut failed) = (0, None);
    crowd.turn(patience, |number, sitter, heard, _, _| {
        let heard = match heard {
            Heard::Line(line) => sitter.hear(line),
            Heard::HungUp => Err(anyhow::anyhow!("the server hung up")),
        };
        lines += 1;
        match heard {
            Ok(()) => answered(sitter),
            Err(error) => {
                failed.get_or_insert_with(|| error.context(format!("session {number}")));
            }
        }
    })?;
    failed.map_or(Ok(lines), Err)
}
