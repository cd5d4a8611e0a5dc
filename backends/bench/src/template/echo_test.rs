//! The device behind its socket, without a guest: the test is frontend and driver.

use std::error::Error;

use workbench::driver::{Buffers, Frontend, Setup};
use workbench::target::Target;

const PROGRAM: &str = env!("CARGO_BIN_EXE_{{name}}");
const OPTIONS: &str = "{{test-options}}--socket {socket}";

#[test]
fn it_echoes() -> Result<(), Box<dyn Error>> {
    let command = format!("'{PROGRAM}' {OPTIONS}");
    let mut backend = Target::command(&command)?.start()?;
    let stream = backend.connect()?.ok_or("there is no connection")?;
    let mut session = Setup::default().start(Frontend::new(stream))?;
    let buffers = Buffers::place(session.memory(), b"hello", 8)?;
    let used = session.run(0, &buffers)?;
    assert_eq!(used.len, Some(5));
    assert_eq!(&buffers.finish(session.memory())?[..5], b"hello");
    Ok(())
}
