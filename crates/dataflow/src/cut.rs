//! Blocks and edges while a body is being cut out of the instructions that were found.
//!
//! Decides which block a branch target is, and gives targets in other functions a block of their own. Main type: [`Cut`].

use crate::addresses::AddressMap;
use crate::flow::{Block, Callee, CodeMap, Ending, Target};

/// Blocks while they are being joined.
pub(crate) struct Cut {
    /// Address and first instruction of the blocks that have any, ascending.
    pub(crate) starts: Vec<(u64, u32)>,
    /// Blocks without instructions, which come before those that have some.
    pub(crate) others: AddressMap<u32>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) edges: Vec<u32>,
}

impl Cut {
    /// The block with instructions that begins at `address`.
    pub(crate) fn block_at(&self, address: u64) -> Option<u32> {
        Some(self.starts.binary_search_by_key(&address, |start| start.0).ok()? as u32)
    }

    /// Appends the block numbers of branch targets to the edges. A target in another function gets a block of its own that
    /// tail-calls it.
    pub(crate) fn successors(
        &mut self,
        map: &impl CodeMap,
        targets: &[u64],
        ending: Ending,
        also: Option<u32>,
    ) -> (std::ops::Range<u32>, Ending) {
        let first = self.edges.len();
        let mut ending = ending;
        for target in targets {
            let other =
                if self.others.is_empty() { None } else { self.others.get(target).copied() };
            if let Some(block) = other.or_else(|| self.block_at(*target)) {
                self.edges.push(block);
                continue;
            }
            let exit = match map.target(*target) {
                Target::Return => Ending::Returns(Some(*target)),
                Target::Indirect(_) => Ending::TailCalls(Callee::Unknown),
                Target::NoReturn => Ending::Stops,
                Target::Code if map.starts_function(*target) => {
                    Ending::TailCalls(Callee::Direct(*target))
                }
                Target::Code => {
                    if ending == Ending::Flows {
                        ending = Ending::Lost;
                    }
                    continue;
                }
            };
            let block = self.blocks.len() as u32;
            self.blocks.push(Block { range: 0..0, next: 0..0, ending: exit });
            self.others.insert(*target, block);
            self.edges.push(block);
        }
        self.edges.extend(also);
        if self.edges.len() - first > 1 {
            self.edges[first..].sort_unstable();
        }
        let mut kept = first;
        for at in first..self.edges.len() {
            if kept == first || self.edges[kept - 1] != self.edges[at] {
                self.edges[kept] = self.edges[at];
                kept += 1;
            }
        }
        self.edges.truncate(kept);
        (first as u32..kept as u32, ending)
    }
}
