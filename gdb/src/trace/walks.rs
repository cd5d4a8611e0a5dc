//! vCPUs that are stepped behind tracepoints (`while-stepping`).

use std::collections::BTreeMap;

use crate::target::{VcpuId, VirtAddr};

/// Steps to collect for a tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub number: usize,
    pub addr: VirtAddr,
    /// Never 0.
    left: u64,
}

/// The walks of each vCPU; of a tracepoint it has one at most.
#[derive(Debug, Default)]
pub(super) struct Walks(BTreeMap<VcpuId, Vec<Walk>>);

impl Walks {
    /// Begins one, again if the tracepoint was hit on the way.
    pub fn begin(&mut self, vcpu: VcpuId, number: usize, addr: VirtAddr, steps: u64) {
        let walks = self.0.entry(vcpu).or_default();
        walks.retain(|walk| (walk.number, walk.addr) != (number, addr));
        if steps > 0 {
            walks.push(Walk {
                number,
                addr,
                left: steps,
            });
        }
    }

    pub fn has(&self, vcpu: VcpuId) -> bool {
        self.0.get(&vcpu).is_some_and(|walks| !walks.is_empty())
    }

    /// Takes one step of each of a vCPU's walks, and returns them as they were.
    pub fn step(&mut self, vcpu: VcpuId) -> Vec<Walk> {
        let Some(walks) = self.0.get_mut(&vcpu) else {
            return Vec::new();
        };
        let before = walks.clone();
        walks.retain_mut(|walk| {
            walk.left -= 1;
            walk.left > 0
        });
        before
    }

    /// Forgets a vCPU's walks.
    pub fn end(&mut self, vcpu: VcpuId) {
        self.0.remove(&vcpu);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_are_counted_apart_and_begin_again() {
        let (one, two) = (VcpuId(0), VcpuId(1));
        let mut walks = Walks::default();
        assert!(walks.step(one).is_empty());
        let at = VirtAddr(0x1000);
        walks.begin(one, 1, at, 2);
        walks.begin(one, 2, at, 1);
        walks.begin(two, 1, at, 1);
        let mut step = |vcpu| -> Vec<_> {
            let walks = walks.step(vcpu).into_iter();
            walks.map(|walk| walk.number).collect()
        };
        assert_eq!(step(one), [1, 2]);
        assert_eq!(step(two), [1]);
        assert_eq!(step(two), []);
        assert!(walks.has(one) && !walks.has(two));
        walks.begin(one, 1, at, 2);
        walks.begin(one, 3, at, 0);
        for _ in 0..2 {
            assert_eq!(walks.step(one).len(), 1);
        }
        assert!(!walks.has(one));
        walks.begin(two, 1, at, u64::MAX);
        walks.end(two);
        assert!(!walks.has(two));
    }
}
