//! The kernel's log: the lockless ring buffer of Linux 5.10 and later
//! (kernel/printk/printk_ringbuffer.h; scripts/gdb/linux/dmesg.py reads it so).

use super::memory::{Memory, printable};
use super::{Kernel, LookError};

/// Most records of a ring, as a power of two.
const MAX_COUNT_BITS: u32 = 24;
/// Most bytes of text of a ring, as a power of two.
const MAX_SIZE_BITS: u32 = 30;
/// Longest record that is shown, in bytes.
const MAX_RECORD: usize = 4096;

/// A record's state is in the two highest bits of its descriptor's `state_var`.
const STATE_SHIFT: u32 = 62;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
/// A position with this bit stands for a record without text.
const NO_TEXT: u64 = 1;
/// Text begins with the descriptor's number.
const TEXT_OFFSET: u64 = 8;

/// Hands the log's last `max` records to `each`, oldest first, as dmesg(1) prints
/// them, one call a line.
pub(crate) fn last(
    kernel: &Kernel,
    memory: &Memory<'_>,
    max: u64,
    mut each: impl FnMut(&str),
) -> Result<(), LookError> {
    let btf = kernel.btf(memory)?;
    let ring = match kernel.symbol("prb") {
        Err(_) if kernel.symbols.get("log_first_idx").is_some() => return Err(LookError::OldLog),
        ring => memory.u64(ring?)?,
    };
    let in_ring = |path: &str| -> Result<u64, LookError> {
        let offset = btf.offset("printk_ringbuffer", path)?;
        Ok(memory.u64(ring.wrapping_add(offset))?)
    };
    // Two numbers of 32 bits.
    let count_bits = in_ring("desc_ring.count_bits")? as u32;
    let size_bits = in_ring("text_data_ring.size_bits")? as u32;
    if count_bits > MAX_COUNT_BITS || size_bits > MAX_SIZE_BITS {
        return Err(LookError::Nonsense("the log's ring buffer"));
    }
    let (count, size) = (1u64 << count_bits, 1u64 << size_bits);
    let (descs, infos) = (in_ring("desc_ring.descs")?, in_ring("desc_ring.infos")?);
    let data = in_ring("text_data_ring.data")?;
    let (tail, head) = (in_ring("desc_ring.tail_id")?, in_ring("desc_ring.head_id")?);
    let (desc_size, info_size) = (btf.size("prb_desc")?, btf.size("printk_info")?);
    let state = btf.offset("prb_desc", "state_var")?;
    let begin = btf.offset("prb_desc", "text_blk_lpos.begin")?;
    let next = btf.offset("prb_desc", "text_blk_lpos.next")?;
    let text_len = btf.offset("printk_info", "text_len")?;
    let ts_nsec = btf.offset("printk_info", "ts_nsec")?;

    // Numbers wrap at the width that the state bits leave.
    let mask = (1u64 << STATE_SHIFT) - 1;
    let records = (head.wrapping_sub(tail) & mask).saturating_add(1);
    let shown = records.min(count).min(max);
    for n in (0..shown).rev() {
        let index = head.wrapping_sub(n) & (count - 1);
        let desc = descs.wrapping_add(index * desc_size);
        let info = infos.wrapping_add(index * info_size);
        if !matches!(
            memory.u64(desc.wrapping_add(state))? >> STATE_SHIFT,
            COMMITTED | FINALIZED
        ) {
            continue;
        }
        let begin = memory.u64(desc.wrapping_add(begin))?;
        let next = memory.u64(desc.wrapping_add(next))?;
        let text = if begin & NO_TEXT != 0 {
            Vec::new()
        } else {
            let (from, to) = (begin & (size - 1), next & (size - 1));
            // One that would wrap is at the beginning as a whole.
            let from = if from > to { 0 } else { from };
            let len = memory.u32(info.wrapping_add(text_len))? & 0xffff;
            let len = (len as usize).min(MAX_RECORD);
            memory.bytes(data.wrapping_add(from + TEXT_OFFSET), len)?
        };
        let time = memory.u64(info.wrapping_add(ts_nsec))?;
        let stamp = format!(
            "[{:5}.{:06}] ",
            time / 1_000_000_000,
            time / 1000 % 1_000_000
        );
        for line in text.split(|byte| *byte == b'\n') {
            each(&format!("{stamp}{}", printable(line)));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "dmesg_test.rs"]
mod tests;
