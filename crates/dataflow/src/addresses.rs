//! Hash tables keyed by addresses and other numbers, made for millions of look-ups.
//!
//! The hash is one multiplication, seeded once for each process so that a file cannot be made to collide. Main types:
//! [`AddressMap`], [`AddressSet`].

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// A map from addresses.
pub type AddressMap<V> = HashMap<u64, V, Seed>;
/// A set of addresses.
pub type AddressSet = HashSet<u64, Seed>;

/// The secret of the hash.
#[derive(Clone, Copy, Debug)]
pub struct Seed(u64, u64);

impl Default for Seed {
    fn default() -> Self {
        static SEED: OnceLock<(u64, u64)> = OnceLock::new();
        let (add, factor) = *SEED.get_or_init(|| {
            let state = RandomState::new();
            (state.hash_one(0_u8), state.hash_one(1_u8) | 1)
        });
        Self(add, factor)
    }
}

impl BuildHasher for Seed {
    type Hasher = AddressHasher;

    fn build_hasher(&self) -> AddressHasher {
        AddressHasher { state: self.0, factor: self.1 }
    }
}

/// Folds the two halves of a product.
#[derive(Debug)]
pub struct AddressHasher {
    state: u64,
    factor: u64,
}

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.state ^ number) * u128::from(self.factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// A set of addresses that may hold more than was put in: one bit for each address modulo 32 MiB, so that neighbours share
/// a cache line.
#[derive(Debug)]
pub struct Sieve {
    bits: Vec<u64>,
}

impl Default for Sieve {
    fn default() -> Self {
        Self { bits: vec![0; 1 << (Self::BITS - 6)] }
    }
}

impl Sieve {
    const BITS: u32 = 25;

    const fn place(address: u64) -> (usize, u64) {
        let low = address & ((1 << Self::BITS) - 1);
        (low as usize >> 6, 1 << (low & 63))
    }

    /// Puts an address in.
    pub fn insert(&mut self, address: u64) {
        let (word, bit) = Self::place(address);
        self.bits[word] |= bit;
    }

    /// Whether the address may have been put in; `false` is certain.
    #[must_use]
    pub fn may_hold(&self, address: u64) -> bool {
        let (word, bit) = Self::place(address);
        self.bits[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sieve_forgets_nothing_and_keeps_most_others_out() {
        let mut sieve = Sieve::default();
        for address in (0xffff_ffff_8100_0000_u64..).step_by(37).take(10_000) {
            sieve.insert(address);
        }
        assert!(
            (0xffff_ffff_8100_0000_u64..)
                .step_by(37)
                .take(10_000)
                .all(|address| sieve.may_hold(address))
        );
        let between = (0xffff_ffff_8100_0001_u64..).step_by(37).take(10_000);
        assert!(!between.into_iter().any(|address| sieve.may_hold(address)));
    }
}
