//! The device behind its socket, without a guest: the test is frontend and driver.

use std::error::Error;

use workbench::driver::{Buffers, Frontend, Session, Setup};
use workbench::target::Target;

const PROGRAM: &str = env!("CARGO_BIN_EXE_{{name}}");
const OPTIONS: &str = "{{test-options}}--socket {socket}";

const IN: u32 = 0;
const OUT: u32 = 1;

/// Sends a request of sector 1; returns its answer, which ends with the status.
fn request(
    session: &mut Session,
    kind: u32,
    data: &[u8],
    answer: u32,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut readable = kind.to_le_bytes().to_vec();
    readable.extend(0u32.to_le_bytes());
    readable.extend(1u64.to_le_bytes());
    readable.extend(data);
    let buffers = Buffers::place(session.memory(), &readable, answer)?;
    let used = session.run(0, &buffers)?;
    assert_eq!(used.len, Some(answer));
    Ok(buffers.finish(session.memory())?)
}

#[test]
fn it_reads_what_was_written() -> Result<(), Box<dyn Error>> {
    let command = format!("'{PROGRAM}' {OPTIONS}");
    let mut backend = Target::command(&command)?.start()?;
    let stream = backend.connect()?.ok_or("there is no connection")?;
    let mut session = Setup::default().start(Frontend::new(stream))?;
    for byte in [0x5a, 0xa5] {
        let status = request(&mut session, OUT, &[byte; 512], 1)?;
        assert_eq!(status, [0]);
        let answer = request(&mut session, IN, &[], 513)?;
        assert_eq!(answer[..512], [byte; 512]);
        assert_eq!(answer[512], 0);
    }
    Ok(())
}
