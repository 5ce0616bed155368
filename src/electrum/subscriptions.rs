//! What a session wants to hear of, and what it was last told.
//!
//! Every subscription is reported once as an [`Interest`] and taken back once, so that the shell can wake only the
//! sessions that a change concerns.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::{BlockHash, OutPoint, Txid};
use chainstore::{ScriptHash, ScriptKey};

use crate::query::{OutpointAnswer, OutpointStatus, Status, Touched};

/// How a session is told of a new tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderForm {
    /// `{height, hex}`.
    Raw,
    /// In words, as until 1.3.
    InWords,
}

/// A change that concerns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interest {
    Script(ScriptKey),
    Transaction(Txid),
}

/// A change of what a session is interested in. Interests count: one said twice is given up twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterestChange {
    Begins(Interest),
    Ends(Interest),
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    headers: Option<HeaderForm>,
    /// Heights alone, in 1.0.
    numblocks: bool,
    /// The tip last told.
    tip: Option<BlockHash>,
    /// Status last told. Ordered, so that notifications come in the same order every time.
    scripts: BTreeMap<ScriptHash, Option<Status>>,
    /// The same for subscriptions by address, until 1.2, with the address as the wallet wrote it.
    addresses: BTreeMap<ScriptHash, (Box<str>, Option<Status>)>,
    outpoints: BTreeMap<OutPoint, OutpointTold>,
    changes: VecDeque<InterestChange>,
}

/// What a session was last told of an outpoint.
#[derive(Clone, Copy, Debug)]
struct OutpointTold {
    status: OutpointStatus,
    script: Option<ScriptKey>,
}

impl Subscriptions {
    pub(super) fn subscribe_headers(&mut self, form: HeaderForm, told: BlockHash) {
        self.headers = Some(form);
        self.tip = Some(told);
    }

    pub(super) fn subscribe_numblocks(&mut self, told: BlockHash) {
        self.numblocks = true;
        self.tip = Some(told);
    }

    pub(super) fn headers(&self) -> Option<HeaderForm> {
        self.headers
    }

    pub(super) fn numblocks(&self) -> bool {
        self.numblocks
    }

    /// Whether a tip is news to the session; from now on it is not.
    pub(super) fn tell_tip(&mut self, tip: BlockHash) -> bool {
        (self.headers.is_some() || self.numblocks) && self.tip.replace(tip) != Some(tip)
    }

    /// Subscriptions that count towards limits: all but those to the tip.
    pub(super) fn count(&self) -> usize {
        self.scripts.len() + self.addresses.len() + self.outpoints.len()
    }

    pub(super) fn has_script(&self, script: &ScriptHash) -> bool {
        self.scripts.contains_key(script)
    }

    pub(super) fn has_address(&self, script: &ScriptHash) -> bool {
        self.addresses.contains_key(script)
    }

    pub(super) fn has_outpoint(&self, outpoint: &OutPoint) -> bool {
        self.outpoints.contains_key(outpoint)
    }

    pub(super) fn subscribe_script(&mut self, script: ScriptHash, told: Option<Status>) {
        if self.scripts.insert(script, told).is_none() {
            self.begins(Interest::Script(script.key()));
        }
    }

    pub(super) fn subscribe_address(&mut self, script: ScriptHash, address: &str, told: Option<Status>) {
        if self.addresses.insert(script, (address.into(), told)).is_none() {
            self.begins(Interest::Script(script.key()));
        }
    }

    /// Whether there was a subscription.
    pub(super) fn unsubscribe_script(&mut self, script: &ScriptHash) -> bool {
        let was = self.scripts.remove(script).is_some();
        if was {
            self.ends(Interest::Script(script.key()));
        }
        was
    }

    /// The same for an address.
    pub(super) fn unsubscribe_address(&mut self, script: &ScriptHash) -> bool {
        let was = self.addresses.remove(script).is_some();
        if was {
            self.ends(Interest::Script(script.key()));
        }
        was
    }

    pub(super) fn subscribe_outpoint(&mut self, outpoint: OutPoint, told: &OutpointAnswer) {
        if !self.outpoints.contains_key(&outpoint) {
            self.begins(Interest::Transaction(outpoint.txid));
        }
        self.learn_outpoint(outpoint, told);
    }

