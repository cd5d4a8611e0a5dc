//! Rings that no driver makes. A broken or malicious guest does, and must not take its backend,
//! and with it other devices, along.

use vhost_user_wire::frontend::GetFeatures;
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{
    Chain, Descriptor, Element, Format, QUIET, Session, VIRTQ_INDIRECT, VIRTQ_NEXT, VIRTQ_WRITE,
};

const PACKED: Need = Need::Feature(VIRTIO_F_RING_PACKED, "VIRTIO_F_RING_PACKED");
const INDIRECT: Need = Need::Feature(VIRTIO_RING_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC");

/// Declares checks that build one ring each and then see whether the backend still serves.
macro_rules! hostile {
    ($($name:literal $section:literal [$($need:ident),*] $build:expr, $what:literal;)*) => {
        pub const CHECKS: &[Check] = &[$(Check {
            name: concat!("hostile.", $name),
            level: Level::Should,
            source: Source::Virtio($section),
            rule: concat!("a driver MUST NOT make ", $what, "; a back-end that meets one neither \
                           ends nor hangs, and writes nowhere that it was not told to"),
            needs: &[Need::Sample $(, $need)*],
            run: $build,
        }),*];
    };
}

hostile! {
    "loop" "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table" []
        |bench| endure(bench, &mut looped(bench)?),
        "a loop of descriptors";
    "keeps-the-connection" "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table" []
        keeps_connection,
        "a loop of descriptors (and hanging up should only happen in exceptional circumstances: \
         vhost-user, \"Communication\")";
    "loop-to-itself" "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table" []
        |bench| split(bench, &[(0, VIRTQ_NEXT, 0)]),
        "a descriptor that is its own successor";
    "writable-loop" "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table" []
        |bench| split(bench, &[(0, VIRTQ_NEXT | VIRTQ_WRITE, 1), (1, VIRTQ_NEXT | VIRTQ_WRITE, 0)]),
        "a loop of writable descriptors";
    "next-outside" "2.7.5 The Virtqueue Descriptor Table" []
        |bench| split(bench, &[(0, VIRTQ_NEXT, 0xfff0)]),
        "a successor outside of the table";
    "readable-behind-writable" "2.7.4.2 Driver Requirements: Message Framing" []
        |bench| split(bench, &[(0, VIRTQ_NEXT | VIRTQ_WRITE, 1), (1, 0, 0)]),
        "a readable element behind a writable one";
    "unknown-flags" "2.7.5 The Virtqueue Descriptor Table" []
        |bench| split(bench, &[(0, 0xfff8, 0)]),
        "a descriptor with flags that are not defined";
    "head-outside" "2.7.6 The Virtqueue Available Ring" []
        head_outside,
        "a head outside of the descriptor table available";
    "index-far-ahead" "2.7.6.1 Driver Requirements: The Virtqueue Available Ring" []
        index_far_ahead,
        "more buffers available than the ring has entries";
    "index-goes-back" "2.7.6.1 Driver Requirements: The Virtqueue Available Ring" []
        index_goes_back,
        "the available index smaller";
    "zero-length" "2.7.5 The Virtqueue Descriptor Table" []
        |bench| buffers(bench, &[Element::readable(0x8000, 0), Element::writable(0x8000, 0)]),
        "elements of no bytes";
    "address-overflow" "2.7.5 The Virtqueue Descriptor Table" []
        |bench| buffers(bench, &[Element::writable(u64::MAX - 3, 64)]),
        "an element that ends behind the greatest address";
    "length-overflow" "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table" []
        |bench| buffers(bench, &[Element::readable(0, u32::MAX), Element::writable(0, u32::MAX)]),
        "a descriptor chain longer than 2^32 bytes";
    "over-the-end" "2.7.5 The Virtqueue Descriptor Table" []
        |bench| buffers(bench, &[Element::readable((1 << 20) - 8, 16), Element::writable((1 << 20) - 8, 4097)]),
        "an element that ends behind its memory region";
    "indirect-loop" "2.7.5.3.1 Driver Requirements: Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(VIRTQ_NEXT, 1), (VIRTQ_NEXT, 0)], 32),
        "a loop in an indirect table";
    "indirect-within-indirect" "2.7.5.3.1 Driver Requirements: Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(VIRTQ_INDIRECT, 0)], 16),
        "an indirect table within an indirect table";
    "indirect-next-outside" "2.7.5.3.1 Driver Requirements: Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(VIRTQ_NEXT, 9)], 16),
        "a successor outside of an indirect table";
    "indirect-odd-size" "2.7.5.3 Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(0, 0)], 17),
        "an indirect table whose length is no multiple of 16";
    "indirect-empty" "2.7.5.3 Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(0, 0)], 0),
        "an indirect table of no bytes";
    "indirect-huge" "2.7.5.3.1 Driver Requirements: Indirect Descriptors" [INDIRECT]
        |bench| table(bench, &[(0, 0)], 0xffff_fff0),
        "an indirect table of 4 GiB";
    "indirect-and-next" "2.7.5.3.1 Driver Requirements: Indirect Descriptors" [INDIRECT]
        indirect_and_next,
        "a descriptor with both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT";
    "packed-endless-chain" "2.8.17 Driver Requirements: Scatter-Gather Support" [PACKED]
        packed_endless,
        "a descriptor list longer than the ring, each with VIRTQ_DESC_F_NEXT (CVE-2026-16457)";
    "packed-bad-id" "2.8.13 The Virtqueue Descriptor Format" [PACKED]
        packed_bad_id,
        "a buffer id that is greater than the ring";
    "packed-bad-address" "2.8.13 The Virtqueue Descriptor Format" [PACKED]
        packed_bad_address,
        "an element outside of memory";
    "packed-indirect-and-next" "2.8.19 Driver Requirements: Indirect Descriptors" [PACKED, INDIRECT]
        packed_indirect_and_next,
        "a direct descriptor with VIRTQ_DESC_F_INDIRECT in a list linked by VIRTQ_DESC_F_NEXT";
}

fn start(bench: &Bench, format: Format) -> Result<Session, Fault> {
    let setup = bench.setup().format(format);
    let mut session = bench.start(&setup)?;
    bench.run_sample(&mut session)?;
    Ok(session)
}

/// Kicks; sees that the backend answers or hangs up, that it can stop the ring, and that it has
/// written nothing that is not open to it.
fn endure(bench: &Bench, session: &mut Session) -> Verdict {
    let queue = bench.sample().queue;
    session.queue(queue).kick();
    let is_served = wait_and_ask(bench, session)?;
    super::ring::no_stray(session)?;
    if !is_served {
        return Ok(());
    }
    match session.stop(queue) {
        Err(error) if !error.is_closed() => Err(Fault::broken(format!(
            "the ring cannot be stopped: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Gives the backend time to fall into the trap; says whether it serves this connection still. It
/// may have hung up (vhost-user, "Communication").
fn wait_and_ask(bench: &Bench, session: &mut Session) -> Result<bool, Fault> {
    _ = session
        .queue(bench.sample().queue)
        .is_notified_within(QUIET)?;
    match session.frontend().request(&GetFeatures) {
        Ok(_) => Ok(true),
        Err(error) if error.is_closed() => Ok(false),
        Err(error) => Err(Fault::broken(format!("it hangs: {error}"))),
    }
}

fn keeps_connection(bench: &Bench) -> Verdict {
    let mut session = looped(bench)?;
    session.queue(bench.sample().queue).kick();
    let is_served = wait_and_ask(bench, &mut session)?;
    demand(is_served, || "the backend hung up".into())
}

/// A readable buffer of the driver's.
fn buffer(session: &Session) -> Result<u64, Fault> {
    Ok(session.memory().take("a buffer", 64, 16)?)
}

/// Descriptors of a split ring by slot, flags and successor; the first is available.
fn split(bench: &Bench, descriptors: &[(u16, u16, u16)]) -> Verdict {
    endure(bench, &mut offer(bench, descriptors)?)
}

fn looped(bench: &Bench) -> Result<Session, Fault> {
    offer(bench, &[(0, VIRTQ_NEXT, 1), (1, VIRTQ_NEXT, 0)])
}

fn offer(bench: &Bench, descriptors: &[(u16, u16, u16)]) -> Result<Session, Fault> {
    let mut session = start(bench, Format::Split)?;
    let queue = bench.sample().queue;
    let addr = buffer(&session)?;
    let writes = descriptors
        .iter()
        .any(|(_, flags, _)| flags & VIRTQ_WRITE != 0);
    if writes {
        session.memory().open(addr);
    }
    for (slot, flags, next) in descriptors {
        let descriptor = Descriptor::split(addr, 64, *flags, *next);
        session.queue_mut(queue).put_raw(*slot, descriptor)?;
    }
    session.queue_mut(queue).stage_head(descriptors[0].0)?;
    session.queue_mut(queue).publish()?;
    Ok(session)
}

fn head_outside(bench: &Bench) -> Verdict {
    let mut session = start(bench, Format::Split)?;
    let queue = session.queue_mut(bench.sample().queue);
    queue.stage_head(0xfff0)?;
    queue.publish()?;
    endure(bench, &mut session)
}

/// Sets the available index.
fn set_index(bench: &Bench, session: &Session, index: u16) -> Verdict {
    let driver = session.queue(bench.sample().queue).places().driver;
    Ok(session.memory().store_u16(driver + 2, index)?)
}

fn index_far_ahead(bench: &Bench) -> Verdict {
    let mut session = start(bench, Format::Split)?;
    set_index(bench, &session, 0x7000)?;
    endure(bench, &mut session)
}

fn index_goes_back(bench: &Bench) -> Verdict {
    let mut session = start(bench, Format::Split)?;
    for _ in 0..3 {
        bench.run_sample(&mut session)?;
    }
    set_index(bench, &session, 1)?;
    endure(bench, &mut session)
}

fn buffers(bench: &Bench, elements: &[Element]) -> Verdict {
    let mut session = start(bench, Format::Split)?;
    let chain = Chain::new(elements);
    // Memory that is given out as writable may be written, as far as it exists.
    if elements
        .iter()
        .any(|element| element.writable && element.addr < 1 << 20)
    {
        session.queue_mut(bench.sample().queue).submit(&chain)?;
        return wait_and_ask(bench, &mut session).map(drop);
    }
    session.queue_mut(bench.sample().queue).submit(&chain)?;
    endure(bench, &mut session)
}

/// An indirect table with entries of these flags and successors, which is said to be `len` bytes.
fn table(bench: &Bench, entries: &[(u16, u16)], len: u32) -> Verdict {
    let mut session = start(bench, Format::Split)?;
    let (queue, addr) = (bench.sample().queue, buffer(&session)?);
    let table = session.memory().take("an indirect table", 64, 16)?;
    for (slot, (flags, next)) in (0..).zip(entries) {
        let descriptor = Descriptor::split(addr, 64, *flags, *next);
        descriptor.put(session.memory(), table, slot)?;
    }
    let descriptor = Descriptor::split(table, len, VIRTQ_INDIRECT, 0);
    session.queue_mut(queue).put_raw(0, descriptor)?;
    session.queue_mut(queue).stage_head(0)?;
    session.queue_mut(queue).publish()?;
    endure(bench, &mut session)
}

fn indirect_and_next(bench: &Bench) -> Verdict {
    split(bench, &[(0, VIRTQ_INDIRECT | VIRTQ_NEXT, 1), (1, 0, 0)])
}

/// Descriptors of a packed ring, each available.
fn packed(bench: &Bench, count: u16, make: impl Fn(u64, u16) -> Descriptor) -> Verdict {
    let mut session = start(bench, Format::Packed)?;
    let (queue, addr) = (bench.sample().queue, buffer(&session)?);
    for n in 0..count {
        session.queue_mut(queue).put_raw(0, make(addr, n))?;
    }
    endure(bench, &mut session)
}

fn packed_endless(bench: &Bench) -> Verdict {
    // Once around, so that each descriptor is available and has a successor.
    packed(bench, 64, |addr, n| {
        Descriptor::packed(addr, 16, n, VIRTQ_NEXT)
    })
}

fn packed_bad_id(bench: &Bench) -> Verdict {
    packed(bench, 1, |addr, _| Descriptor::packed(addr, 16, 0xffff, 0))
}

fn packed_bad_address(bench: &Bench) -> Verdict {
    packed(bench, 1, |_, _| {
        Descriptor::packed(u64::MAX - 8, 64, 1, VIRTQ_WRITE)
    })
}

fn packed_indirect_and_next(bench: &Bench) -> Verdict {
    let both = VIRTQ_INDIRECT | VIRTQ_NEXT;
    packed(bench, 2, |addr, n| {
        Descriptor::packed(addr, 16, n, if n == 0 { both } else { 0 })
    })
}
