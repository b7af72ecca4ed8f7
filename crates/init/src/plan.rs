//! The plan: what init is to do in the guest, as bytes for [`words::PLAN_PATH`].
//!
//! Decides how a list of jobs is written so that init can read it without an allocator: a sequence
//! of NUL-terminated fields, each job a word and its fields. Modules come first, in order.

use crate::words;

/// What init does between its first and its last word. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Modules, loaded in this order.
    pub modules: Vec<PlannedModule>,
    /// The program to run after the modules.
    pub exec: Option<PlannedExec>,
}

/// One module to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedModule {
    /// Absolute path in the initramfs.
    pub path: String,
    /// Module parameters, as `insmod` takes them: `a=1 b=2`.
    pub parameters: String,
}

/// The program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedExec {
    /// Absolute path in the initramfs.
    pub path: String,
    /// Arguments; the first is the name under which the program runs.
    pub arguments: Vec<String>,
}

/// Why a plan cannot be handed to init.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A field holds a NUL byte.
    #[error(
        "handing {what} to the guest: {value:?} holds a NUL byte, which no program can be given"
    )]
    Nul {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// Too many arguments.
    #[error("handing arguments to the guest: {count} are given, init passes at most {limit}")]
    Arguments {
        /// How many there are, the program's name included.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Too many bytes.
    #[error(
        "handing the plan to the guest: it is {size} bytes long, init reads at most {limit}; put long arguments into a file"
    )]
    TooLong {
        /// Bytes of the plan.
        size: usize,
        /// Bytes that init reads.
        limit: usize,
    },
}

impl Plan {
    /// The bytes that init reads at [`words::PLAN_PATH`].
    ///
    /// # Errors
    /// When a field holds a NUL byte or the plan is longer than init reads.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        let mut out = Vec::new();
        for module in &self.modules {
            field(&mut out, "a plan's word", words::PLAN_MODULE)?;
            field(&mut out, "a module's path", &module.path)?;
            field(&mut out, "a module's parameters", &module.parameters)?;
        }
        if let Some(exec) = &self.exec {
            if exec.arguments.len() > words::ARGUMENT_LIMIT {
                return Err(PlanError::Arguments {
                    count: exec.arguments.len(),
                    limit: words::ARGUMENT_LIMIT,
                });
            }
            field(&mut out, "a plan's word", words::PLAN_EXEC)?;
            field(&mut out, "the path of a program", &exec.path)?;
            field(&mut out, "a count", &exec.arguments.len().to_string())?;
            for argument in &exec.arguments {
                field(&mut out, "an argument", argument)?;
            }
        }
        if out.len() > words::PLAN_LIMIT {
            return Err(PlanError::TooLong { size: out.len(), limit: words::PLAN_LIMIT });
        }
        Ok(out)
    }
}

fn field(out: &mut Vec<u8>, what: &'static str, value: &str) -> Result<(), PlanError> {
    if value.contains('\0') {
        return Err(PlanError::Nul { what, value: value.to_owned() });
    }
    out.extend_from_slice(value.as_bytes());
    out.push(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_words_and_fields() {
        let plan = Plan {
            modules: vec![PlannedModule {
                path: "/kolumbo/modules/00-sick.ko".into(),
                parameters: "how=spin cpu=1".into(),
            }],
            exec: Some(PlannedExec {
                path: "/bin/sh".into(),
                arguments: vec!["sh".into(), "-c".into(), "".into()],
            }),
        };
        assert_eq!(
            plan.to_bytes().unwrap(),
            b"module\0/kolumbo/modules/00-sick.ko\0how=spin cpu=1\0exec\0/bin/sh\x003\0sh\0-c\0\0"
        );
        assert_eq!(Plan::default().to_bytes().unwrap(), b"");
    }

    #[test]
    fn what_init_cannot_take_is_refused() {
        let exec = |arguments: Vec<String>| Plan {
            modules: vec![],
            exec: Some(PlannedExec { path: "/x".into(), arguments }),
        };
        assert!(matches!(
            exec(vec!["a\0b".into()]).to_bytes(),
            Err(PlanError::Nul { what: "an argument", .. })
        ));
        assert_eq!(
            exec(vec![String::new(); words::ARGUMENT_LIMIT + 1]).to_bytes(),
            Err(PlanError::Arguments { count: 513, limit: 512 })
        );
        assert!(matches!(
            exec(vec!["a".repeat(words::PLAN_LIMIT)]).to_bytes(),
            Err(PlanError::TooLong { .. })
        ));
    }
}
