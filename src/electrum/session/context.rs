//! What a method sees of its session.

use chainstore::ScriptHash;

use crate::query::{Error, Status, TooLong, View};

use super::super::client::Client;
use super::super::error::RpcError;
use super::super::server::Server;
use super::super::subscriptions::Subscriptions;

/// What a method answers from, and what it may change.
#[derive(Debug)]
pub(in super::super) struct Context<'a> {
    pub(in super::super) server: &'a Server,
    pub(in super::super) view: &'a View,
    pub(in super::super) client: &'a mut Client,
    pub(in super::super) subscriptions: &'a mut Subscriptions,
    /// What the answer counted, in units of its method's cost.
    pub(super) units: usize,
}

impl Context<'_> {
    /// Counts what the method's cost speaks of.
    pub(in super::super) fn count(&mut self, units: usize) {
        self.units = self.units.saturating_add(units);
    }

    pub(in super::super) fn ensure_room_to_subscribe(&self) -> Result<(), RpcError> {
        if self.subscriptions.count() >= self.server.limits.session_subscriptions {
            return Err(RpcError::too_many_subscriptions("this session has as many subscriptions as it may"));
        }
        if !self.server.commons.has_room_to_subscribe() {
            return Err(RpcError::too_many_subscriptions("this server has as many subscriptions as it can"));
        }
        Ok(())
    }

    /// The status of a script, and what it cost to find.
    pub(in super::super) fn status(
        &mut self,
        script: &ScriptHash,
    ) -> Result<Result<Option<Status>, TooLong>, Error> {
        let found = status_of(self.server, self.view, script)?;
        Ok(found.map(|(status, entries)| {
            self.count(entries);
            status
        }))
    }
}

/// The status of a script, computed once for all sessions, and how many entries it stands for.
pub(super) fn status_of(
    server: &Server,
    view: &View,
    script: &ScriptHash,
) -> Result<Result<(Option<Status>, usize), TooLong>, Error> {
    let limit = server.limits.history_entries();
    let unconfirmed = view.unconfirmed(script);
    let Some(room) = limit.checked_sub(unconfirmed.len()) else { return Ok(Err(TooLong)) };
    let before = server.commons.recall(script);
    let known = view.known(script, before, room)?;
    Ok(known.map(|known| {
        server.commons.learn(script, &known);
        (known.status(&unconfirmed), known.entries() + unconfirmed.len())
    }))
}
