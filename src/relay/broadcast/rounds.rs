//! To whom a transaction is handed, round by round, and what they are asked afterwards.

use super::record::{Broadcast, Contact};
use super::{
    BroadcastError, Broadcasts, FIRST_PEERS, FIRST_PROBE, FeeRate, Instant, Inventory, MORE_AFTER, Message,
    Output, PROBE_FOR, PeerId, PrivateState, Way, Wtxid, next_wait,
};

impl Broadcasts {
    /// Hands it out, to others than before where there are any.
    pub(super) fn begin_round(&mut self, now: Instant, key: Wtxid, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        broadcast.began = now;
        broadcast.next_round = now + next_wait(broadcast.report.is_echoed, rng);
        let is_unknown = broadcast.evidence().is_none();
        if is_unknown {
            broadcast.unseen_at = Some(now + PROBE_FOR);
        }
        if broadcast.is_private() && self.private.state() != PrivateState::Off {
            // Private connections have rounds of their own, and after the echo there are none.
            if is_unknown {
                self.private.add(now, key, rng);
            }
            return;
        }
        broadcast.is_delivered = false;
        if is_unknown {
            broadcast.more_at = Some(now + MORE_AFTER);
        }
        self.hand_out(now, key, FIRST_PEERS, rng);
    }

    /// Hands it to the next in the order of how little it tells about us; `count` is of strangers.
    pub(super) fn hand_out(&mut self, now: Instant, key: Wtxid, count: usize, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get(&key) else { return };
        let state = self.private.state();
        if broadcast.is_private() && state != PrivateState::Off {
            return;
        }
        let trusted = self.new_takers(broadcast, true);
        // What was shown to strangers over connections of ours is no secret any more.
        let was_relayed = matches!(broadcast.report.way, Some(Way::Relay { .. }));
        if !trusted.is_empty() {
            self.set_way(key, if was_relayed { None } else { Some(Way::Trusted) });
            self.send(now, key, trusted, rng);
        } else if state == PrivateState::Ready && !was_relayed {
            self.set_way(key, Some(Way::Private));
            self.private.add(now, key, rng);
        } else {
            let strangers = self.choose(broadcast, count, rng);
            let no_addresses = state == PrivateState::NoAddresses;
            self.set_way(key, (!was_relayed).then_some(Way::Relay { no_addresses }));
            self.send(now, key, strangers, rng);
        }
    }

    /// Another way, if any. What becomes a secret, or is one no longer, is said.
    fn set_way(&mut self, key: Wtxid, way: Option<Way>) {
        let Some(broadcast) = self.broadcasts.get_mut(&key).filter(|_| way.is_some()) else { return };
        let was_secret = broadcast.is_secret();
        broadcast.report.way = way;
        if broadcast.is_secret() != was_secret {
            self.secrets.extend(broadcast.secrecy());
            self.outputs.push_back(Output::Note { wtxid: key, kept: broadcast.kept() });
        }
    }

    /// Peers that can judge it and were not sent it.
    fn new_takers(&self, broadcast: &Broadcast, is_trusted: bool) -> Vec<PeerId> {
        let is_new = |peer: &PeerId| !broadcast.contacts.contains_key(peer);
        let able = self.takers.iter().filter(|(_, taker)| taker.is_able() && taker.is_trusted == is_trusted);
        able.map(|(peer, _)| *peer).filter(is_new).collect()
    }

    fn choose(&self, broadcast: &Broadcast, count: usize, rng: &mut fastrand::Rng) -> Vec<PeerId> {
        let mut strangers = self.new_takers(broadcast, false);
        if strangers.is_empty() {
            // All had it before; a node that was restarted may have lost it.
            let able = self.takers.iter().filter(|(_, taker)| taker.is_able());
            strangers = able.map(|(peer, _)| *peer).collect();
        }
        rng.shuffle(&mut strangers);
        let pays = |peer: &PeerId| {
            let filter = self.takers.get(peer).map_or(FeeRate(0), |taker| taker.fee_filter);
            broadcast.entries.iter().all(|entry| entry.fee.to_sat() >= filter.fee(entry.vsize))
        };
        // A peer whose filter it does not pass would likely refuse it.
        strangers.sort_by_key(|peer| !pays(peer));
        strangers.truncate(count);
        strangers
    }

    fn send(&mut self, now: Instant, key: Wtxid, chosen: Vec<PeerId>, rng: &mut fastrand::Rng) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        for peer in chosen {
            for entry in &broadcast.entries {
                self.outputs.push_back(Output::Send(peer, Message::Tx(entry.raw.clone())));
                self.sent.push((peer, entry.clone()));
            }
            let ping = rng.u64(1..);
            self.outputs.push_back(Output::Send(peer, Message::Ping(ping)));
            self.pings.insert((peer, ping), key);
            let before = broadcast.contacts.insert(
                peer,
                Contact {
                    since: now,
                    ping,
                    is_delivered: false,
                    is_asking: false,
                    is_accepted: false,
                    probes: 0,
                    next_probe: Some(now + FIRST_PROBE),
                },
            );
            match before {
                Some(before) => {
                    self.pings.remove(&(peer, before.ping));
                }
                None => broadcast.report.sent += 1,
            }
        }
    }

    /// Asks those who are due whether they took it.
    pub(super) fn probe(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        let Some(last) = broadcast.entries.last() else { return };
        for (peer, contact) in &mut broadcast.contacts {
            if contact.next_probe.is_none_or(|at| at > now) {
                continue;
            }
            let by_wtxid = self.takers.get(peer).is_some_and(|taker| taker.wtxid_relay);
            let asked =
                if by_wtxid { Inventory::wtxid(last.wtxid) } else { Inventory::witness_tx(last.txid) };
            self.outputs.push_back(Output::Send(*peer, Message::GetData(vec![asked])));
            contact.probes += 1;
            let next = now + FIRST_PROBE * (1 << contact.probes.min(2));
            contact.next_probe = (next < contact.since + PROBE_FOR).then_some(next);
        }
    }

    pub(super) fn tell_unseen(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        if broadcast.unseen_at.is_none_or(|at| at > now) {
            return;
        }
        broadcast.unseen_at = None;
        if broadcast.evidence().is_none() && !broadcast.report.is_unseen {
            broadcast.report.is_unseen = true;
            self.outputs.push_back(Output::Unseen(broadcast.report));
        }
    }

    /// Answers what can be answered, and sets the timer.
    pub(super) fn settle(&mut self, now: Instant, key: Wtxid) {
        let Some(broadcast) = self.broadcasts.get_mut(&key) else { return };
        let evidence = broadcast.evidence();
        if evidence.is_some() {
            broadcast.more_at = None;
            broadcast.unseen_at = None;
            broadcast.report.is_unseen = false;
        }
        for contact in broadcast.contacts.values_mut() {
            if contact.is_accepted || broadcast.report.is_echoed {
                contact.next_probe = None;
            }
        }
        let (is_kept, sign) = (broadcast.is_kept, broadcast.sign());
        broadcast.ids.retain(|(id, by)| {
            let result = match evidence {
                Some(evidence) if is_kept => Ok(evidence),
                _ if *by > now => return true,
                _ if !is_kept => Err(BroadcastError::NotKept),
                _ => sign.ok_or(BroadcastError::NotDelivered),
            };
            self.outputs.push_back(Output::Broadcast { id: *id, result });
            false
        });
        if let Some(timer) = broadcast.timer.take() {
            self.timers.remove(&(timer, key));
        }
        let due = broadcast.due();
        broadcast.timer = Some(due);
        self.timers.insert((due, key));
    }
}
