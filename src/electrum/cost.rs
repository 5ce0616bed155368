//! What sessions have cost, and who is made to wait for it.
//!
//! Requests, bytes and errors cost; cost wears off with time. The sessions of one subnet pay together, so that one
//! abuser gains nothing by connecting often; each private address is by itself, as proxies and Tor come from there.
//! Above the soft limit each request waits a little, above the hard limit the next request is the last.
//! Source: ElectrumX 2.0, `SessionBase`, and aiorpcX's `SessionBase.recalc_concurrency`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::HashMap;
use std::time::Duration;

use super::subnet::Subnet;
use crate::time::Instant;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Where requests begin to wait (`COST_SOFT_LIMIT`).
    pub soft_limit: f64,
    /// Where sessions are closed (`COST_HARD_LIMIT`); 0 is never.
    pub hard_limit: f64,
    /// What a request waits next to the hard limit (`REQUEST_SLEEP`).
    pub request_sleep: Duration,
    /// So many requests of a session wait side by side, fewer towards the hard limit (`INITIAL_CONCURRENT`). Ours are
    /// answered one after another; so many of them share one wait instead.
    pub initial_concurrent: u32,
    /// Bytes, sent or received, that cost 1 (`BANDWIDTH_UNIT_COST`).
    pub bandwidth_unit: u32,
    /// Leading bits of an address that make a subnet (`SESSION_GROUP_BY_SUBNET_IPV4`, `_IPV6`).
    pub subnet_v4: u8,
    pub subnet_v6: u8,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            soft_limit: 1_000.0,
            hard_limit: 10_000.0,
            request_sleep: Duration::from_millis(2_500),
            initial_concurrent: 10,
            bandwidth_unit: 5_000,
            subnet_v4: 24,
            subnet_v6: 48,
        }
    }
}

impl Prices {
    /// What so many bytes cost.
    pub fn of_bytes(&self, bytes: usize) -> f64 {
        bytes as f64 / f64::from(self.bandwidth_unit.max(1))
    }

    /// The subnet whose sessions pay together; `None` for an address that is by itself.
    pub fn subnet(&self, address: IpAddr) -> Option<Subnet> {
        let is_private = match address.to_canonical() {
            IpAddr::V4(address) => is_private_v4(address),
            IpAddr::V6(address) => is_private_v6(address),
        };
        (!is_private).then(|| Subnet::of(address, self.subnet_v4, self.subnet_v6))
    }

    fn standing(&self, cost: f64) -> Standing {
        let range = self.hard_limit - self.soft_limit;
        if self.hard_limit <= 0.0 || range <= 0.0 {
            return Standing::default();
        }
        let fraction = ((cost - self.soft_limit) / range).max(0.0);
        let concurrent = ((1.0 - fraction) * f64::from(self.initial_concurrent.max(1))).ceil();
        if concurrent < 1.0 {
            return Standing { wait: Duration::ZERO, is_excessive: true };
        }
        Standing { wait: self.request_sleep.mul_f64(fraction / concurrent), is_excessive: false }
    }
}

/// Not reachable from the internet.
fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified()
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        || address.is_unicast_link_local()
}

/// How a session stands with us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What each request waits before it is looked at.
    pub wait: Duration,
    /// Over the hard limit.
    pub is_excessive: bool,
}

/// Accounts that are counted together.
#[derive(Debug, Default)]
pub struct Group {
    accounts: HashMap<u64, Account>,
    /// What sessions left behind that are gone.
    retained: f64,
    retained_at: Instant,
    /// What all owed together at some time within [`SUM_EVERY`], and has been charged since.
    sum: f64,
    summed_at: Instant,
}

/// How old a sum may be: what wears off meanwhile is next to nothing.
const SUM_EVERY: Duration = Duration::from_secs(1);

/// What one session owes.
#[derive(Clone, Copy, Debug)]
struct Account {
    cost: f64,
    at: Instant,
    subscriptions: usize,
}

impl Account {
    /// Subscriptions go on costing, so more of them wear off slower.
    fn wear_off(&mut self, now: Instant, prices: &Prices) {
        let per_second = prices.hard_limit / (10_000.0 + 5.0 * self.subscriptions as f64);
        self.cost = (self.cost - per_second * (now - self.at).as_secs_f64()).max(0.0);
        self.at = now;
    }
}

impl Group {
    /// A session begins.
    pub fn join(&mut self, session: u64, now: Instant) {
        self.accounts.insert(session, Account { cost: 0.0, at: now, subscriptions: 0 });
    }

    /// A session ends; what it owes stays with its group.
    pub fn leave(&mut self, session: u64, now: Instant, prices: &Prices) {
        if let Some(mut account) = self.accounts.remove(&session) {
            account.wear_off(now, prices);
            self.wear_off(now, prices);
            self.retained += account.cost;
        }
    }

    /// A session ends, or is not counted any more, with all that it owes.
    pub fn forget(&mut self, session: u64) {
        self.accounts.remove(&session);
        self.summed_at = Instant::default();
    }

