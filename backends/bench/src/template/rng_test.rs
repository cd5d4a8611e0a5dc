//! The device behind its socket, without a guest: the test is frontend and driver.

use std::error::Error;

use workbench::driver::{Buffers, Frontend, Setup};
use workbench::target::Target;

const PROGRAM: &str = env!("CARGO_BIN_EXE_{{name}}");
const OPTIONS: &str = "{{test-options}}--socket {socket}";

#[test]
fn it_fills_a_buffer() -> Result<(), Box<dyn Error>> {
    let command = format!("'{PROGRAM}' {OPTIONS}");
    let mut backend = Target::command(&command)?.start()?;
    let stream = backend.connect()?.ok_or("there is no connection")?;
    let mut session = Setup::default().start(Frontend::new(stream))?;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let buffers = Buffers::place(session.memory(), &[], 32)?;
        let used = session.run(0, &buffers)?;
        assert_eq!(used.len, Some(32));
        answers.push(buffers.finish(session.memory())?);
    }
    assert_ne!(answers[0], answers[1]);
    Ok(())
}
