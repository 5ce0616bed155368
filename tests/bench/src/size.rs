//! Sizes as people write them: `50MB`, `5GB`, or plain bytes; powers of a thousand.

use anyhow::{Context, bail};

/// Bytes that a text such as `548MB` stands for.
pub fn parse(text: &str) -> anyhow::Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().with_context(|| format!("{text} is no size"))?;
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => bail!("{text}: the unit is none of B, KB, MB, GB"),
    };
    number.checked_mul(factor).with_context(|| format!("{text} is too much"))
}
