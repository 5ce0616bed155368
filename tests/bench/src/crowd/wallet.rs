//! One wallet that syncs its addresses, as Electrum does.
//!
//! It greets, asks what the server is and for its tip, subscribes to each address, asks for the histories of those
//! that have one, and for each transaction in them and its proof. Of all that, some requests are in flight at a time.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use anyhow::Context;
use bitcoin::hex::{DisplayHex, FromHex};

use super::request::{self, Entry, Said, said};
use super::scripts::Hash;

/// Transactions of one address that are asked for, the newest: what an address of a normal wallet has at most.
const NEWEST: usize = 10;

/// What a wallet asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Version,
    Features,
    Tip,
    Fee,
    Subscribe,
    History,
    Transaction,
    Merkle,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Features,
        Self::Tip,
        Self::Fee,
        Self::Subscribe,
        Self::History,
        Self::Transaction,
        Self::Merkle,
    ];

    pub fn method(self) -> &'static str {
        match self {
            Self::Version => "server.version",
            Self::Features => "server.features",
            Self::Tip => "blockchain.headers.subscribe",
            Self::Fee => "blockchain.estimatefee",
            Self::Subscribe => "blockchain.scripthash.subscribe",
            Self::History => "blockchain.scripthash.get_history",
            Self::Transaction => "blockchain.transaction.get",
            Self::Merkle => "blockchain.transaction.get_merkle",
        }
    }

    /// What it costs by `docs/protocol.md`, bandwidth apart; nearly, as entries of histories are not counted.
    pub fn price(self) -> f64 {
        match self {
            Self::Version | Self::Merkle => 0.5,
            Self::Features | Self::History => 0.2,
            Self::Tip => 0.25,
            Self::Fee => 0.1,
            Self::Subscribe => 0.3,
            Self::Transaction => 1.0,
        }
    }
}

/// A question, with all that is needed to check its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub kind: Kind,
    /// A script or a transaction; zeros where nothing is asked of.
    pub subject: Hash,
    /// Height of the transaction.
    pub height: u32,
}

/// An answer that came.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub ask: Ask,
    pub micros: u32,
    pub is_refusal: bool,
}

#[derive(Debug)]
pub struct Wallet {
    waiting: VecDeque<Ask>,
    in_flight: VecDeque<(u64, Ask, Instant)>,
    next: u64,
    depth: usize,
    known: HashSet<Hash>,
    /// Statuses of its scripts as they were told, for comparing with histories.
    pub told: Vec<(Hash, Hash)>,
    pub sent_bytes: usize,
    pub received_bytes: usize,
    pub finished: Option<Instant>,
}

impl Wallet {
    pub fn new(scripts: &[Hash], depth: usize) -> Self {
        let about = |kind| Ask { kind, subject: [0; 32], height: 0 };
        let mut waiting: VecDeque<Ask> =
            [Kind::Version, Kind::Features, Kind::Tip, Kind::Fee].map(about).into();
        let subscribe = |script: &Hash| Ask { kind: Kind::Subscribe, subject: *script, height: 0 };
        waiting.extend(scripts.iter().map(subscribe));
        Self {
            waiting,
            in_flight: VecDeque::with_capacity(depth),
            next: 0,
            depth,
            known: HashSet::new(),
            told: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            finished: None,
        }
    }

    /// Asks as much as may be in flight.
    pub fn go_on(&mut self, now: Instant, out: &mut Vec<u8>) {
        let before = out.len();
        while self.in_flight.len() < self.depth
            && let Some(ask) = self.waiting.pop_front()
        {
            let subject = ask.subject.to_lower_hex_string();
            let parameters = match ask.kind {
                Kind::Version => request::VERSION.to_owned(),
                Kind::Features | Kind::Tip => "[]".to_owned(),
                Kind::Fee => "[2]".to_owned(),
                Kind::Subscribe | Kind::History | Kind::Transaction => format!("[\"{subject}\"]"),
                Kind::Merkle => format!("[\"{subject}\",{}]", ask.height),
            };
            request::write(out, self.next, ask.kind.method(), &parameters);
            self.in_flight.push_back((self.next, ask, now));
            self.next += 1;
        }
        self.sent_bytes += out.len() - before;
        if self.in_flight.is_empty() {
            self.finished.get_or_insert(now);
        }
    }

    /// Takes an answer, and plans what follows from it; `None` for news.
    pub fn hear(&mut self, line: &[u8], now: Instant) -> anyhow::Result<Option<Answered>> {
        self.received_bytes += line.len() + 1;
        let (id, is_refusal) = match said(line) {
            Said::Result(id) => (id, false),
            Said::Refusal(id) => (id, true),
            Said::Notification => return Ok(None),
        };
        let place = self.in_flight.iter().position(|(asked, ..)| *asked == id);
        let asked = place.and_then(|place| self.in_flight.remove(place));
        let (_, ask, at) = asked.with_context(|| format!("an answer to {id}, which is not in flight"))?;
        if !is_refusal {
            match ask.kind {
                Kind::Subscribe => {
                    if let Some(status) = request::status(line)? {
                        self.told.push((ask.subject, status));
                        self.waiting.push_back(Ask { kind: Kind::History, ..ask });
                    }
                }
                Kind::History => self.plan_transactions(line)?,
                _ => {}
            }
        }
        let micros = u32::try_from((now - at).as_micros()).unwrap_or(u32::MAX);
        Ok(Some(Answered { ask, micros, is_refusal }))
    }

    fn plan_transactions(&mut self, history: &[u8]) -> anyhow::Result<()> {
        let entries = request::result::<Vec<Entry<'_>>>(history)?;
        for entry in &entries[entries.len().saturating_sub(NEWEST)..] {
            let subject = Hash::from_hex(entry.tx_hash)?;
            let height = u32::try_from(entry.height)?;
            if self.known.insert(subject) {
                for kind in [Kind::Transaction, Kind::Merkle] {
                    self.waiting.push_back(Ask { kind, subject, height });
                }
            }
        }
        Ok(())
    }
}
