//! Addresses and bytes as hexadecimal strings in JSON.
//!
//! A JSON number loses the low bits of a kernel address in most readers, so values are strings.
//! Main items: the serde modules [`number`], [`option`] and [`bytes`].

use std::fmt::Write as _;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crash::Registers;

fn parse<E: Error>(text: &str) -> Result<u64, E> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| E::custom(format_args!("'{text}' is not a hexadecimal number")))
}

/// A number as `"0x1f"`.
pub mod number {
    use super::*;

    /// Writes `"0x1f"`.
    pub fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:#x}"))
    }

    /// Reads it back.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(from)?)
    }
}

/// A number or nothing.
pub mod option {
    use super::*;

    /// Writes `"0x1f"` or null.
    pub fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(v) => number::serialize(v, to),
            None => to.serialize_none(),
        }
    }

    /// Reads it back.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(from)?.map(|t| parse(&t)).transpose()
    }
}

/// Bytes as `"48 83 39 00"`.
pub mod bytes {
    use super::*;

    /// Writes two digits a byte with blanks between.
    pub fn serialize<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(value.len() * 3);
        for (i, byte) in value.iter().enumerate() {
            let blank = if i == 0 { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{blank}{byte:02x}");
        }
        to.serialize_str(&text)
    }

    /// Reads it back.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        text.split_ascii_whitespace()
            .map(|w| {
                u8::from_str_radix(w, 16)
                    .map_err(|_| D::Error::custom(format_args!("'{w}' is not a byte")))
            })
            .collect()
    }
}

impl Serialize for Registers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &format_args!("{value:#x}"))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Registers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Registers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of register names to hexadecimal strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Registers, A::Error> {
                let mut registers = Vec::new();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    registers.push((name, parse(&text)?));
                }
                Ok(Registers(registers))
            }
        }
        from.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use crate::crash::{CodeBytes, CrashReport, Frame, Registers, Trace};

    #[test]
    fn a_report_survives_json() {
        let mut report =
            CrashReport { title: "general protection fault in f".into(), ..Default::default() };
        report.registers = Registers(vec![("rsp".into(), u64::MAX), ("rax".into(), 0)]);
        report.code_bytes = Some(CodeBytes {
            bytes: vec![0x48, 0x0f],
            trap: Some(1),
            unit: 1,
            ..Default::default()
        });
        let mut frame = Frame { reliable: true, ..Default::default() };
        frame.place.function = Some("f".into());
        frame.place.offset = Some(0x9d);
        report.traces.push(Trace { frames: vec![frame], ..Default::default() });
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""registers":{"rsp":"0xffffffffffffffff","rax":"0x0"}"#), "{json}");
        assert!(json.contains(r#""bytes":"48 0f""#), "{json}");
        assert_eq!(serde_json::from_str::<CrashReport>(&json).unwrap(), report);
    }
}
