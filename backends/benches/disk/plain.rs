//! The limit: the same requests by io_uring, with nobody between.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types::Fd};

use super::figures::Figures;
use super::row::{Places, Row, Work};

/// Requests of `row`, which has O_DIRECT, for `duration`.
pub fn measure(row: &Row, duration: Duration) -> Figures {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&row.image)
        .unwrap();
    let len = row.len as usize;
    let mut room = vec![0u8; len * row.depth as usize + 4096];
    let aligned = room.as_ptr().align_offset(4096);
    let room = &mut room[aligned..];
    let mut ring = IoUring::new(row.depth as u32).unwrap();
    let mut places = Places::of(row);
    let mut begun = vec![Instant::now(); row.depth as usize];
    let mut latencies = Vec::with_capacity(1 << 20);
    let (cpu, begin) = (cpu(), Instant::now());
    let mut free: Vec<usize> = (0..row.depth as usize).collect();
    let mut in_flight = 0;
    loop {
        if begin.elapsed() < duration {
            for number in free.drain(..) {
                let (fd, at) = (Fd(file.as_raw_fd()), places.next() * u64::from(row.len));
                let data = room[number * len..].as_mut_ptr();
                let entry = match row.work {
                    Work::Write => opcode::Write::new(fd, data, row.len).offset(at).build(),
                    _ => opcode::Read::new(fd, data, row.len).offset(at).build(),
                };
                begun[number] = Instant::now();
                let entry = entry.user_data(number as u64);
                // SAFETY: `room` and `file` outlive the ring's requests, all of which are waited
                // for below.
                unsafe { ring.submission().push(&entry) }.unwrap();
                in_flight += 1;
            }
        }
        if in_flight == 0 {
            break;
        }
        ring.submit_and_wait(1).unwrap();
        for entry in ring.completion() {
            let number = entry.user_data() as usize;
            assert_eq!(entry.result(), len as i32);
            latencies.push(begun[number].elapsed());
            free.push(number);
            in_flight -= 1;
        }
    }
    Figures::of(latencies, begin.elapsed(), self::cpu() - cpu)
}

/// Time of this process on a processor.
fn cpu() -> Duration {
    // SAFETY: `rusage` is plain data for which all zeroes is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is what the call fills.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
