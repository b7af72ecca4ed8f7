//! The program `kolumbo-vmm`; everything it does is in the library.

fn main() -> std::process::ExitCode {
    kolumbo_vmm::program::main(std::env::args().skip(1)).into()
}
