//! `GET /v1/events`: what happens to the machine, as server-sent events (WHATWG HTML, section
//! 9.2), for as long as the client stays.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::machine_events::{Follower, Next};

pub const CONTENT_TYPE: &str = "text/event-stream";

/// The longest silence. Whoever stands in between may not bear a longer one.
const HEARTBEAT: Timespec = Timespec {
    tv_sec: 15,
    tv_nsec: 0,
};

/// How long a client may take to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends `follower`'s events until the client leaves or is too slow.
pub fn serve(mut client: &UnixStream, follower: &Follower) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    // The comment says that events from here on are seen.
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n: following\n\n"
    );
    client.write_all(head.as_bytes())?;
    loop {
        match follower.next() {
            Next::Event(number, event) => {
                let data = serde_json::to_string(&event)?;
                let mut text = String::new();
                // Writing to a string cannot fail.
                let _ = write!(
                    text,
                    "id: {number}\nevent: {}\ndata: {data}\n\n",
                    event.name()
                );
                client.write_all(text.as_bytes())?;
            }
            Next::CutOff => return client.write_all(CUT_OFF),
            Next::End => return Ok(()),
            Next::Nothing if wait(client, follower)? => client.write_all(b":\n\n")?,
            Next::Nothing => {}
        }
    }
}

const CUT_OFF: &[u8] =
    b"event: cut_off\ndata: {\"event\":\"cut_off\",\"reason\":\"this client was too slow\"}\n\n";

/// Waits for the next event; whether none has come for long.
///
/// # Errors
/// The client leaves.
fn wait(client: &UnixStream, follower: &Follower) -> io::Result<bool> {
    // What a client says meanwhile is not read.
    let mut fds = [
        PollFd::new(follower, PollFlags::IN),
        PollFd::new(client, PollFlags::empty()),
    ];
    match poll(&mut fds, Some(&HEARTBEAT)) {
        Ok(0) => Ok(true),
        Ok(_) if !fds[1].revents().is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;
    use crate::machine_events::{MachineEvent, MachineEvents};

    #[test]
    fn events_come_as_they_happen_until_the_client_leaves() {
        let events = MachineEvents::default();
        let follower = events.follow().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&ours, &follower));
            let mut expect = |expected: &str| {
                let mut bytes = vec![0; expected.len()];
                theirs.read_exact(&mut bytes).unwrap();
                assert_eq!(String::from_utf8_lossy(&bytes), expected);
            };
            expect(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                 Connection: close\r\n\r\n: following\n\n",
            );
            events.tell(MachineEvent::Reset);
            expect("id: 1\nevent: reset\ndata: {\"event\":\"reset\"}\n\n");
            events.tell(MachineEvent::GuestCrashed {
                vcpu: 1,
                reason: "a\nb".into(),
            });
            expect(
                "id: 2\nevent: guest_crashed\n\
                 data: {\"event\":\"guest_crashed\",\"vcpu\":1,\"reason\":\"a\\nb\"}\n\n",
            );
            drop(theirs);
            assert!(serving.join().unwrap().is_err());
        });
    }

    #[test]
    fn a_client_that_is_cut_off_hears_why() {
        let events = MachineEvents::default();
        let follower = events.follow().unwrap();
        for _ in 0..1000 {
            events.tell(MachineEvent::Reset);
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let serving = scope.spawn(move || serve(&ours, &follower));
            let mut text = String::new();
            theirs.read_to_string(&mut text).unwrap();
            assert!(text.ends_with("\"reason\":\"this client was too slow\"}\n\n"));
            assert!(serving.join().unwrap().is_ok());
        });
    }
}
