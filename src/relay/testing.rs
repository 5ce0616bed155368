//! Transactions, peers and a mempool that says what it is told to, for the tests here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use chainstore::{Height, ScriptKey};

use super::gossip::Relay;
use super::types::{Job, Output, Role, Verdict};
use crate::mempool::{Changes, Entry, Input, Policy, Reject, RejectKind, Removal, Unconfirmed};
use crate::peer::{Inventory, InventoryKind, Message, Misbehavior, PeerId, PeerInfo};
use crate::time::Now;

pub const ALICE: PeerId = PeerId(1);
pub const BOB: PeerId = PeerId(2);
pub const CAROL: PeerId = PeerId(3);
pub const SECOND: Duration = Duration::from_secs(1);
/// Outputs of each transaction here.
const OUTPUTS: usize = 2;

/// A coin that a block made.
pub fn coin(number: u32) -> OutPoint {
    OutPoint { txid: Txid::hash(&number.to_le_bytes()), vout: 0 }
}

/// The first output of a transaction.
pub fn output(tx: &Unconfirmed) -> OutPoint {
    OutPoint { txid: tx.txid(), vout: 0 }
}

/// A transaction with a witness that spends these.
pub fn spend(coins: &[OutPoint]) -> Arc<Unconfirmed> {
    build(coins, &[1; 70])
}

/// The same transaction with another witness, or none.
pub fn with_witness(tx: &Unconfirmed, witness: &[u8]) -> Arc<Unconfirmed> {
    let coins: Vec<OutPoint> = tx.tx().input.iter().map(|input| input.previous_output).collect();
    build(&coins, witness)
}

pub fn build(coins: &[OutPoint], witness: &[u8]) -> Arc<Unconfirmed> {
    let input = |coin: &OutPoint| TxIn {
        previous_output: *coin,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: if witness.is_empty() { Witness::new() } else { Witness::from_slice(&[witness]) },
    };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::from(vec![0x51; 22]) };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output: vec![output; OUTPUTS],
    };
    Arc::new(Unconfirmed::parse(&serialize(&tx)).unwrap())
}

/// What the mempool would keep of it, at one satoshi per weight unit.
pub fn entry(tx: &Unconfirmed) -> Arc<Entry> {
    Arc::new(Entry {
        txid: tx.txid(),
        wtxid: tx.wtxid(),
        raw: tx.raw().clone(),
        inputs: tx
            .tx()
            .input
            .iter()
            .map(|input| Input {
                outpoint: input.previous_output,
                value: Amount::from_sat(2_000),
                script: ScriptKey([1; ScriptKey::LEN]),
            })
            .collect(),
        outputs: Box::default(),
        fee: Amount::from_sat(tx.weight()),
        weight: tx.weight(),
        vsize: tx.weight().div_ceil(4),
        sigops_cost: 4,
        dust: None,
        is_truc: false,
        spends_coinbase: false,
        at: Now::default().instant,
        unix: 0,
        height: Height(100),
    })
}

pub fn accepted(tx: &Unconfirmed) -> Verdict {
    Verdict::Accepted(entry(tx))
}

pub fn rejected(kind: RejectKind) -> Verdict {
    Verdict::Rejected(Reject::new(kind, "said so by the test"))
}

pub fn missing(parents: &[&Unconfirmed]) -> Verdict {
    Verdict::MissingInputs { parents: parents.iter().map(|parent| parent.txid()).collect() }
}

pub fn info(wtxid_relay: bool) -> PeerInfo {
    PeerInfo {
        version: 70016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        user_agent: "/alice:1/".into(),
        start_height: 0,
        relay: true,
        wtxid_relay,
    }
}

/// A relay with its clock and what it put out, sorted.
#[derive(Debug)]
pub struct Harness {
    pub relay: Relay,
    pub now: Now,
    sent: Vec<(PeerId, Message)>,
    pub jobs: VecDeque<Job>,
    dropped: Vec<(PeerId, Misbehavior)>,
    /// What wallets, the disk and the operator were told.
    told: Vec<Output>,
    /// Whether the books are compared after each step; a flood does that once.
    pub compares: bool,
}

impl Harness {
    /// A relay that is synced, with these peers; all announce by wtxid.
    pub fn new(peers: &[PeerId]) -> Self {
        let mut harness = Self::syncing();
        harness.relay.set_synced(harness.now, true);
        for peer in peers {
            harness.connect(*peer, Role::Stranger, true);
        }
        harness
    }

    pub fn syncing() -> Self {
        Self {
            relay: Relay::new(7, &Policy::core()),
            now: Now { instant: Now::default().instant, unix: 1_700_000_000 },
            sent: Vec::new(),
            jobs: VecDeque::new(),
            dropped: Vec::new(),
            told: Vec::new(),
            compares: true,
        }
    }

    pub fn connect(&mut self, peer: PeerId, role: Role, wtxid_relay: bool) {
        self.relay.handle_peer_ready(self.now, peer, &info(wtxid_relay), role);
        self.collect();
    }

