//! Sizes and times as people write them.

/// Guest memory in bytes: `512` (MiB, as QEMU reads it), `512m`, `1G`.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is not a size"))?;
    let unit = match text[digits.len()..].to_ascii_lowercase().trim_end_matches("ib") {
        "k" => 1 << 10,
        "" | "m" | "mb" => 1 << 20,
        "g" | "gb" => 1u64 << 30,
        "t" | "tb" => 1u64 << 40,
        _ => return Err(format!("'{text}' has an unknown unit; use k, m, g or t")),
    };
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' is too large"))
}

/// A time in milliseconds: `90` (seconds, as timeout(1) reads it), `90s`, `3m`, `1m30s`, `500ms`.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a time; write 90s, 3m or 1m30s");
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000).ok_or_else(wrong);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = &after[end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_qemus_way() {
        for (text, bytes) in [
            ("512", 512 << 20),
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("64k", 65536),
        ] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-1", "99999999999t"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_in_timeouts_way() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            ("3m", 180_000),
            ("1m30s", 90_000),
            ("500ms", 500),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "m", "3x", "3m4", "-1s", "99999999999999999999h"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
