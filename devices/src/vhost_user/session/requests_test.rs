use std::io::{Read, Write};
use std::os::fd::AsFd;

use vhost_user_wire::{BACKEND_FILES, Deadline, HEADER_SIZE, Header, NEED_REPLY, REPLY, VERSION};

use super::*;

const CONFIG_CHANGE: u32 = 2;
const SHMEM_MAP: u32 = 9;
const PATIENCE: Duration = Duration::from_secs(20);

fn request(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request: code,
        flags: VERSION | flags,
        size: payload.len() as u32,
    };
    [&header.to_bytes()[..], payload].concat()
}

fn answer(stream: &mut UnixStream) -> (u32, u32, u64) {
    let mut header = [0; HEADER_SIZE];
    stream.read_exact(&mut header).unwrap();
    let mut value = [0; 8];
    stream.read_exact(&mut value).unwrap();
    let header = Header::from_bytes(header);
    assert_eq!(header.size, 8);
    (header.request, header.flags, u64::from_ne_bytes(value))
}

#[test]
fn a_changed_configuration_is_noticed_and_answered_when_that_is_asked_for() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    assert_eq!(requests.serve().unwrap(), Asked::default(), "nothing yet");
    backend.write_all(&request(CONFIG_CHANGE, 0, &[])).unwrap();
    assert!(requests.serve().unwrap().config_changed);
    backend.set_nonblocking(true).unwrap();
    assert!(backend.read(&mut [0]).is_err(), "no answer");
    backend.set_nonblocking(false).unwrap();
    let with_reply = request(CONFIG_CHANGE, NEED_REPLY, &[]);
    backend.write_all(&with_reply).unwrap();
    assert!(requests.serve().unwrap().config_changed);
    backend.set_nonblocking(true).unwrap();
    assert!(backend.read(&mut [0]).is_err(), "the driver has not got it");
    backend.set_nonblocking(false).unwrap();
    requests.config_published();
    assert_eq!(answer(&mut backend), (CONFIG_CHANGE, VERSION | REPLY, DONE));
}

#[test]
fn what_is_asked_for_meanwhile_is_news_until_it_is_told() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    requests.serve_meanwhile();
    assert!(requests.news().read().is_err(), "nothing yet");
    backend.write_all(&request(CONFIG_CHANGE, 0, &[])).unwrap();
    requests.serve_meanwhile();
    requests.serve_meanwhile();
    assert!(requests.serve().unwrap().config_changed);
    assert!(requests.news().read().is_err(), "it has been told");
    assert_eq!(requests.serve().unwrap(), Asked::default());

    drop(backend);
    requests.serve_meanwhile();
    assert!(!requests.is_open());
    assert!(requests.news().read().is_ok());
    let error = requests.serve().unwrap_err();
    assert!(error.is_closed(), "{error}");
}

#[test]
fn a_change_after_the_configuration_was_read_waits_for_the_next_reading() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    let change = request(CONFIG_CHANGE, NEED_REPLY, &[]);
    backend.write_all(&change).unwrap();
    assert!(requests.serve().unwrap().config_changed);
    backend.write_all(&change).unwrap();
    requests.serve_meanwhile();
    requests.config_published();
    assert_eq!(answer(&mut backend).2, DONE);
    assert!(requests.is_awaited());
    assert!(requests.serve().unwrap().config_changed);
    requests.config_published();
    assert_eq!(answer(&mut backend).2, DONE);
    assert!(!requests.is_awaited());
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    for code in [CONFIG_CHANGE, SHMEM_MAP] {
        backend.write_all(&request(code, NEED_REPLY, &[])).unwrap();
    }
    assert!(requests.serve().unwrap().config_changed);
    assert_eq!(answer(&mut backend).0, CONFIG_CHANGE);
    assert_eq!(answer(&mut backend).0, SHMEM_MAP);
}

#[test]
fn what_is_not_known_is_refused_and_skipped() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    for code in [SHMEM_MAP, 4711] {
        let unknown = request(code, NEED_REPLY, &[0xff; 40]);
        backend.write_all(&unknown).unwrap();
    }
    backend.write_all(&request(CONFIG_CHANGE, 0, &[])).unwrap();
    assert!(requests.serve().unwrap().config_changed);
    for code in [SHMEM_MAP, 4711] {
        assert_eq!(answer(&mut backend), (code, VERSION | REPLY, REFUSED));
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    let bytes = request(CONFIG_CHANGE, 0, &[1, 2, 3]);
    let (last, start) = bytes.split_last().unwrap();
    for byte in start {
        backend.write_all(&[*byte]).unwrap();
        assert_eq!(requests.serve().unwrap(), Asked::default());
    }
    backend.write_all(&[*last]).unwrap();
    assert!(requests.serve().unwrap().config_changed);
}

