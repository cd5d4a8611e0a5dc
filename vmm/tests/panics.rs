//! A panic of any thread is heard of. In a process of its own: the hook is everybody's.

use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm::events::channel;
use vmm::panics::{Panicked, report_to};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_panic_of_a_thread_reaches_the_event_loop() {
    let (panics, inbox) = channel().unwrap();
    report_to(panics);
    let spawn = |name: &str, run: fn()| {
        let thread = thread::Builder::new().name(name.into());
        thread.spawn(run).unwrap().join()
    };
    spawn("sound", || {}).unwrap();
    assert_eq!(inbox.take(), None);
    spawn("vcpu7", || panic!("as a bug would")).unwrap_err();
    let mut fds = [PollFd::new(&inbox, PollFlags::IN)];
    let timeout = Timespec::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1));
    assert_eq!(inbox.take(), Some(Panicked("vcpu7".into())));
}
