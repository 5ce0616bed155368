//! Runs a load: all questions once, checked; then as many as the time allows.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::check::check;
use super::connection::{Connection, is_result};
use super::known::Known;
use super::question::{Load, Question};
use crate::sync::watch;

/// One answer in so many is kept and checked.
const SAMPLE: usize = 64;
/// Mismatches that are told in full.
const TOLD: usize = 5;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub server: SocketAddr,
    pub connections: usize,
    /// Requests that each connection keeps in flight.
    pub depth: usize,
    /// How long the timed part takes.
    pub time: Duration,
    /// The server's process.
    pub process: Option<u32>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    pub load: Load,
    pub connections: usize,
    pub depth: usize,
    /// Of the timed part, until the last answer.
    pub elapsed: Duration,
    /// Microseconds, sorted; of each answer of the timed part.
    pub latencies: Vec<u32>,
    /// Processor seconds during the timed part.
    pub server_cpu: Option<f64>,
    pub client_cpu: f64,
    pub tally: Tally,
}

/// Answers compared with the truth.
#[derive(Debug, Default)]
pub struct Tally {
    pub checked: u64,
    pub mismatches: u64,
    /// The first mismatches, in words.
    pub told: Vec<String>,
}

impl Tally {
    fn compare(&mut self, known: &Known, question: &Question, line: &[u8]) {
        self.checked += 1;
        if let Err(error) = check(known, question, line) {
            self.mismatches += 1;
            if self.told.len() < TOLD {
                self.told.push(format!("{}: {error:#}", question.text()));
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.mismatches += other.mismatches;
        self.told.extend(other.told);
        self.told.truncate(TOLD);
    }
}

/// What one connection saw while the time ran.
#[derive(Default)]
struct Seen {
    latencies: Vec<u32>,
    /// Place of the question, and the answer.
    kept: Vec<(usize, Vec<u8>)>,
    last: Option<Instant>,
}

/// Asks all once, then for as long as planned. `None` when the truth has nothing to ask.
pub fn run(known: &Known, load: Load, plan: &Plan) -> anyhow::Result<Option<Outcome>> {
    let mut questions = load.questions(known);
    let (connections, depth) = if load.alone() { (1, 1) } else { (plan.connections, plan.depth) };
    let mut tally = ask_all(known, &questions, plan, connections, depth)?;

    questions.retain(|question| load.is_timed(question, known));
    if questions.is_empty() {
        return Ok(None);
    }
    fastrand::Rng::with_seed(1).shuffle(&mut questions);
    let open = (0..connections).map(|_| Connection::open(plan.server));
    let open = open.collect::<anyhow::Result<Vec<_>>>()?;
    let cpu = |process| anyhow::Ok(watch::cpu(process)?.0);
    let server_before = plan.process.map(cpu).transpose()?;
    let client_before = cpu(std::process::id())?;
    let barrier = Barrier::new(connections + 1);
    let (start, seen) = thread::scope(|scope| {
        let threads = open.into_iter().enumerate().map(|(number, connection)| {
            let (barrier, questions) = (&barrier, &questions);
            // Each begins elsewhere.
            let first = number * questions.len() / connections;
            scope.spawn(move || {
                barrier.wait();
                ask_for(connection, questions, first, depth, plan.time)
            })
        });
        let threads = threads.collect::<Vec<_>>();
        barrier.wait();
        let start = Instant::now();
        let seen = threads.into_iter().map(joined).collect::<anyhow::Result<Vec<Seen>>>();
        (start, seen)
    });
    let seen = seen?;
    let client_cpu = cpu(std::process::id())? - client_before;
    let server_after = plan.process.map(cpu).transpose()?;

    let last = seen.iter().filter_map(|seen| seen.last).max().unwrap_or(start);
    let mut latencies = Vec::new();
    for seen in seen {
        latencies.extend(seen.latencies);
        for (question, line) in seen.kept {
            tally.compare(known, &questions[question], &line);
        }
    }
    latencies.sort_unstable();
    let server_cpu = server_before.zip(server_after).map(|(before, after)| after - before);
    let elapsed = last.saturating_duration_since(start);
    Ok(Some(Outcome { load, connections, depth, elapsed, latencies, server_cpu, client_cpu, tally }))
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow!("a connection's thread panicked"))?
}

/// Asks each question once and checks each answer.
fn ask_all(
    known: &Known,
    questions: &[Question],
    plan: &Plan,
    connections: usize,
    depth: usize,
) -> anyhow::Result<Tally> {
    let share = questions.len().div_ceil(connections).max(1);
    thread::scope(|scope| {
        let threads = questions.chunks(share).map(|questions| {
            scope.spawn(move || -> anyhow::Result<Tally> {
                let mut connection = Connection::open(plan.server)?;
                let mut tally = Tally::default();
                let mut left = questions.iter().enumerate();
                loop {
                    let now = Instant::now();
                    let room = depth - connection.in_flight();
                    for (place, question) in left.by_ref().take(room) {
                        connection.ask(place, question, now);
                    }
                    if connection.in_flight() == 0 {
                        return Ok(tally);
                    }
                    connection.send()?;
                    connection.receive(|asked, line, _| {
                        tally.compare(known, &questions[asked.question], line);
                    })?;
                }
            })
        });
        let threads = threads.collect::<Vec<_>>();
        let mut tally = Tally::default();
        for thread in threads {
            tally.add(joined(thread)?);
        }
        Ok(tally)
    })
}

/// Keeps `depth` requests in flight until the time is over, and awaits the last answers.
fn ask_for(
    mut connection: Connection,
    questions: &[Question],
    first: usize,
    depth: usize,
    time: Duration,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut next = first;
    let mut now = Instant::now();
    let end = now + time;
    loop {
        if now < end {
            while connection.in_flight() < depth {
                connection.ask(next, &questions[next], now);
                next = (next + 1) % questions.len();
            }
            connection.send()?;
        } else if connection.in_flight() == 0 {
            return Ok(seen);
        }
        connection.receive(|asked, line, at| {
            // What may be an error is looked at, whatever its number.
            if seen.latencies.len().is_multiple_of(SAMPLE) || !is_result(line) {
                seen.kept.push((asked.question, line.to_vec()));
            }
            let latency = at.duration_since(asked.at).as_micros();
            seen.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
            seen.last = Some(at);
        })?;
        // A question's time begins when it is sent, not when the answer before it came.
        now = Instant::now();
    }
}
