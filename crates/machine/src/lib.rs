//! QEMU: a boot spec becomes timestamped events and a live, read-only view of the guest.
//!
//! Decides how a guest is started, watched and ended, and nothing about what it says: no console
//! line is understood here. May use processes, clocks and sockets. Main types: [`Plan`], the
//! command line as data, and [`Machine`], one running guest.

pub mod debug;
pub mod gdb;
pub mod host;
pub mod initramfs;
pub mod kvm;
pub mod live;
pub mod module_file;
pub mod monitor;
pub mod pause;
pub mod program_file;
pub mod qemu;
pub mod qmp;
pub mod registers_x86;
pub mod still;

pub use debug::Halt;
pub use gdb::{GdbClient, GdbError};
pub use live::{Machine, MachineError, Sink};
pub use monitor::Monitor;
pub use qemu::{Plan, QemuError};
pub use qmp::{QmpClient, QmpError};
