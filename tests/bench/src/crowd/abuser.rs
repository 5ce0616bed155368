//! One who asks for whatever is dearest, over many connections of one address.
//!
//! By default it knows the prices and stays below the hard limit, so that nobody shows it the door; a reckless one
//! goes on until it is thrown out, and comes again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::gathering::{Gathering, Heard};
use super::request::{self, Said, said};
use super::wire::From;
use crate::load::known::Known;
use crate::tip::stand::Stand;

/// Requests of a large batch, as many as are answered.
const BATCH: usize = 1_000;
/// Transactions, each of another of the largest blocks, whose proofs are asked.
const PROOFS: usize = 256;
/// What it may owe, below the hard limit of 10,000; and what wears off in a second at least.
const BUDGET: f64 = 9_500.0;
const WEARS_OFF: f64 = 2.0;
/// Bytes that cost 1, and what a connection does.
const UNIT_BYTES: f64 = 5_000.0;
const CONNECTION: f64 = 5.0;
/// After it was thrown out.
const PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: u16,
    /// Does not mind its costs.
    pub is_reckless: bool,
}

/// Something dear.
#[derive(Clone, Debug)]
pub struct Dish {
    pub name: &'static str,
    version: &'static str,
    /// Method and parameters; one after the other.
    requests: Vec<(&'static str, String)>,
    /// How many of them make one line.
    batch: usize,
    /// What a request costs, bandwidth apart.
    price: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Got {
    pub name: &'static str,
    pub asked: usize,
    pub answered: usize,
    /// Refusals other than those for excess.
    pub refused: usize,
    pub excess: usize,
    pub hung_up: usize,
    pub bytes: usize,
    /// All waits together.
    pub waited: Duration,
    pub longest: Duration,
    pub first_refusal: Option<String>,
}

struct Guest {
    dish: usize,
    /// When it last asked, while the answer is missing.
    asked: Option<Instant>,
    next: usize,
    closed: Option<Instant>,
}

/// What can be asked for on this chain.
pub fn menu(stand: &Stand, known: &Known) -> anyhow::Result<Vec<Dish>> {
    let longest = known.scripts.iter().max_by_key(|script| script.history.len()).context("no scripts")?;
    let entries = longest.history.len() as f64;
    let by_hash = format!("[\"{}\"]", longest.scripthash);
    let mut largest: Vec<usize> = (1..=stand.known).collect();
    largest.sort_by_key(|height| std::cmp::Reverse(stand.chain[*height].length));
    let in_block =
        |height: &usize| known.transactions.iter().find(|transaction| transaction.height as usize == *height);
    let proofs = largest.iter().filter_map(in_block).take(PROOFS);
    let proofs =
        proofs.map(|tx| ("blockchain.transaction.get_merkle", format!("[\"{}\",{}]", tx.txid, tx.height)));
    let proofs: Vec<_> = proofs.collect();
    let large = known.transactions.iter().filter(|transaction| transaction.height > 0);
    let large = large.max_by_key(|transaction| transaction.length).context("no transactions")?;
    // What is not spent must be looked for in all of the script's history.
    let (txid, vout, ..) = longest.unspent.first().context("the longest history has nothing unspent")?;
    let outpoint = ("blockchain.outpoint.get_status", format!("[\"{txid}\",{vout}]"));
    let tip = stand.height();
    let history = ("blockchain.scripthash.get_history", by_hash.clone());
    let dish = |name, version, requests, batch, price| Dish { name, version, requests, batch, price };
    let (old, new) = (request::VERSION, "[\"crowd\",\"1.7\"]");
    Ok(vec![
        dish("longest history", old, vec![history.clone()], 1, 0.2 + 0.001 * entries),
        dish(
            "its status",
            old,
            vec![("blockchain.scripthash.subscribe", by_hash.clone())],
            1,
            0.3 + 0.0024 * entries,
        ),
        dish(
            "its unspent outputs",
            old,
            vec![("blockchain.scripthash.listunspent", by_hash)],
            1,
            1.0 + 0.02 * longest.unspent.len() as f64,
        ),
        dish("proofs in the largest blocks", old, proofs.clone(), 1, 0.5),
        dish(
            "largest transaction, verbose",
            old,
            vec![("blockchain.transaction.get", format!("[\"{}\",true]", large.txid))],
            1,
            1.0,
        ),
        dish("outpoint of the longest history", new, vec![outpoint.clone()], 1, 0.2 + 0.02 * entries),
        dish(
            "2,016 headers with proof",
            old,
            vec![("blockchain.block.headers", format!("[0,2016,{tip}]"))],
            1,
            0.02 * 2_016.0_f64.min(tip as f64),
        ),
        dish("1,000 proofs at once", old, proofs, BATCH, 0.5),
        dish("1,000 longest histories at once", old, vec![history], BATCH, 0.2 + 0.001 * entries),
        dish("1,000 outpoints at once", new, vec![outpoint], BATCH, 0.2 + 0.02 * entries),
    ])
}

/// Asks until told to stop.
pub fn dine(server: SocketAddr, menu: &[Dish], plan: &Plan, stop: &AtomicBool) -> anyhow::Result<Vec<Got>> {
    let mut got: Vec<Got> = menu.iter().map(|dish| Got { name: dish.name, ..Got::default() }).collect();
    let mut crowd = Gathering::new(Duration::ZERO)?;
    let mut owes = 0.0;
    let mut at = Instant::now();
    for number in 0..plan.connections {
        let dish = usize::from(number) % menu.len();
        let guest = Guest { dish, asked: None, next: usize::from(number), closed: None };
        crowd.join(server, From::alone(number), guest)?;
        owes += CONNECTION;
        greet(&mut crowd, number, menu);
    }
    while !stop.load(Ordering::Relaxed) {
        let mut came = 0;
        crowd.turn(TICK, |_, guest, heard, now, _| {
            let got = &mut got[guest.dish];
            match heard {
                Heard::HungUp => {
                    got.hung_up += 1;
                    (guest.closed, guest.asked) = (Some(now), None);
                }
                Heard::Line(line) => {
                    came += line.len();
                    got.hear(guest, line, now);
                }
            }
        })?;
        let now = Instant::now();
        owes += came as f64 / UNIT_BYTES - WEARS_OFF * (now - at).as_secs_f64();
        (owes, at) = (owes.max(0.0), now);
        for number in 0..plan.connections {
            let place = usize::from(number);
            let Guest { dish, asked, closed, .. } = *crowd.member(place);
            let food = &menu[dish];
            if let Some(since) = closed {
                if now - since > PAUSE {
                    crowd.connect(place, server, From::alone(number))?;
                    crowd.member(place).closed = None;
                    owes += CONNECTION;
                    greet(&mut crowd, number, menu);
                }
                continue;
            }
            let price = food.price * food.batch as f64;
            if asked.is_some() || (!plan.is_reckless && owes + price > BUDGET) {
                continue;
            }
            owes += price;
            got[dish].asked += 1;
            crowd.say(place, |guest, out| {
                guest.asked = Some(now);
                food.write(&mut guest.next, out);
                owes += out.len() as f64 / UNIT_BYTES;
            });
        }
    }
    Ok(got)
}

fn greet(crowd: &mut Gathering<Guest>, number: u16, menu: &[Dish]) {
    crowd.say(usize::from(number), |guest, out| {
        request::write(out, 0, "server.version", menu[guest.dish].version);
    });
}

impl Dish {
    fn write(&self, next: &mut usize, out: &mut Vec<u8>) {
        let mut one = |out: &mut Vec<u8>| {
            let (method, parameters) = &self.requests[*next % self.requests.len()];
            *next += 1;
            // A number that is never that of the greeting.
            request::write(out, *next as u64 + 1, method, parameters);
        };
        if self.batch == 1 {
            return one(out);
        }
        let start = out.len();
        for _ in 0..self.batch {
            out.push(b',');
            one(out);
            out.pop();
        }
        out[start] = b'[';
        out.extend(b"]\n");
    }
}

impl Got {
    fn hear(&mut self, guest: &mut Guest, line: &[u8], now: Instant) {
        self.bytes += line.len();
        let excess = line.windows(4).take(200).any(|bytes| bytes == b"-101");
        let is_greeting = said(line) == Said::Result(0);
        if excess {
            self.excess += 1;
        }
        let Some(asked) = guest.asked.filter(|_| !is_greeting) else { return };
        guest.asked = None;
        let waited = now - asked;
        self.waited += waited;
        self.longest = self.longest.max(waited);
        // In a batch some may be refused; it counts as answered.
        match said(line) {
            _ if line.first() == Some(&b'[') => self.answered += 1,
            Said::Result(_) => self.answered += 1,
            Said::Refusal(_) if !excess => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| request::start(line));
            }
            Said::Refusal(_) | Said::Notification => {}
        }
    }
}
