//! The backend keeps the vhost-user document and virtio 1.4: `outboard-check` as a library.

use std::error::Error;

use workbench::check::{Outcome, Runner, all};
use workbench::report::Text;
use workbench::target::Target;

const PROGRAM: &str = env!("CARGO_BIN_EXE_{{name}}");
const OPTIONS: &str = "{{test-options}}--socket {socket}";

#[test]
fn it_keeps_the_specifications() -> Result<(), Box<dyn Error>> {
    let device_type = "{{type}}".parse()?;
    let target = Target::command(&format!("'{PROGRAM}' {OPTIONS}"))?;
    let runner = Runner::new(target, device_type, 1)?;
    let mut failures = String::new();
    for check in all().filter(|check| check.concerns(device_type)) {
        let finding = runner.run(check);
        if let Outcome::Fail(_) | Outcome::Untried(_) = finding.outcome {
            failures += &Text { colour: false }.finding(&finding, &runner);
        }
    }
    assert!(failures.is_empty(), "{failures}");
    Ok(())
}
