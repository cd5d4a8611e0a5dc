use std::fs::File;
use std::os::fd::OwnedFd;

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vhost_user_wire::payload::MemoryTable;
use vhost_user_wire::{HEADER_SIZE, Payload};

use super::*;

fn request(code: F) -> u32 {
    code.into()
}

fn faults(records: &[Record]) -> Vec<&str> {
    let fault = |record: &'_ Record| matches!(&record.event, Event::Fault { .. });
    let records = records.iter().filter(|record| fault(record));
    records
        .filter_map(|record| match &record.event {
            Event::Fault { what, .. } => Some(&what[..]),
            _ => None,
        })
        .collect()
}

#[test]
fn messages_are_dropped_doubled_and_put_behind_the_next() {
    let text = "[[fault]]\nmessage = \"SET_OWNER\"\nnth = 2\ndo = \"drop\"\n\
                [[fault]]\nmessage = \"GET_STATUS\"\nnth = 1\ndo = \"double\"\n\
                [[fault]]\nmessage = \"GET_FEATURES\"\nnth = 1\ndo = \"reorder\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let sent = [F::SET_OWNER, F::SET_OWNER, F::GET_FEATURES, F::GET_STATUS];
    sent.into_iter()
        .for_each(|code| send(&frontend, code, &[], &[]));
    let got = [F::SET_OWNER, F::GET_STATUS, F::GET_STATUS, F::GET_FEATURES];
    for code in got {
        assert_eq!(receive(&mut backend).header.request, request(code));
    }
    let schedule = bench.faults.schedule();
    let records = bench.finish();
    assert_eq!(faults(&records), ["drop", "reorder", "double"]);
    assert!(
        schedule.starts_with("# 3 faults were injected\nseed = 7\n"),
        "{schedule}"
    );
    assert_eq!(FaultFile::parse(&schedule).unwrap().rules.len(), 3);
}

#[test]
fn a_message_that_is_held_back_is_sent_when_its_sender_hangs_up() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 1\ndo = \"reorder\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    drop(frontend);
    assert_eq!(receive(&mut backend).header.request, request(F::SET_OWNER));
    bench.finish();
}

#[test]
fn messages_are_truncated_and_corrupted() {
    let text = "[[fault]]\nmessage = \"SET_FEATURES\"\nnth = 1\ndo = \"corrupt\"\nbyte = 12\n\
                [[fault]]\nmessage = \"SET_FEATURES\"\nnth = 2\ndo = \"truncate\"\nbytes = 15\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_FEATURES, &[5; 8], &[]);
    send(&frontend, F::SET_FEATURES, &[5; 8], &[]);
    assert_eq!(receive(&mut backend).payload, [0xfa, 5, 5, 5, 5, 5, 5, 5]);
    drop(frontend);
    let mut rest = Vec::new();
    io::Read::read_to_end(&mut backend.stream(), &mut rest).unwrap();
    assert_eq!(rest[HEADER_SIZE..], [5; 3]);
    assert_eq!(
        faults(&bench.finish()),
        ["corrupt byte 12", "truncate to 15 bytes"]
    );
}

#[test]
fn replies_are_slow() {
    let text = "[[fault]]\nmessage = \"any\"\nfrom = \"backend\"\nevery = 1\ndo = \"delay\"\n\
                milliseconds = 100\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    let began = Instant::now();
    send(&frontend, F::GET_FEATURES, &[], &[]);
    let reply = receive(&mut backend).header.reply(8);
    backend.send(reply, &[0; 8], &[], &deadline()).unwrap();
    receive(&mut frontend);
    assert!(began.elapsed() >= Duration::from_millis(100));
    // A delay does not outlast its connection.
    assert_eq!(faults(&bench.finish()), ["delay by 100 ms"]);
}

