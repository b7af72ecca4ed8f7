//! Steps of a proof: what they promise, in words.

use crate::recipe::{Proof, Step};

/// What a step promises, in one sentence without its full stop.
pub fn words(proof: &Proof) -> String {
    let kernel = &proof.kernel;
    match &proof.step {
        Step::Explain { finding, subject, suspect, names, looks_like } => {
            let names = if names.is_empty() { String::new() } else { format!(" {names}") };
            let value =
                if looks_like.is_empty() { String::new() } else { format!(" with a {looks_like}") };
            format!(
                "explain says of {kernel}: {} ({finding}), {subject}{value}, suspect {suspect}{names}",
                finding.id()
            )
        }
        Step::Check { culprits } if culprits.is_empty() => {
            format!("check accuses nobody in {kernel}")
        }
        Step::Check { culprits } => {
            format!("check accuses {} in {kernel} and nobody else", culprits.join(", "))
        }
        Step::Testcase { culprit, .. } => {
            format!("check writes a test for the compiler out of {culprit} of {kernel}")
        }
        Step::Emulation { differs: true, .. } => {
            format!("flags that {kernel} emulates for a guest of its are not the CPU's")
        }
        Step::Emulation { differs: false, .. } => {
            format!("flags that {kernel} emulates for a guest of its are the CPU's")
        }
        Step::Prove { register, broken, becomes, call } => {
            let call = call.as_deref().map_or("the calls that check or explain name", |c| c);
            match (broken, becomes.is_empty()) {
                (true, true) => format!("{register} is lost at {call} in the running {kernel}"),
                (true, false) => {
                    format!("{register} becomes the {becomes} at {call} in the running {kernel}")
                }
                (false, _) => format!("{register} comes back at {call} in the running {kernel}"),
            }
        }
    }
}
