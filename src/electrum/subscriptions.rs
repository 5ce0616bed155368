//! What a session wants to hear of, and what it was last told.

use std::collections::BTreeMap;

use bitcoin::BlockHash;
use chainstore::{ScriptHash, ScriptKey};

use crate::query::{Status, Touched};

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Hash of the tip last told.
    headers: Option<BlockHash>,
    /// Status last told. Ordered, so that notifications come in the same order every time.
    scripts: BTreeMap<ScriptHash, Option<Status>>,
}

impl Subscriptions {
    pub(super) fn subscribe_headers(&mut self, told: BlockHash) {
        self.headers = Some(told);
    }

    /// Whether a tip is news to the session; from now on it is not.
    pub(super) fn tell_headers(&mut self, tip: BlockHash) -> bool {
        self.headers.as_mut().is_some_and(|told| std::mem::replace(told, tip) != tip)
    }

    pub(super) fn subscribe_script(&mut self, script: ScriptHash, told: Option<Status>) {
        self.scripts.insert(script, told);
    }

    /// Whether there was a subscription.
    pub(super) fn unsubscribe_script(&mut self, script: &ScriptHash) -> bool {
        self.scripts.remove(script).is_some()
    }

    /// Whether a status is news to the session; from now on it is not.
    pub(super) fn tell_script(&mut self, script: &ScriptHash, status: Option<Status>) -> bool {
        self.scripts.get_mut(script).is_some_and(|told| std::mem::replace(told, status) != status)
    }

    /// The subscribed scripts among those touched, in order.
    pub(super) fn touched(&self, touched: &Touched) -> Vec<ScriptHash> {
        match touched {
            Touched::Everything => self.scripts.keys().copied().collect(),
            // A wallet of a few scripts at a block of thousands, or the other way round: walk the shorter.
            Touched::Scripts(keys) if keys.len() < self.scripts.len() => keys
                .iter()
                .flat_map(|key| self.scripts.range(script_range(*key)))
                .map(|(script, _)| *script)
                .collect(),
            Touched::Scripts(keys) => {
                self.scripts.keys().filter(|script| keys.contains(&script.key())).copied().collect()
            }
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
    use super::*;

    #[test]
    fn touched_scripts_are_found_from_either_side() {
        let script = |byte: u8| ScriptHash([byte; 32]);
        let mut subscriptions = Subscriptions::default();
        for byte in [9, 3, 5, 255, 0] {
            subscriptions.subscribe_script(script(byte), None);
        }
        let few: Touched = [5, 255, 77].map(|byte| script(byte).key()).into_iter().collect();
        let many: Touched =
            (2..=255).step_by(1).filter(|byte| *byte != 9).map(|byte| script(byte).key()).collect();
        assert_eq!(subscriptions.touched(&few), [script(5), script(255)]);
        assert_eq!(subscriptions.touched(&many), [script(3), script(5), script(255)]);
        assert_eq!(subscriptions.touched(&Touched::Everything).len(), 5);
        assert_eq!(subscriptions.touched(&Touched::default()), []);
    }

    #[test]
    fn nothing_is_told_twice_or_unasked() {
        let script = ScriptHash([1; 32]);
        let mut subscriptions = Subscriptions::default();
        assert!(!subscriptions.tell_script(&script, None), "not subscribed");
        subscriptions.subscribe_script(script, None);
        assert!(!subscriptions.tell_script(&script, None));
        assert!(subscriptions.unsubscribe_script(&script));
        assert!(!subscriptions.unsubscribe_script(&script));
    }
}