    pub fn leaves(&mut self, peer: PeerId) {
        self.relay.handle_peer_gone(self.now, peer);
        self.collect();
    }

    pub fn announces(&mut self, peer: PeerId, tx: &Unconfirmed) {
        self.announces_all(peer, &[Inventory::wtxid(tx.wtxid())]);
    }

    pub fn announces_all(&mut self, peer: PeerId, entries: &[Inventory]) {
        self.relay.handle_inv(self.now, peer, entries);
        self.collect();
    }

    pub fn sends(&mut self, peer: PeerId, tx: &Unconfirmed) {
        self.relay.handle_tx(self.now, peer, tx.raw());
        self.collect();
    }

    pub fn has_not(&mut self, peer: PeerId, entry: Inventory) {
        self.relay.handle_not_found(self.now, peer, &[entry]);
        self.collect();
    }

    /// The oldest job, which must be this transaction alone, is judged.
    pub fn judge(&mut self, tx: &Unconfirmed, verdict: Verdict) {
        let job = self.jobs.pop_front().expect("a job");
        assert_eq!((job.tx.wtxid(), &job.child), (tx.wtxid(), &None));
        self.relay.handle_verdict(self.now, job.id, verdict, None);
        self.collect();
    }

    /// The oldest job, which must be this package, is judged.
    pub fn judge_package(&mut self, pair: [&Unconfirmed; 2], verdicts: [Verdict; 2]) {
        let job = self.jobs.pop_front().expect("a job");
        let child = job.child.expect("a package");
        assert_eq!([job.tx.wtxid(), child.wtxid()], pair.map(Unconfirmed::wtxid));
        let [parent, child] = verdicts;
        self.relay.handle_verdict(self.now, job.id, parent, Some(child));
        self.collect();
    }

    /// The mempool tells what came and what left.
    pub fn mempool(&mut self, added: &[&Unconfirmed], removed: &[(&Unconfirmed, Removal)]) {
        let changes = Changes {
            added: added.iter().map(|tx| entry(tx)).collect(),
            removed: removed.iter().map(|(tx, why)| (entry(tx), *why)).collect(),
            flipped: Vec::new(),
        };
        self.relay.handle_mempool(self.now, &changes);
        self.collect();
    }

    /// Lets time pass, with each timer at its moment.
    pub fn advance(&mut self, wait: Duration) {
        let end = self.now.instant + wait;
        while let Some(due) = self.relay.next_timeout()
            && due <= end
        {
            assert!(due >= self.now.instant, "a timer in the past would keep the loop busy");
            self.now = self.now.after(due - self.now.instant);
            self.relay.handle_timeout(self.now);
            self.collect();
            assert!(self.relay.next_timeout().is_none_or(|next| next > due), "a timer is due once");
        }
        self.now = self.now.after(end - self.now.instant);
    }

    /// What the peer was sent since this was last asked.
    pub fn sent(&mut self, peer: PeerId) -> Vec<Message> {
        let (of_peer, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == peer);
        self.sent = rest;
        let of_peer: Vec<(PeerId, Message)> = of_peer;
        of_peer.into_iter().map(|(_, message)| message).collect()
    }

    /// What the peer was asked for since this was last asked; other messages to it are forgotten.
    pub fn asked(&mut self, peer: PeerId) -> Vec<Inventory> {
        let get_data = |message| match message {
            Message::GetData(entries) => {
                assert!((1..=1_000).contains(&entries.len()));
                Some(entries)
            }
            _ => None,
        };
        self.sent(peer).into_iter().filter_map(get_data).flatten().collect()
    }

    /// What wallets, the disk and the operator were told since this was last asked.
    pub fn told(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.told)
    }

    pub fn dropped(&mut self) -> Vec<(PeerId, Misbehavior)> {
        std::mem::take(&mut self.dropped)
    }

    pub fn collect(&mut self) {
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Send(peer, message) => self.sent.push((peer, message)),
                Output::Admit(job) => self.jobs.push_back(job),
                Output::Drop { peer, why } => self.dropped.push((peer, why)),
                other => self.told.push(other),
            }
        }
        if self.compares {
            self.relay.hold_invariants();
        }
    }
}

/// Asked for by wtxid.
pub fn wtxid_of(tx: &Unconfirmed) -> Inventory {
    Inventory::wtxid(tx.wtxid())
}

/// Asked for by txid.
pub fn txid_of(tx: &Unconfirmed) -> Inventory {
    Inventory::witness_tx(tx.txid())
}

/// Announcements of transactions that nobody has.
pub fn nothings(first: u32, count: u32) -> Vec<Inventory> {
    let hash = |number: u32| bitcoin::hashes::sha256d::Hash::hash(&number.to_le_bytes());
    (first..first + count)
        .map(|number| Inventory { kind: InventoryKind::WtxidTx, hash: hash(number) })
        .collect()
}