    /// Keeps a status as told. Where the script became known, or another, its changes are heard of from now on.
    fn learn_outpoint(&mut self, outpoint: OutPoint, answer: &OutpointAnswer) {
        let told = OutpointTold { status: answer.status, script: answer.script };
        let before = self.outpoints.insert(outpoint, told).and_then(|told| told.script);
        if before != answer.script {
            before.into_iter().for_each(|script| self.ends(Interest::Script(script)));
            answer.script.into_iter().for_each(|script| self.begins(Interest::Script(script)));
        }
    }

    /// Whether there was a subscription.
    pub(super) fn unsubscribe_outpoint(&mut self, outpoint: &OutPoint) -> bool {
        let Some(told) = self.outpoints.remove(outpoint) else { return false };
        self.ends(Interest::Transaction(outpoint.txid));
        told.script.into_iter().for_each(|script| self.ends(Interest::Script(script)));
        true
    }

    /// Whether a status is news to the session; from now on it is not.
    pub(super) fn tell_script(&mut self, script: &ScriptHash, status: Option<Status>) -> bool {
        self.scripts.get_mut(script).is_some_and(|told| std::mem::replace(told, status) != status)
    }

    /// The same for an address, which comes back if so.
    pub(super) fn tell_address(&mut self, script: &ScriptHash, status: Option<Status>) -> Option<&str> {
        let (address, told) = self.addresses.get_mut(script)?;
        (std::mem::replace(told, status) != status).then_some(address)
    }

    /// The same for an outpoint.
    pub(super) fn tell_outpoint(&mut self, outpoint: &OutPoint, answer: &OutpointAnswer) -> bool {
        let Some(told) = self.outpoints.get(outpoint) else { return false };
        let news = told.status != answer.status;
        self.learn_outpoint(*outpoint, answer);
        news
    }