#[test]
fn a_flood_is_served_in_parts_and_one_that_is_not_listened_to_ends() {
    let (mut requests, backend) = BackendRequests::new().unwrap();
    backend.set_nonblocking(true).unwrap();
    let one = request(CONFIG_CHANGE, NEED_REPLY, &[]);
    for _ in 0..1_000_000 {
        while (&backend).write_all(&one).is_ok() {}
        requests.config_published();
        match requests.serve() {
            Ok(_) => {}
            // The requests behind the answer that did not fit into the socket are cut short.
            Err(RequestsError::Wire(WireError::Socket(_))) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("answers pile up without bound");
}

#[test]
fn nonsense_and_the_end_are_told_apart() {
    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    let mut long = request(CONFIG_CHANGE, 0, &[]);
    long[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    backend.write_all(&long).unwrap();
    let error = requests.serve().unwrap_err();
    let size = u32::MAX as usize;
    assert!(
        matches!(error, RequestsError::Wire(WireError::Oversized { size: found, .. }) if found == size),
        "{error}"
    );

    let (mut requests, mut backend) = BackendRequests::new().unwrap();
    backend
        .write_all(&request(CONFIG_CHANGE, REPLY, &[]))
        .unwrap();
    let error = requests.serve().unwrap_err();
    let code = CONFIG_CHANGE;
    assert!(
        matches!(error, RequestsError::Reply { code: found } if found == code),
        "{error}"
    );

    let (mut requests, backend) = BackendRequests::new().unwrap();
    drop(backend);
    let error = requests.serve().unwrap_err();
    assert!(error.is_closed(), "{error}");
}

mod hostile {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    /// Something like a request, and how many descriptors come with it.
    fn pieces() -> impl Strategy<Value = (Vec<u8>, usize)> {
        let payloads = || prop::collection::vec(any::<u8>(), 0..100);
        let flags = prop_oneof![8 => Just(0u32), 8 => Just(NEED_REPLY), 1 => any::<u32>()];
        let whole = (0u32..12, flags, payloads())
            .prop_map(|(code, flags, payload)| request(code, flags, &payload));
        let cut = (0u32..12, payloads(), 0usize..100).prop_map(|(code, payload, len)| {
            let mut bytes = request(code, 0, &payload);
            bytes.truncate(len.max(1));
            bytes
        });
        let any = prop::collection::vec(any::<u8>(), 1..100);
        (
            prop_oneof![8 => whole, 1 => cut, 1 => any],
            prop_oneof![4 => Just(0usize), 1 => 1usize..8],
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever a backend asks, it is answered or not listened to any more,
        /// and what it sends along is closed.
        #[test]
        fn nothing_that_a_backend_asks_is_kept(pieces in prop::collection::vec(pieces(), 0..40)) {
            let (mut requests, mut backend) = BackendRequests::new().unwrap();
            let file = tempfile::tempfile().unwrap();
            let inode = file.metadata().unwrap().ino();
            backend.set_nonblocking(true).unwrap();
            for (bytes, fds) in pieces {
                let fds = vec![file.as_fd(); fds];
                // Nobody waits: there is room, or the frontend has gone.
                let sender = Connection::to_frontend(backend.try_clone().unwrap());
                let sent = sender.send_bytes(&bytes, &fds, &Deadline::after(PATIENCE));
                if sent.is_err() || requests.serve().is_err() {
                    break;
                }
                let mut answers = [0; 4096];
                while matches!(backend.read(&mut answers), Ok(1..)) {}
            }
            // Some may wait for the rest of their request.
            prop_assert!(copies(inode) <= 1 + BACKEND_FILES);
            drop(requests);
            // Other tests open and close files of their own meanwhile.
            prop_assert_eq!(copies(inode), 1);
        }
    }

    /// How many descriptors of this process are for the file with this inode.
    fn copies(inode: u64) -> usize {
        let is_it = |entry: std::io::Result<std::fs::DirEntry>| {
            let metadata = std::fs::metadata(entry.ok()?.path()).ok()?;
            (metadata.ino() == inode).then_some(())
        };
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(is_it)
            .count()
    }
}
