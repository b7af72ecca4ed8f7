//! Many boots: one table of conditions, run in parallel, resumed after anything, summed up.
//!
//! [`plan`] reads what is asked for, [`store`] keeps what is done, an [`executor`] runs boots,
//! [`drive`] decides which comes next and [`shrink`] finds the smallest conditions under which the
//! table is sick. What a console says is not understood here, and nothing is printed.

pub mod command;
pub mod drive;
pub mod executor;
pub mod file;
pub mod history;
pub mod identity;
pub mod interval;
pub mod plan;
pub mod shrink;
pub mod signature;
pub mod slurm;
pub mod store;
pub mod summary;
pub mod words;
