//! Clients that do not speak the protocol, or speak it at the wrong time.

use std::io::{Read, Write};
use std::net::Shutdown;

use proptest::prelude::*;

use super::tests::LOOP;
use crate::testing::{Guest, Rsp, packet};

/// Bodies that lead deep into the server, to be sent in any order.
fn known() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        "?",
        "g",
        "vCont?",
        "vCont;c",
        "vCont;s:1",
        "vCont;s:2;c",
        "vCont;r1000,1009:1;c",
        "c",
        "s",
        "vCont;c:1",
        "vCont;t",
        "Hg0",
        "Hg1",
        "Hc-1",
        "Hg-1",
        "qfThreadInfo",
        "T1",
        "D",
        "k",
        "QStartNoAckMode",
        "qRcmd,696e666f20766370757300",
        "m0,10000",
        "mfffffffffffffff0,20000",
        "p10",
        "P10=0010000000000000",
        "qXfer:features:read:target.xml:0,fff",
        "!",
        "vKill;1",
        "qSupported:multiprocess+;xmlRegisters=i386",
        "qSupported",
        "qOffsets",
        "Qqemu.sstepbits",
        "Qqemu.PhyMemMode:1",
        "Qqemu.PhyMemMode:0",
        "qRcmd,696e666f20726567697374657273",
        "QTinit",
        "QTDP:1:1003:E:0:9:X3,220127-",
        "QTDP:-1:1003:R10000M-1,8000,8X3,220127",
        "QTDP:2:1006:E:0:0",
        "QTDP:3:1000:E:3:0-",
        "QTDP:-3:1000:R1SR10000M-1,8000,8-",
        "QTDP:-3:1000:X3,220127",
        "QTDV:1:5:0:61",
        "QTDP:1:1003:E:0:0:Xa,2c00012201022d000127-",
        "QTDP:-1:1003:X4,2e000127",
        "qTV:1",
        "qTfV",
        "qTsV",
        "QTStart",
        "QTStop",
        "QTFrame:0",
        "QTFrame:pc:1003",
        "QTFrame:ffffffff",
        "QTBuffer:size:800",
        "qTBuffer:0,100",
        "qTStatus",
        "qTP:1:1003",
        "qTBuffer:fffffffffffffff0,ffffffffffffffff",
        "QTDPsrc:1:1003:at:0:7:2a307831303033",
        "QTDPsrc:1:1003:cmd:0:3:656e64",
        "QTSave:2f746d702f78",
        "QTDisconnected:0",
        "QTDisconnected:1",
        "x1000,20",
        "x1000,0",
        "xfffffffffffffff0,ffffffffffffffff",
        "Z0,1003,1;X3,220127",
        "Z0,1003,1;X3,220027X7,26000022051327;cmds:1,X3,220027",
        "Z0,1003,1;X3,210000",
        "Z0,1006,1;cmds:0,X15,26000022002200340100097261782025645c6e0027",
        "Z1,1000,1;X7,2400ffffff1727",
        "qTfP",
        "qTsP",
    ]);
    let tracing = (
        prop::sample::select(vec![
            "QTDP:",
            "QTDP:-1:1003:",
            "QTDPsrc:1:1003:",
            "QTDV:",
            "qTV:",
            "qTP:",
            "qTBuffer:",
            "QTBuffer:",
            "QTDisconnected:",
            "QTFrame:",
        ]),
        "[0-9a-f:,XRMSED-]{0,40}",
    )
        .prop_map(|(name, rest)| format!("{name}{rest}"));
    let points = (
        0..5u8,
        any::<bool>(),
        prop_oneof![0x1000..0x1010u64, any::<u64>()],
        0..40u64,
    )
        .prop_map(|(kind, insert, addr, len)| {
            let command = if insert { 'Z' } else { 'z' };
            format!("{command}{kind},{addr:x},{len:x}")
        });
    let memory = (
        prop_oneof![0x1000..0x1010u64, 0xffff0..0x100010u64, any::<u64>()],
        0..64u64,
    )
        .prop_map(|(addr, len)| format!("m{addr:x},{len:x}"));
    let writes =
        (0x9000..0x9010u64, prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(addr, data)| {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("M{addr:x},{:x}:{hex}", data.len())
        });
    let programs = "Z[01],100[0-9],1(;(X[1-4],[0-9a-f]{2,8}|cmds:0,)){0,3}";
    prop_oneof![
        fixed.prop_map(str::to_owned),
        programs,
        tracing,
        points,
        memory,
        writes
    ]
    .prop_map(String::into_bytes)
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => known().prop_map(|body| packet(&body)),
        1 => Just(vec![3]),
        1 => Just(b"+".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| packet(&body)),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, the server answers or hangs up, and in the end the guest
    /// runs undisturbed and the next client is served.
    #[test]
    fn no_client_harms_the_guest(pieces in prop::collection::vec(pieces(), 0..40), cut: bool) {
        let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
        let mut rsp = guest.connect();
        for piece in pieces {
            // The server may have hung up already.
            if rsp.stream.write_all(&piece).is_err() {
                break;
            }
        }
        if !cut {
            // To the end: the server has seen it all.
            let _ = rsp.stream.shutdown(Shutdown::Write);
            let mut answers = Vec::new();
            let _ = rsp.stream.read_to_end(&mut answers);
        }
        drop(rsp);
        let mut next = guest.connect();
        prop_assert!(next.ask("qSupported:swbreak+").contains("PacketSize"));
        leave_for_good(next);
        // A client may have written over the code or moved a RIP out of it.
        guest.watcher.until("it is let go", |state| state.is_let_go());
    }
}

