//! The plan, read: which jobs the host wants done.
//!
//! Decides nothing but the split into fields. The host's side and the format are in `src/plan.rs`.

use core::ffi::CStr;

use crate::facts::number;
use crate::words;

/// What is left of a plan.
#[derive(Clone)]
pub struct Plan<'a> {
    rest: &'a [u8],
}

/// One job, and where the rest of its fields begin.
pub enum Job<'a> {
    Module { path: &'a CStr, parameters: &'a CStr },
    Exec { path: &'a CStr, arguments: Arguments<'a> },
}

/// The arguments of a program.
#[derive(Clone)]
pub struct Arguments<'a> {
    pub count: usize,
    fields: Plan<'a>,
}

impl<'a> Plan<'a> {
    pub fn new(rest: &'a [u8]) -> Plan<'a> {
        Plan { rest }
    }

    /// The next job; none at the end or where the plan is not one.
    pub fn next_job(&mut self) -> Option<Job<'a>> {
        let word = self.field()?.to_bytes();
        if word == words::PLAN_MODULE.as_bytes() {
            Some(Job::Module { path: self.field()?, parameters: self.field()? })
        } else if word == words::PLAN_EXEC.as_bytes() {
            let path = self.field()?;
            let count = usize::try_from(number(self.field()?.to_bytes())?).ok()?;
            let fields = Plan { rest: self.rest };
            for _ in 0..count {
                self.field()?;
            }
            Some(Job::Exec { path, arguments: Arguments { count, fields } })
        } else {
            None
        }
    }

    fn field(&mut self) -> Option<&'a CStr> {
        let field = CStr::from_bytes_until_nul(self.rest).ok()?;
        self.rest = &self.rest[field.to_bytes_with_nul().len()..];
        Some(field)
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        self.count = self.count.checked_sub(1)?;
        self.fields.field()
    }
}

impl<'a> Job<'a> {
    pub fn kind(&self) -> &'static str {
        match self {
            Job::Module { .. } => "module",
            Job::Exec { .. } => "exec",
        }
    }

    /// A module's file name, a program's path.
    pub fn name(&self) -> &'a [u8] {
        match self {
            Job::Module { path, .. } => {
                path.to_bytes().rsplit(|&b| b == b'/').next().unwrap_or_default()
            }
            Job::Exec { path, .. } => path.to_bytes(),
        }
    }
}
