//! The limits of what wallets may ask for, and who is exempt.
//!
//! Names, meanings and defaults are ElectrumX's where it has such a setting: `--max-send` is its `MAX_SEND`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::layers::Layers;
use super::{ConfigError, values};
use crate::electrum::{Limits, Prices, Subnet, Token};

/// Settings of sessions with wallets.
#[derive(Clone, Debug, PartialEq)]
pub struct Wallets {
    pub limits: Limits,
    pub prices: Prices,
    /// Subscriptions of all sessions together.
    pub max_subscriptions: usize,
    /// Sessions that one subnet may have; 0 is any number.
    pub max_subnet_sessions: usize,
    /// The operator's own wallets, by where they are.
    pub exempt: Vec<Subnet>,
    /// And by what they show.
    pub tokens: Vec<Token>,
    /// A regular expression that names of clients must not match.
    pub drop_client: Option<String>,
    pub donation_address: String,
    /// Whether what is sent is filled up to a few sizes.
    pub padding: bool,
}

impl Default for Wallets {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            prices: Prices::default(),
            max_subscriptions: 10_000_000,
            max_subnet_sessions: 0,
            exempt: Vec::new(),
            tokens: Vec::new(),
            drop_client: None,
            donation_address: String::new(),
            padding: false,
        }
    }
}

/// No limit of bytes is higher: answers are built in memory.
const MAX_BYTES: usize = 1 << 30;
/// A year, in seconds.
const LONG: u64 = 366 * 86_400;

pub(super) fn wallets(layers: &Layers) -> Result<Wallets, ConfigError> {
    let mut all = Wallets::default();
    let Wallets { limits, prices, .. } = &mut all;
    set(layers, "max-send", Limits::MIN_RESPONSE_BYTES..=MAX_BYTES, &mut limits.response_bytes)?;
    set(layers, "max-recv", 1_000..=MAX_BYTES, &mut limits.request_bytes)?;
    set(layers, "max-batch", 1..=1_000_000, &mut limits.batch)?;
    set(layers, "max-session-subs", 0..=usize::MAX, &mut limits.session_subscriptions)?;
    set_time(layers, "request-timeout", 1..=LONG, Duration::from_secs, &mut limits.request_time)?;
    set_time(layers, "session-timeout", 1..=LONG, Duration::from_secs, &mut limits.session_time)?;
    set_cost(layers, "cost-soft-limit", &mut prices.soft_limit)?;
    set_cost(layers, "cost-hard-limit", &mut prices.hard_limit)?;
    set_time(layers, "request-sleep", 0..=LONG, Duration::from_millis, &mut prices.request_sleep)?;
    set(layers, "initial-concurrent", 1..=1_000_000, &mut prices.initial_concurrent)?;
    set(layers, "bandwidth-unit-cost", 1..=u32::MAX, &mut prices.bandwidth_unit)?;
    set(layers, "session-group-by-subnet-ipv4", 0..=32, &mut prices.subnet_v4)?;
    set(layers, "session-group-by-subnet-ipv6", 0..=128, &mut prices.subnet_v6)?;
    set(layers, "max-subs", 0..=usize::MAX, &mut all.max_subscriptions)?;
    set(layers, "max-subnet-sessions", 0..=usize::MAX, &mut all.max_subnet_sessions)?;
    let exempt = layers.all("exempt-address").iter().map(|given| given.parse(str::parse::<Subnet>));
    all.exempt = exempt.collect::<Result<_, _>>()?;
    let tokens = layers.all("exempt-token").iter().map(|given| given.parse(token));
    all.tokens = tokens.collect::<Result<_, _>>()?;
    all.drop_client = layers.one("drop-client").map(|given| given.parse(pattern)).transpose()?;
    if let Some(given) = layers.one("donation-address") {
        all.donation_address = given.value.clone();
    }
    all.padding = layers.one("padding").map_or(Ok(false), |given| given.parse(values::yes_or_no))?;
    Ok(all)
}

/// Sets what is given, a whole number within a range.
pub(super) fn set<T>(
    layers: &Layers,
    name: &str,
    range: RangeInclusive<T>,
    value: &mut T,
) -> Result<(), ConfigError>
where
    T: Copy + PartialOrd + std::str::FromStr + std::fmt::Display,
{
    if let Some(given) = layers.one(name) {
        *value = given.parse(|text| number(text, &range))?;
    }
    Ok(())
}

pub(super) fn set_time(
    layers: &Layers,
    name: &str,
    range: RangeInclusive<u64>,
    unit: fn(u64) -> Duration,
    value: &mut Duration,
) -> Result<(), ConfigError> {
    let mut units = 0;
    set(layers, name, range, &mut units)?;
    if layers.one(name).is_some() {
        *value = unit(units);
    }
    Ok(())
}

fn set_cost(layers: &Layers, name: &str, value: &mut f64) -> Result<(), ConfigError> {
    let mut cost = 0_u32;
    set(layers, name, 0..=u32::MAX, &mut cost)?;
    if layers.one(name).is_some() {
        *value = f64::from(cost);
    }
    Ok(())
}

fn number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + PartialOrd + std::str::FromStr + std::fmt::Display,
{
    let (least, most) = (range.start(), range.end());
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("is no whole number from {least} to {most}"))
}

fn token(text: &str) -> Result<Token, String> {
    /// Fewer could be guessed.
    const LEAST: usize = 16;
    if text.len() < LEAST {
        return Err(format!("is too short for a secret: give {LEAST} characters or more"));
    }
    Ok(Token::new(text.into()))
}

fn pattern(text: &str) -> Result<String, String> {
    regex::Regex::new(text).map_err(|error| format!("is no regular expression: {error}"))?;
    Ok(text.into())
}
