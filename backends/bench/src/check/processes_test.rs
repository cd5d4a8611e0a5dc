use std::fs;
use std::os::unix::fs::symlink;

use super::*;

// Not sh: dash knows descriptors of one digit alone.

#[test]
fn a_process_that_crashed_is_told_of_whatever_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let once = format!("[ -e {0} ] && exec cat <&$0; >{0}", mark.display());
    let text = format!("bash -c '{once}; cat <&$0; echo my last words; kill -SEGV $$' {{fd}}");
    let target = Target::command(&text).unwrap();
    let mut processes = Processes::new(&target, false, Patience::default());
    let first = processes.connect().unwrap();
    wait_for(|| mark.exists());
    drop(first);
    let crashed = processes.current.as_mut().and_then(Instance::process);
    assert!(
        crashed
            .unwrap()
            .exit_within(Duration::from_secs(10))
            .is_some()
    );
    drop(processes.connect().unwrap());
    assert!(processes.kill());
    assert!(!processes.kill());
    let ended = processes.finish();
    assert!(ended.crash.is_some_and(Exit::is_crash), "{ended:?}");
    assert_eq!(ended.output, ["my last words"]);
    assert_eq!(ended.not_started, None);
}

#[test]
fn a_process_that_cannot_be_started_again_is_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    // A link, not a script: what another test forks while a script is written keeps it busy.
    let program = dir.path().join("backend");
    symlink("/bin/bash", &program).unwrap();
    let target = Target::command(&format!("{} -c 'exec cat <&$0' {{fd}}", program.display()));
    let target = target.unwrap();
    let mut processes = Processes::new(&target, false, Patience::default());
    drop(processes.connect().unwrap());
    fs::remove_file(&program).unwrap();
    assert!(processes.connect().is_err());
    let ended = processes.finish();
    assert!(ended.crash.is_none());
    let reason = ended.not_started.unwrap();
    assert!(
        reason.ends_with("cannot be started: No such file or directory (os error 2)"),
        "{reason}"
    );
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
}
