//! The check of an image as SARIF 2.1.0, the form that code scanning services read.
//!
//! One result for each finding; places are named by symbol and address, since an image has no lines of its own. Main function:
//! [`sarif`].

use kolumbo_case::contract::{Confidence, ContractSource, Finding, Place, Report};
use serde::Serialize;

#[derive(Serialize)]
struct Log<'r> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'r>; 1],
}

#[derive(Serialize)]
struct Run<'r> {
    tool: Tool,
    artifacts: Vec<Artifact>,
    results: Vec<ResultEntry<'r>>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    rules: [Rule; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Message,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
struct Artifact {
    location: ArtifactLocation,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultEntry<'r> {
    rule_id: &'r str,
    level: &'static str,
    message: Message,
    locations: [Location<'r>; 1],
    related_locations: Vec<Location<'r>>,
    partial_fingerprints: Fingerprint,
}

#[derive(Serialize)]
struct Fingerprint {
    #[serde(rename = "culpritAndRegisters/v1")]
    culprit: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location<'r> {
    physical_location: Physical,
    logical_locations: [Logical<'r>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: ArtifactLocation,
    address: Address,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    /// Left out where it does not fit into 63 bits: readers hold it in a signed word.
    #[serde(skip_serializing_if = "Option::is_none")]
    absolute_address: Option<i64>,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logical<'r> {
    fully_qualified_name: &'r str,
    kind: &'static str,
}

fn rule(id: &'static str, text: &str) -> Rule {
    Rule { id, short_description: Message { text: text.to_owned() } }
}

/// A value that serialises as a SARIF 2.1.0 log.
pub fn sarif(report: &Report) -> impl Serialize + '_ {
    Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "kolumbo",
                    version: env!("CARGO_PKG_VERSION"),
                    rules: [
                        rule("K0501", "A function destroys a register that its callers rely on"),
                        rule("K0502", "A function destroys what its stated contract preserves"),
                    ],
                },
            },
            artifacts: report
                .images
                .iter()
                .enumerate()
                .filter(|(number, image)| !report.images[..*number].contains(image))
                .map(|(_, image)| Artifact { location: ArtifactLocation { uri: uri(image) } })
                .collect(),
            results: report.findings.iter().map(result).collect(),
        }],
    }
}

fn result(finding: &Finding) -> ResultEntry<'_> {
    let by = match &finding.contract {
        ContractSource::Inferred { sites, of } => format!("{sites} of {of} calls rely on it"),
        ContractSource::Declared { name, source, .. } => format!("contract \"{name}\" of {source}"),
    };
    ResultEntry {
        rule_id: &finding.code,
        level: if finding.confidence == Confidence::Low { "warning" } else { "error" },
        message: Message {
            text: format!("{} destroys {}: {by}", finding.culprit, finding.destroys.join(" ")),
        },
        locations: [location(&finding.instruction, None)],
        related_locations: finding
            .sites
            .iter()
            .enumerate()
            // The standard wants each once; a call that suffers in two ways is named at its first.
            .filter(|(number, site)| {
                !finding.sites[..*number].iter().any(|other| {
                    other.call.address == site.call.address && other.relies == site.relies
                })
            })
            .map(|(_, site)| {
                location(&site.call, Some(format!("relies on {}", site.relies.join(" "))))
            })
            .collect(),
        partial_fingerprints: Fingerprint {
            culprit: format!("{}:{}", finding.culprit, finding.destroys.join("+")),
        },
    }
}

fn location(place: &Place, text: Option<String>) -> Location<'_> {
    Location {
        physical_location: Physical {
            artifact_location: ArtifactLocation { uri: uri(&place.image) },
            address: Address {
                absolute_address: i64::try_from(place.address).ok(),
                name: format!("{:#x}", place.address),
            },
        },
        logical_locations: [Logical { fully_qualified_name: &place.symbol, kind: "function" }],
        message: text.map(|text| Message { text }),
    }
}

/// A path as a URI reference: RFC 3986, section 2.1.
fn uri(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut uri, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
        uri
    })
}