#[test]
fn a_connection_is_cut_and_the_next_one_is_not() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 2\ndo = \"cut\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    send(&frontend, F::GET_FEATURES, &[], &[]);
    receive(&mut backend);
    assert_ended(&mut backend);
    assert_ended(&mut frontend);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::GET_FEATURES, &[], &[]);
    receive(&mut backend);
    let records = bench.finish();
    assert_eq!(faults(&records), ["cut"]);
    // Nobody has hung up.
    let is_closed = |record: &Record| matches!(record.event, Event::Closed { .. });
    assert!(!records.iter().any(is_closed), "{records:?}");
}

#[test]
fn the_process_of_the_proxy_itself_is_not_killed() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 1\ndo = \"kill\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, _backend) = bench.connect();
    assert_ended(&mut frontend);
    bench.finish();
}

/// Takes the signal of an eventfd, if one comes in time.
fn take(event: &File, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

const LONG: Duration = Duration::from_secs(20);

/// A driver's eventfd, and the backend's for the same signal.
fn signals(frontend: &Connection, backend: &mut Connection, code: F) -> (File, File) {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let ours = eventfd(0, flags).unwrap();
    send(frontend, code, &[0; 8], &[ours.as_fd()]);
    let theirs = receive(backend).take_file().unwrap();
    (OwnedFd::into(ours), theirs)
}

fn signal(mut event: &File) {
    event.write_all(&1u64.to_ne_bytes()).unwrap();
}

/// Waits until the proxy has recorded so many kicks.
fn wait_for_kicks(bench: &Bench, count: usize) {
    let began = Instant::now();
    let is_kick = |record: &&Record| matches!(record.event, Event::Kick { .. });
    while bench.kept.0.lock().unwrap().iter().filter(is_kick).count() < count {
        assert!(began.elapsed() < LONG);
        thread::yield_now();
    }
}

#[test]
fn kicks_are_dropped_delayed_and_doubled_and_calls_are_not() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"drop\"\n\
                [[fault]]\nkick = 0\nnth = 2\ndo = \"delay\"\nmilliseconds = 100\n\
                [[fault]]\nkick = 0\nnth = 3\ndo = \"double\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let (kick, kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    let (called, call) = signals(&frontend, &mut backend, F::SET_VRING_CALL);
    signal(&kick);
    wait_for_kicks(&bench, 1);
    // A signal behind it has passed, and the kick has not.
    signal(&call);
    assert!(take(&called, LONG));
    assert!(!take(&kicked, Duration::ZERO));
    let began = Instant::now();
    signal(&kick);
    assert!(take(&kicked, LONG));
    assert!(began.elapsed() >= Duration::from_millis(100));
    signal(&kick);
    assert!(take(&kicked, LONG) && take(&kicked, LONG));
    assert_eq!(
        faults(&bench.finish()),
        ["drop", "delay by 100 ms", "double"]
    );
}

#[test]
fn a_kick_that_is_held_back_when_its_connection_ends_is_the_driver_s() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"delay\"\nmilliseconds = 600000\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let (kick, _kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    signal(&kick);
    wait_for_kicks(&bench, 1);
    drop(frontend);
    bench.finish();
    assert!(take(&kick, LONG));
}

#[test]
fn a_kick_cuts_the_connection() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"cut\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    let (kick, _kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    signal(&kick);
    assert_ended(&mut frontend);
    assert_ended(&mut backend);
    bench.finish();
    assert!(take(&kick, LONG));
}

/// Sends until the socket takes nothing more, and returns how many messages it took.
fn fill(sender: &Connection, request: Header) -> usize {
    let sent = std::iter::repeat_with(|| sender.send_now(request, &[]));
    sent.take(100_000).take_while(Result::is_ok).count()
}

#[test]
fn a_socket_that_is_not_read_fills_and_its_sender_can_hang_up() {
    let text = "[[fault]]\nmessage = \"SET_OWNER\"\nnth = 2\ndo = \"fill\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    assert!(fill(&frontend, Header::request(F::SET_OWNER, 0)) < 100_000);
    assert_eq!(receive(&mut backend).header.request, request(F::SET_OWNER));
    // The other direction is left alone.
    send(&backend, F::GET_FEATURES, &[0; 8], &[]);
    assert_eq!(receive(&mut frontend).payload, [0; 8]);
    drop(frontend);
    assert_ended(&mut backend);
    assert_eq!(faults(&bench.finish()), ["fill"]);
}

