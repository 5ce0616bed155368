//! What a session says of itself: what changed, and noise.

use std::sync::Arc;

use super::super::answer_legacy::tip_in;
use super::super::answer_outpoint::status_object;
use super::super::answer_script::status_value;
use super::context::status_of;
use super::*;

/// Zeros of a ping that is noise: it is then about as long as news of a script.
const NOISE_LEN: usize = 128;
/// Between two pings that are noise, when nothing happens, on the average.
const NOISE_EVERY: Duration = Duration::from_secs(600);
/// Chance of another ping after one.
const MORE_NOISE: f64 = 0.1;

impl Session {
    /// The chain moved. `touched` names at least all that the session is interested in and that differs from the view
    /// given before.
    pub fn handle_view(&mut self, now: Now, view: Arc<View>, touched: &Touched) {
        if self.stage == Stage::Closed {
            return;
        }
        let before = self.view.tip().map(|tip| tip.hash);
        self.view = view;
        let sent = self.outputs.len();
        if !self.has_open_batch() && self.held_back.is_none() {
            self.notify(touched);
        } else {
            self.held_back.get_or_insert_default().merge(touched);
            self.notify_held_back();
        }
        let is_block = self.view.tip().map(|tip| tip.hash) != before;
        if is_block && self.next_noise.is_some() {
            // Who listens should not see from the number of messages whether the block was of interest.
            if self.outputs.len() < sent + 2 {
                self.make_noise();
            }
            while self.random.f64() < MORE_NOISE {
                self.make_noise();
            }
            self.next_noise = None;
            self.plan_noise(now);
        }
    }

    fn has_open_batch(&self) -> bool {
        !self.batches.is_empty() || self.rest.is_some()
    }

    /// An open batch may hold the answer to a subscription, which comes before its notifications.
    pub(super) fn notify_held_back(&mut self) {
        if !self.has_open_batch()
            && let Some(touched) = self.held_back.take()
        {
            self.notify(&touched);
        }
    }

    /// Tells what changed: the tip first, as wallets ask for heights they learn from scripts.
    fn notify(&mut self, touched: &Touched) {
        self.notify_of_tip();
        let told = self.notify_of_scripts(touched).and_then(|()| self.notify_of_outpoints(touched));
        match told {
            Ok(()) => {}
            // A deep reorg: the view that tells of it is on its way.
            Err(error) if error.is_outdated() => self.held_back = Some(touched.clone()),
            Err(error) => {
                // The wallet would wait for news for ever: better that it comes again.
                self.fault(error);
                self.close();
            }
        }
    }

    fn notify_of_tip(&mut self) {
        let view = Arc::clone(&self.view);
        let Some(tip) = view.tip() else { return };
        if !self.subscriptions.tell_tip(tip.hash) {
            return;
        }
        if let Some(form) = self.subscriptions.headers() {
            self.tell("blockchain.headers.subscribe", [tip_in(form, tip)]);
        }
        if self.subscriptions.numblocks() {
            self.tell("blockchain.numblocks.subscribe", [Json::integer(tip.height.0)]);
        }
    }

    fn notify_of_scripts(&mut self, touched: &Touched) -> Result<(), Error> {
        let method = if self.version() >= ProtocolVersion::V1_7 {
            "blockchain.scriptpubkey.subscribe"
        } else {
            "blockchain.scripthash.subscribe"
        };
        for script in self.subscriptions.touched_scripts(touched) {
            let Ok((status, _)) = status_of(&self.server, &self.view, &script)? else {
                // Longer now than is answered. A wallet that comes again is told so.
                self.close();
                return Ok(());
            };
            if self.subscriptions.tell_script(&script, status) {
                self.tell(method, [Json::backwards(script.0), status_value(status)]);
            }
            if let Some(address) = self.subscriptions.tell_address(&script, status).map(Json::text) {
                self.tell("blockchain.address.subscribe", [address, status_value(status)]);
            }
        }
        Ok(())
    }

    fn notify_of_outpoints(&mut self, touched: &Touched) -> Result<(), Error> {
        for outpoint in self.subscriptions.touched_outpoints(touched) {
            let answer = self.view.outpoint(&outpoint)?;
            if self.subscriptions.tell_outpoint(&outpoint, &answer) {
                let place = [Json::hash(outpoint.txid), Json::integer(outpoint.vout)];
                let [txid, index] = place;
                self.tell("blockchain.outpoint.subscribe", [txid, index, status_object(&answer.status)]);
            }
        }
        Ok(())
    }

    fn tell<const PARAMS: usize>(&mut self, method: &str, params: [Json; PARAMS]) {
        self.send(jsonrpc::notification(method, &params));
    }

    /// Decides when the next noise is due, where the wallet's version knows of it.
    pub(super) fn plan_noise(&mut self, now: Now) {
        let knows = self.client.negotiated().is_some_and(|version| version >= ProtocolVersion::V1_7);
        if knows && self.next_noise.is_none() {
            // Waiting times between events that happen at any time alike.
            let factor = -(1.0 - self.random.f64()).ln();
            self.next_noise = Some(now.instant + NOISE_EVERY.mul_f64(factor));
        }
    }

    pub(super) fn make_noise(&mut self) {
        self.tell("server.ping", [Json::text(&"0".repeat(NOISE_LEN))]);
    }
}
