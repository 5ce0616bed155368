//! Accounts of what sessions cost: one for each, those of a subnet together.
//!
//! `electrum::Group` counts; here is who shares one, under which lock. The operator's own wallets, known by their
//! address, have none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::lock;
use super::sessions::SessionId;
use crate::electrum::{Group, Prices, Standing, Subnet};
use crate::time::Instant;

/// Groups beyond which those that owe nothing are looked for.
const SWEEP_AT: usize = 64;

/// All groups.
#[derive(Debug)]
pub struct Accounts {
    prices: Prices,
    /// Addresses of the operator's own wallets.
    exempt: Vec<Subnet>,
    /// Sessions that one subnet may have; 0 is any number.
    max_per_subnet: usize,
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    by_subnet: HashMap<Subnet, Arc<Mutex<Group>>>,
    sweep_at: usize,
}

/// The account of one session, closed when dropped.
#[derive(Debug)]
pub struct Account {
    accounts: Arc<Accounts>,
    session: SessionId,
    /// `None` is an exempt session's.
    group: Option<Arc<Mutex<Group>>>,
    now: Instant,
}

impl Accounts {
    pub fn new(prices: Prices, exempt: Vec<Subnet>, max_per_subnet: usize) -> Arc<Self> {
        Arc::new(Self { prices, exempt, max_per_subnet, groups: Mutex::default() })
    }

    /// An account for a new session; `None` where its subnet has as many as it may.
    ///
    /// Private addresses, and sockets that have none, are by themselves: proxies and Tor come from there.
    pub fn open(
        self: &Arc<Self>,
        session: SessionId,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Option<Account> {
        let is_exempt =
            address.is_some_and(|address| self.exempt.iter().any(|subnet| subnet.contains(address)));
        let subnet = address.and_then(|address| self.prices.subnet(address));
        let group = match (is_exempt, subnet) {
            (true, _) => None,
            (false, None) => Some(Arc::default()),
            (false, Some(subnet)) => Some(self.group(subnet, now)),
        };
        if let Some(group) = &group {
            let mut group = lock(group);
            if self.max_per_subnet > 0 && group.sessions() >= self.max_per_subnet {
                return None;
            }
            group.join(session.0, now);
        }
        Some(Account { accounts: self.clone(), session, group, now })
    }

    fn group(&self, subnet: Subnet, now: Instant) -> Arc<Mutex<Group>> {
        let mut groups = lock(&self.groups);
        if groups.by_subnet.len() >= groups.sweep_at {
            groups.by_subnet.retain(|_, group| {
                Arc::strong_count(group) > 1 || !lock(group).is_settled(now, &self.prices)
            });
            groups.sweep_at = (groups.by_subnet.len() * 2).max(SWEEP_AT);
        }
        groups.by_subnet.entry(subnet).or_default().clone()
    }

    /// Of each subnet: numbers of its sessions, what they owe, and what those owe that are gone.
    pub fn groups(&self) -> Vec<(Subnet, Vec<u64>, f64, f64)> {
        let groups = lock(&self.groups);
        let mut all: Vec<_> = groups
            .by_subnet
            .iter()
            .map(|(subnet, group)| {
                let group = lock(group);
                let (cost, retained) = group.costs();
                (*subnet, group.members().collect(), cost, retained)
            })
            .collect();
        all.sort_by_key(|(subnet, ..)| *subnet);
        all
    }
}

impl Account {
    /// Adds what the session was charged; how it stands now.
    pub fn charge(&mut self, now: Instant, cost: f64, subscriptions: usize) -> Standing {
        self.now = now;
        match &self.group {
            None => Standing::default(),
            Some(group) => {
                lock(group).charge(self.session.0, now, cost, subscriptions, &self.accounts.prices)
            }
        }
    }

    /// The session showed a token: what it owed is forgotten, and it owes nothing more.
    pub fn exempt(&mut self) {
        if let Some(group) = self.group.take() {
            lock(&group).forget(self.session.0);
        }
    }

    /// What so many bytes cost.
    pub fn of_bytes(&self, bytes: usize) -> f64 {
        self.accounts.prices.of_bytes(bytes)
    }

    /// What it owes now by itself, for the operator.
    pub fn owes(&self) -> f64 {
        self.group.as_ref().map_or(0.0, |group| lock(group).cost_of(self.session.0))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            lock(group).leave(self.session.0, self.now, &self.accounts.prices);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn accounts(max_per_subnet: usize) -> Arc<Accounts> {
        let exempt = "9.9.9.0/24".parse().unwrap();
        Accounts::new(Prices::default(), vec![exempt], max_per_subnet)
    }

    fn open(accounts: &Arc<Accounts>, session: u64, address: &str) -> Option<Account> {
        accounts.open(SessionId(session), Some(address.parse().unwrap()), Instant::default())
    }

    #[test]
    fn neighbours_share_an_account_and_others_do_not() {
        let accounts = accounts(0);
        let mut first = open(&accounts, 1, "8.8.8.1").unwrap();
        let mut second = open(&accounts, 2, "8.8.8.2").unwrap();
        let mut other = open(&accounts, 3, "8.8.9.1").unwrap();
        let mut alone = open(&accounts, 4, "127.0.0.1").unwrap();
        let mut local = open(&accounts, 5, "127.0.0.1").unwrap();
        let now = Instant::default();
        assert!(first.charge(now, 10_001.0, 0).is_excessive);
        assert!(second.charge(now, 0.0, 0).is_excessive);
        assert!(!other.charge(now, 1.0, 0).is_excessive);
        assert!(alone.charge(now, 10_001.0, 0).is_excessive);
        assert!(!local.charge(now, 1.0, 0).is_excessive);
        let mut own = open(&accounts, 6, "9.9.9.9").unwrap();
        assert!(!own.charge(now, 1e9, 0).is_excessive);
        second.exempt();
        assert!(!second.charge(now, 1e9, 0).is_excessive);
    }

    #[test]
    fn a_subnet_has_so_many_sessions_and_no_more() {
        let accounts = accounts(2);
        let first = open(&accounts, 1, "8.8.8.1").unwrap();
        let _second = open(&accounts, 2, "8.8.8.2").unwrap();
        assert!(open(&accounts, 3, "8.8.8.3").is_none());
        assert!(open(&accounts, 4, "8.8.7.3").is_some());
        drop(first);
        assert!(open(&accounts, 5, "8.8.8.3").is_some());
    }

    #[test]
    fn who_owes_nothing_is_forgotten() {
        let accounts = accounts(0);
        for number in 0..10_000u32 {
            let address = format!("8.{}.{}.1", number / 256, number % 256);
            drop(open(&accounts, number.into(), &address));
        }
        assert!(lock(&accounts.groups).by_subnet.len() <= SWEEP_AT);
        let mut debtor = open(&accounts, 1, "8.8.8.8").unwrap();
        debtor.charge(Instant::from_start(Duration::from_secs(1)), 500.0, 0);
        drop(debtor);
        for number in 0..1_000u32 {
            drop(open(&accounts, number.into(), &format!("9.{}.{}.1", number / 256, number % 256)));
        }
        assert!(accounts.groups().iter().any(|(_, _, _, retained)| *retained > 400.0));
    }
}
