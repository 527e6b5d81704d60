//! Values of flags that have units or ranges: read as people write them.

use crate::operate_args::Limit;

/// Seeds `A..B` without B, or one seed.
pub fn parse_seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("\"{text}\" is not a seed"));
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)?..number(end)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    if range.is_empty() { Err(format!("\"{text}\" holds no seed")) } else { Ok(range) }
}

/// A duration such as `60s`, `5m` or `2h`.
pub fn parse_span(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("\"{text}\" is not a duration such as 60s or 5m"))?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        unit => return Err(format!("unknown unit \"{unit}\": use s, m or h")),
    };
    Ok(std::time::Duration::from_secs(number.saturating_mul(factor)))
}

/// A size such as `4GiB`, or bytes.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("\"{text}\" is not a size such as 4GiB"))?;
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        unit => return Err(format!("unknown unit \"{unit}\": use MiB, GiB or TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("\"{text}\" is too large"))
}

/// A number, or `none`.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let number = text.parse().map_err(|_| "must be a whole number, or \"none\"".to_owned());
    number.map(|number| Limit(Some(number)))
}

/// Memory, or `none`.
pub fn parse_memory_limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { parse_memory(text).map(|bytes| Limit(Some(bytes))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!(parse_memory("4GiB"), Ok(4 << 30));
        assert_eq!(parse_memory("4294967296"), Ok(4 << 30));
        assert!(
            parse_memory("4GB").is_err()
                && parse_memory("x").is_err()
                && parse_memory("99999999TiB").is_err()
        );
        assert_eq!(parse_span("2m").unwrap().as_secs(), 120);
        assert!(parse_span("2d").is_err() && parse_span("").is_err());
    }
}