/// That the backend is given has room for a few.
#[test]
fn the_socket_for_the_backend_s_requests_fills_soon() {
    let text = "[[fault]]\nmessage = \"BACKEND_CONFIG_CHANGE_MSG\"\nnth = 1\ndo = \"fill\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    send(&frontend, F::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
    let asking = receive(&mut backend).take_file().unwrap();
    let asking = Connection::to_frontend(OwnedFd::from(asking).into());
    let sent = fill(&asking, Header::request(BackendReq::CONFIG_CHANGE_MSG, 0));
    assert!((1..50).contains(&sent), "{sent}");
    // It ends with the session.
    assert_eq!(faults(&bench.finish()), ["fill"]);
}

const PAGE: u64 = 4096;

/// Two regions, and a file for each.
fn regions() -> [(VhostUserMemoryRegion, File); 2] {
    [0, 16].map(|page| {
        let at = page * PAGE;
        let region = VhostUserMemoryRegion::new(at, 4 * PAGE, at + (1 << 40), 0);
        (region, tempfile::tempfile().unwrap())
    })
}

fn guest_areas(regions: &[VhostUserMemoryRegion]) -> Vec<(u64, u64)> {
    let area = |region: &VhostUserMemoryRegion| (region.guest_phys_addr, region.memory_size);
    regions.iter().map(area).collect()
}

#[test]
fn a_kick_comes_behind_a_table_without_a_region_or_its_end() {
    for (keys, left) in [
        ("region = 1\n", vec![(0, 4 * PAGE)]),
        (
            "region = 2\nbytes = 4096\n",
            vec![(0, 3 * PAGE), (16 * PAGE, 4 * PAGE)],
        ),
    ] {
        let text = format!("[[fault]]\nkick = 0\nnth = 1\ndo = \"shrink\"\n{keys}");
        let bench = Bench::with_faults(&text);
        let (frontend, mut backend) = bench.connect();
        let [a, b] = regions();
        let table = MemoryTable(vec![a.0, b.0]).to_bytes();
        send(
            &frontend,
            F::SET_MEM_TABLE,
            &table,
            &[a.1.as_fd(), b.1.as_fd()],
        );
        receive(&mut backend);
        let (kick, kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
        signal(&kick);
        assert!(take(&kicked, LONG));
        let told = backend
            .try_receive()
            .unwrap()
            .expect("a table before the kick");
        assert_eq!(
            told.header,
            Header::request(F::SET_MEM_TABLE, told.payload.len())
        );
        assert_eq!(told.files.len(), left.len());
        let table = told.body::<MemoryTable>().unwrap();
        assert_eq!(guest_areas(&table.0), left);
        bench.finish();
    }
}

#[test]
fn single_regions_are_removed_and_added_again_behind_a_message() {
    let text = "[[fault]]\nmessage = \"SET_VRING_NUM\"\nnth = 1\ndo = \"shrink\"\nregion = 0\n\
                bytes = 8192\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    for (region, file) in regions() {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        let region = VhostUserSingleMemoryRegion::new(guest, size, region.user_addr, 0);
        send(
            &frontend,
            F::ADD_MEM_REG,
            &region.to_bytes(),
            &[file.as_fd()],
        );
        receive(&mut backend);
    }
    send(&frontend, F::SET_VRING_NUM, &[0; 8], &[]);
    assert_eq!(
        receive(&mut backend).header.request,
        request(F::SET_VRING_NUM)
    );
    for (code, pages, files) in [(F::REM_MEM_REG, 4, 0), (F::ADD_MEM_REG, 2, 1)] {
        let told = receive(&mut backend);
        assert_eq!(
            (told.header.request, told.files.len()),
            (request(code), files)
        );
        let region = told.body::<VhostUserSingleMemoryRegion>().unwrap();
        assert_eq!(guest_areas(&[*region]), [(0, pages * PAGE)]);
    }
    assert_eq!(faults(&bench.finish()), ["shrink region 0 by 8192 bytes"]);
}