/// Leaves no trace running behind.
fn leave_for_good(mut rsp: Rsp) {
    rsp.send("QTDisconnected:0");
    assert_eq!(rsp.told().1, "OK");
    assert_eq!(rsp.ask("D"), "OK");
}

/// Packets that [`the_server_neither_stops_nor_grows`] sends; `make soak` sends
/// ten million.
const PACKETS: &str = "OUTBOARD_FUZZ_PACKETS";

/// Anonymous memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.unwrap().parse().unwrap()
}

/// Sends `pieces` and reads all answers meanwhile; `cut` leaves at once. Returns how
/// many answers there were.
fn talk(guest: &Guest, pieces: &[&[u8]], cut: bool) -> usize {
    let rsp = guest.connect();
    let mut stream = &rsp.stream;
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let end = answers.read_to_end(&mut bytes);
        // In a packet's body this byte is escaped.
        (bytes.iter().filter(|byte| **byte == b'$').count(), end)
    });
    let known = packet(b"qSupported:swbreak+;vContSupported+");
    for piece in [&known[..]].into_iter().chain(pieces.iter().copied()) {
        stream.write_all(piece).unwrap();
    }
    let side = if cut { Shutdown::Both } else { Shutdown::Write };
    let _ = stream.shutdown(side);
    let (count, end) = reader.join().unwrap();
    assert!(cut || end.is_ok(), "the server hung up: {end:?}");
    count
}

#[test]
fn the_server_neither_stops_nor_grows() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    const POOL: usize = 4096;
    const CONNECTION: u64 = 1000;
    /// What threads and buffers may take, in KiB.
    const SLACK: u64 = 16 << 10;

    let packets = std::env::var(PACKETS).map_or(50_000, |count| count.parse().unwrap());
    let mut runner = TestRunner::default();
    // A client that leaves ends its connection, and the rest goes unread. A packet that
    // begins within noise may say so too.
    let stays = |piece: &Vec<u8>| {
        let leaves = [&b"$D"[..], b"$k", b"$vKill"];
        let begins = piece.iter().rposition(|byte| *byte == b'$');
        begins.is_none_or(|at| at == 0) && !leaves.iter().any(|leave| piece.starts_with(leave))
    };
    let pool: Vec<_> = std::iter::repeat_with(|| pieces().new_tree(&mut runner).unwrap().current())
        .filter(stays)
        .take(POOL)
        .collect();
    let mut rng = runner.new_rng();
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut begin = None;
    let mut answers = 0;
    for connection in 0..packets / CONNECTION {
        let mut pick = || &*pool[rand_index(&mut rng, POOL)];
        let pieces: Vec<_> = (0..CONNECTION).map(|_| pick()).collect();
        answers += talk(&guest, &pieces, connection % 2 == 0);
        if connection == 20 {
            begin = Some(resident());
        }
    }
    // Not all have one: Ctrl-C, noise, and what a client that left does not read.
    assert!(
        answers as u64 > packets / 4,
        "{answers} answers to {packets} packets"
    );
    let mut last = guest.connect();
    assert!(last.ask("qSupported:swbreak+").contains("PacketSize"));
    leave_for_good(last);
    guest
        .watcher
        .until("it is let go", |state| state.is_let_go());
    let grown = begin.map_or(0, |begin| resident().saturating_sub(begin));
    assert!(grown < SLACK, "{grown} KiB more after {packets} packets");
}

fn rand_index(rng: &mut proptest::test_runner::TestRng, below: usize) -> usize {
    use proptest::prelude::Rng;
    (rng.next_u64() % below as u64) as usize
}