    /// The subscribed scripts among those touched, in order, each once whatever it is subscribed by.
    pub(super) fn touched_scripts(&self, touched: &Touched) -> Vec<ScriptHash> {
        let mut found = touched_among(&self.scripts, touched);
        if !self.addresses.is_empty() {
            found.extend(touched_among(&self.addresses, touched));
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// The subscribed outpoints that what was touched may concern, in order.
    pub(super) fn touched_outpoints(&self, touched: &Touched) -> Vec<OutPoint> {
        let concerned = |(outpoint, told): &(&OutPoint, &OutpointTold)| {
            touched.has_transaction(&outpoint.txid)
                || told.script.is_some_and(|script| touched.has_script(&script))
        };
        self.outpoints.iter().filter(concerned).map(|(outpoint, _)| *outpoint).collect()
    }

    /// What the session became interested in or no longer is, in order.
    pub(super) fn next_change(&mut self) -> Option<InterestChange> {
        self.changes.pop_front()
    }

    /// All that it is interested in, each as often as it was said.
    pub(super) fn interests(&self) -> impl Iterator<Item = Interest> {
        let scripts = self.scripts.keys().chain(self.addresses.keys()).map(|script| script.key());
        let of_outpoints = self.outpoints.values().filter_map(|told| told.script);
        let transactions = self.outpoints.keys().map(|outpoint| Interest::Transaction(outpoint.txid));
        scripts.chain(of_outpoints).map(Interest::Script).chain(transactions)
    }

    fn begins(&mut self, interest: Interest) {
        self.changes.push_back(InterestChange::Begins(interest));
    }

    fn ends(&mut self, interest: Interest) {
        self.changes.push_back(InterestChange::Ends(interest));
    }
}

fn touched_among<T>(subscribed: &BTreeMap<ScriptHash, T>, touched: &Touched) -> Vec<ScriptHash> {
    match touched {
        Touched::Everything => subscribed.keys().copied().collect(),
        // A wallet of a few scripts at a block of thousands, or the other way round: walk the shorter.
        Touched::Only { scripts, .. } if scripts.len() < subscribed.len() => scripts
            .iter()
            .flat_map(|key| subscribed.range(script_range(*key)))
            .map(|(script, _)| *script)
            .collect(),
        Touched::Only { scripts, .. } => {
            subscribed.keys().filter(|script| scripts.contains(&script.key())).copied().collect()
        }
    }
}

/// All script hashes that have this key.
fn script_range(key: ScriptKey) -> std::ops::RangeInclusive<ScriptHash> {
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    first[..key.0.len()].copy_from_slice(&key.0);
    last[..key.0.len()].copy_from_slice(&key.0);
    ScriptHash(first)..=ScriptHash(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bitcoin::hashes::Hash as _;
    use chainstore::Height;

    use super::*;
    use crate::query::Whereabouts;

    fn script(byte: u8) -> ScriptHash {
        ScriptHash([byte; 32])
    }

    fn touched(scripts: impl IntoIterator<Item = u8>) -> Touched {
        Touched::Only {
            scripts: scripts.into_iter().map(|byte| script(byte).key()).collect(),
            transactions: BTreeSet::new(),
        }
    }

    #[test]
    fn touched_scripts_are_found_from_either_side() {
        let mut subscriptions = Subscriptions::default();
        for byte in [9, 3, 5, 255, 0] {
            subscriptions.subscribe_script(script(byte), None);
        }
        subscriptions.subscribe_address(script(3), "an address", None);
        subscriptions.subscribe_address(script(4), "another", None);
        assert_eq!(subscriptions.touched_scripts(&touched([5, 255, 77])), [5, 255].map(script));
        let many = touched((2..=255).filter(|byte| *byte != 9));
        assert_eq!(subscriptions.touched_scripts(&many), [3, 4, 5, 255].map(script));
        assert_eq!(subscriptions.touched_scripts(&Touched::Everything).len(), 6);
        assert_eq!(subscriptions.touched_scripts(&Touched::default()), []);
    }

    #[test]
    fn nothing_is_told_twice_or_unasked() {
        let mut subscriptions = Subscriptions::default();
        assert!(!subscriptions.tell_script(&script(1), None), "not subscribed");
        subscriptions.subscribe_script(script(1), None);
        assert!(!subscriptions.tell_script(&script(1), None));
        assert!(subscriptions.tell_script(&script(1), Some(Status::hash(b""))));
        assert!(subscriptions.unsubscribe_script(&script(1)));
        assert!(!subscriptions.unsubscribe_script(&script(1)));
        assert!(!subscriptions.tell_tip(BlockHash::all_zeros()), "not subscribed");
    }

    /// Interests as the shell counts them.
    fn take_changes(subscriptions: &mut Subscriptions, interests: &mut Vec<Interest>) {
        while let Some(change) = subscriptions.next_change() {
            match change {
                InterestChange::Begins(interest) => interests.push(interest),
                InterestChange::Ends(interest) => {
                    let at = interests.iter().position(|known| *known == interest).unwrap();
                    interests.swap_remove(at);
                }
            }
        }
    }

    #[test]
    fn interests_begin_and_end_with_their_subscriptions() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut subscriptions, mut interests) = (Subscriptions::default(), Vec::new());
        for _ in 0..2_000 {
            let which = script(random.u8(0..4));
            let outpoint = OutPoint::new(Txid::from_byte_array([random.u8(0..3); 32]), random.u32(0..2));
            let known = random.bool();
            let status = OutpointStatus::Unspent { funder: Whereabouts::Block(Height(1)) };
            let answer = OutpointAnswer {
                status: if known { status } else { OutpointStatus::Missing },
                script: known.then(|| script(random.u8(0..4)).key()),
                read: 0,
            };
            match random.u8(0..7) {
                0 => subscriptions.subscribe_script(which, None),
                1 => subscriptions.subscribe_address(which, "", None),
                2 => drop(subscriptions.unsubscribe_script(&which)),
                3 => drop(subscriptions.unsubscribe_address(&which)),
                4 => subscriptions.subscribe_outpoint(outpoint, &answer),
                5 => drop(subscriptions.tell_outpoint(&outpoint, &answer)),
                _ => drop(subscriptions.unsubscribe_outpoint(&outpoint)),
            }
            take_changes(&mut subscriptions, &mut interests);
            let mut expected: Vec<Interest> = subscriptions.interests().collect();
            expected.sort_unstable();
            interests.sort_unstable();
            assert_eq!(interests, expected);
        }
    }
}
