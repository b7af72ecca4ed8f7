//! A bzImage, or any other file that claims to be a kernel.
#![no_main]

use kolumbo_vmlinux::decompress::{Compression, decompress};
use kolumbo_vmlinux::{Kernel, OpenError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Kernel::open(bytes) {
        Ok(kernel) => {
            let _ = (kernel.symbols(None), kernel.banner(), kernel.config());
        }
        Err(OpenError::NotAKernel(refusal)) => assert!(!refusal.to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Some(compression) = Compression::detect(bytes) {
        let _ = decompress(compression, bytes, None);
    }
});