    /// Adds what a session was charged; how it stands now.
    pub fn charge(
        &mut self,
        session: u64,
        now: Instant,
        cost: f64,
        subscriptions: usize,
        prices: &Prices,
    ) -> Standing {
        if let Some(account) = self.accounts.get_mut(&session) {
            account.wear_off(now, prices);
            account.cost += cost;
            account.subscriptions = subscriptions;
        }
        self.sum += cost;
        if now - self.summed_at >= SUM_EVERY {
            self.wear_off(now, prices);
            self.accounts.values_mut().for_each(|account| account.wear_off(now, prices));
            self.sum = self.retained + self.accounts.values().map(|account| account.cost).sum::<f64>();
            self.summed_at = now;
        }
        prices.standing(self.sum)
    }

    /// What a session owes, for the operator.
    pub fn cost_of(&self, session: u64) -> f64 {
        self.accounts.get(&session).map_or(0.0, |account| account.cost)
    }

    /// What all owe, and those that are gone.
    pub fn costs(&self) -> (f64, f64) {
        (self.accounts.values().map(|account| account.cost).sum(), self.retained)
    }

    pub fn sessions(&self) -> usize {
        self.accounts.len()
    }

    /// Numbers of its sessions, in no order.
    pub fn members(&self) -> impl Iterator<Item = u64> {
        self.accounts.keys().copied()
    }

    /// Whether nothing would be forgotten with it.
    pub fn is_settled(&mut self, now: Instant, prices: &Prices) -> bool {
        self.wear_off(now, prices);
        self.accounts.is_empty() && self.retained == 0.0
    }

    fn wear_off(&mut self, now: Instant, prices: &Prices) {
        let refund = prices.hard_limit / 5_000.0 * (now - self.retained_at).as_secs_f64();
        self.retained = (self.retained - refund).max(0.0);
        self.retained_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: fn() -> Prices = Prices::default;

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn requests_wait_above_the_soft_limit_and_end_at_the_hard_limit() {
        let mut group = Group::default();
        group.join(1, at(10));
        let mut charge = |cost| group.charge(1, at(10), cost, 0, &PRICES());
        assert_eq!(charge(1_000.0), Standing::default());
        // Half way: five side by side, each waiting half of 2.5 s.
        assert_eq!(charge(4_500.0), Standing { wait: Duration::from_millis(250), is_excessive: false });
        let near = charge(4_499.0);
        assert!(near.wait > Duration::from_millis(2_499) && !near.is_excessive, "{near:?}");
        assert!(charge(2.0).is_excessive);
    }

    #[test]
    fn a_hard_limit_of_zero_is_none() {
        let prices = Prices { hard_limit: 0.0, ..PRICES() };
        let mut group = Group::default();
        group.join(1, at(0));
        assert_eq!(group.charge(1, at(0), 1e12, 0, &prices), Standing::default());
    }

    #[test]
    fn neighbours_pay_together_and_after_one_is_gone() {
        let mut group = Group::default();
        (0..20).for_each(|session| group.join(session, at(0)));
        for session in 0..19 {
            let standing = group.charge(session, at(1), 600.0, 0, &PRICES());
            assert_eq!(standing.is_excessive, session >= 16, "{session}");
        }
        (0..19).for_each(|session| group.leave(session, at(2), &PRICES()));
        assert_eq!(group.sessions(), 1);
        assert!(group.charge(19, at(3), 0.0, 0, &PRICES()).is_excessive);
        // 2 a second wear off of what was left behind.
        let standing = group.charge(19, at(3 + 5_200), 0.0, 0, &PRICES());
        assert_eq!(standing, Standing::default());
        group.leave(19, at(5_300), &PRICES());
        assert!(group.is_settled(at(6_300), &PRICES()));
    }

    #[test]
    fn cost_wears_off_slower_with_subscriptions() {
        for (subscriptions, left) in [(0, 4_000.0), (2_000, 4_500.0), (98_000, 4_980.0)] {
            let mut group = Group::default();
            group.join(1, at(0));
            group.charge(1, at(0), 5_000.0, subscriptions, &PRICES());
            group.charge(1, at(1_000), 0.0, subscriptions, &PRICES());
            assert!((group.cost_of(1) - left).abs() < 1.0, "{} of {left}", group.cost_of(1));
        }
    }

    #[test]
    fn subnets_are_those_of_public_addresses() {
        for (address, subnet) in [
            ("8.8.4.4", Some("8.8.4.0/24")),
            ("::ffff:8.8.4.4", Some("8.8.4.0/24")),
            ("2001:4860:4860:1:2::8888", Some("2001:4860:4860::/48")),
            ("127.0.0.1", None),
            ("10.1.2.3", None),
            ("192.168.0.9", None),
            ("169.254.1.1", None),
            ("::1", None),
            ("fe80::1", None),
            ("fd00::1", None),
            ("::ffff:192.168.0.9", None),
        ] {
            let found = PRICES().subnet(address.parse().unwrap()).map(|subnet| subnet.to_string());
            assert_eq!(found.as_deref(), subnet, "{address}");
        }
        let whole = Prices { subnet_v4: 0, subnet_v6: 128, ..PRICES() };
        assert_eq!(whole.subnet("8.8.4.4".parse().unwrap()).unwrap().to_string(), "0.0.0.0/0");
        assert_eq!(whole.subnet("2600::1".parse().unwrap()).unwrap().to_string(), "2600::1/128");
    }
}
